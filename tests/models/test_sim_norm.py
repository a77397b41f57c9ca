"""SimNorm: simplices, the layout of its groups, and what a policy makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from difftori_gym import DiffTORI, DiffTORIPolicy, make_env
from difftori_gym.models import LatentModel, SimNorm

NETWORKS: dict[str, Any] = dict(net_arch=[16], latent_dim=8, simnorm_dim=4)


def test_every_group_is_a_simplex() -> None:
    x = 10 * torch.randn(3, 5, 12)
    groups = SimNorm(4)(x).unflatten(-1, (4, 3))
    assert groups.min() >= 0
    torch.testing.assert_close(groups.sum(-2), torch.ones(3, 5, 3))
    torch.testing.assert_close(groups[..., 1], x[..., [1, 4, 7, 10]].softmax(-1))


def test_large_numbers_do_not_overflow() -> None:
    y = SimNorm(2)(torch.tensor([[1e30, -1e30, 1e4, 0.0]]))
    torch.testing.assert_close(y, torch.tensor([[1.0, 0.0, 0.0, 1.0]]))


@pytest.mark.parametrize("simnorm_dim", [0, 1, 3, 16, -4])
def test_a_group_must_divide_the_latent_state(simnorm_dim: int) -> None:
    with pytest.raises(ValueError, match=f"divides latent_dim, got simnorm_dim={simnorm_dim} and latent_dim=8"):
        LatentModel(8, 2, simnorm_dim=simnorm_dim)


def test_latent_states_and_their_predictions_are_simplices_and_survive_saving(tmp_path: Path) -> None:
    env = make_env("dm_control/cartpole-swingup", seed=0)
    settings: dict[str, Any] = dict(horizon=2, max_iterations=2, batch_size=8, learning_starts=16, buffer_size=200)
    model = DiffTORI("MlpPolicy", env, policy_kwargs=NETWORKS, seed=0, device="cpu", **settings)
    model.learn(40)
    observation = env.reset(seed=1)[0]
    encoded = model.policy.encode(torch.as_tensor(observation)[None])
    predicted = model.policy.model.next(encoded, torch.zeros(1, 1))[0]
    for z in (encoded, predicted):
        torch.testing.assert_close(z.view(4, 2).sum(0), torch.ones(2))
    action = model.predict(observation, deterministic=True)[0]
    model.save(tmp_path / "model")
    loaded = DiffTORI.load(tmp_path / "model", device="cpu")
    np.testing.assert_array_equal(loaded.predict(observation, deterministic=True)[0], action)
    exported = DiffTORIPolicy.from_export(model.policy.export(tmp_path / "policy"), device="cpu")
    assert exported.simnorm_dim == 4
    np.testing.assert_array_equal(exported.predict(observation, deterministic=True)[0], action)
