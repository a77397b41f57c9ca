"""Files of what acts, without the networks that only training reads."""

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from difftori_gym import DiffTORI, export, load_export
from difftori_gym.baselines import TDMPC2

OBSERVATIONS = np.random.default_rng(0).uniform(-1, 1, (4, 3)).astype(np.float32)


@pytest.fixture(scope="module", params=[DiffTORI, TDMPC2])
def model(request):
    arch = dict(size="small") if request.param is TDMPC2 else dict(net_arch=[16])
    return request.param("MlpPolicy", "Pendulum-v1", policy_kwargs=arch, seed=0, device="cpu")


def test_it_acts_the_same_and_the_file_is_smaller(model, tmp_path):
    whole, acting = export(model, tmp_path / "whole"), export(model, tmp_path / "acting", acting_only=True)
    assert acting.stat().st_size < 0.8 * whole.stat().st_size
    assert not [name for name in load_file(acting) if "target" in name or "raw_critic" in name]
    policy = load_export(acting, device="cpu")
    assert not policy.training
    for kind in (dict(deterministic=True), dict(deterministic=False)):
        torch.manual_seed(0)
        expected, _ = model.policy.predict(OBSERVATIONS, **kind)
        torch.manual_seed(0)
        np.testing.assert_array_equal(policy.predict(OBSERVATIONS, **kind)[0], expected)


def test_the_loaded_policy_can_be_exported_again(model, tmp_path):
    first = export(model, tmp_path / "first", acting_only=True)
    second = export(load_export(first, device="cpu"), tmp_path / "second")
    assert load_file(first).keys() == load_file(second).keys()


def test_networks_are_left_out_wholly_or_not_at_all(model, tmp_path):
    path = export(model, tmp_path / "policy")
    tensors = load_file(path)
    left_out = next(name for name in tensors if name.startswith("critic_target"))
    with safe_open(path, "pt") as file:
        about = file.metadata()
    save_file({name: value for name, value in tensors.items() if name != left_out}, path, about)
    with pytest.raises(ValueError, match=r"missing .*critic_target"):
        load_export(path)
