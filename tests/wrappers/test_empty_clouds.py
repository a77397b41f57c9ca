"""Training goes on when a crop box holds no point."""

import warnings

import numpy as np
import pytest
import torch

from difftori_gym import DiffTORI
from difftori_gym.envs import make_vec_env
from difftori_gym.envs.rendering import gl_backend_works, select_gl_backend

select_gl_backend()  # before the first import of MuJoCo
pytest.importorskip("dm_control")
pytestmark = pytest.mark.skipif(
    not (gl_backend_works("egl") or gl_backend_works("osmesa")), reason="MuJoCo cannot draw on this machine"
)


def test_training_goes_on_with_one_warning():
    nowhere = {"crop_low": (5.0, 5.0, 5.0), "crop_high": (6.0, 6.0, 6.0), "num_points": 64}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        env = make_vec_env("dm_control/cartpole-swingup", obs="pointcloud", obs_kwargs=nowhere, seed=0)
        model = DiffTORI(
            "MultiInputPolicy",
            env,
            learning_starts=8,
            batch_size=4,
            horizon=2,
            buffer_size=50,
            policy_kwargs={"net_arch": [8]},
            seed=0,
            device="cpu",
        )
        model.learn(20)
    assert sum("see no point" in str(warning.message) for warning in told) == 1
    assert model._n_updates > 5
    assert all(torch.isfinite(parameter).all() for parameter in model.policy.parameters())
    first, second = env.reset()["point_cloud"], env.step(np.zeros((1, 1)))[0]["point_cloud"]
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, np.full((1, 64, 3), 5.5, np.float32))
    env.close()
