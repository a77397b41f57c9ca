"""
Nothing in an update or a plan waits for a device that is not the CPU.

The networks lie on the device ``meta``, which has shapes and no numbers: what asks it for a number raises, and what
copies between it and the host is noticed. There a program would wait for a GPU, and a CUDA graph could not be recorded.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from difftori_gym import DiffTORI
from difftori_gym.models.call_lists.fresh import fresh_lists
from difftori_gym.rl.captured_update import tensors_of, with_tensors
from difftori_gym.rl.update import Updater

ELSEWHERE = torch.device("meta")


class Copies(TorchDispatchMode):
    """Notes operations between the host's tensors and the device's; a lone number of the host's is no copy."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor) and each.dim() > 0]
        devices = {each.device.type for each in given}
        devices |= {each.device.type for each in tree_leaves(out) if isinstance(each, torch.Tensor)}
        if len(devices) > 1 or "cpu" in devices:
            self.found.append(str(func))
        return out


def elsewhere(model: DiffTORI) -> None:
    """Move the networks; Adam's fused kernel does not know the device."""
    policy = model.policy
    for module in policy.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                moved = torch.empty_like(parameter, device=ELSEWHERE)
                module._parameters[name] = torch.nn.Parameter(moved, requires_grad=parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty_like(buffer, device=ELSEWHERE)
    policy.optimizer = torch.optim.SGD(policy.model_parameters(), lr=1e-3)
    policy.pi_optimizer = torch.optim.SGD(policy.model.actor.parameters(), lr=1e-3)
    policy.raw_critic_optimizer = torch.optim.SGD(policy.raw_critic.parameters(), lr=1e-3)


SETTINGS: dict[str, dict[str, Any]] = {
    "preset": {},
    "episodic": {},
    "n_steps": dict(n_steps=2),
    "norm_obs": dict(policy_kwargs=dict(net_arch=[16], latent_dim=6, norm_obs=True)),
    "adam": dict(planner_kwargs=dict(solver="adam", num_starts=1, max_iterations=3)),
    "images": {},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_an_update_and_a_plan_never_wait(name, difftori, point_env, monkeypatch):
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: False)  # the device is unknown to it
    kind, policy = ("image", "CnnPolicy") if name == "images" else ("array", "MlpPolicy")
    model = difftori.make(point_env(kind), policy, buffer_size=100, **SETTINGS[name]).learn(20)
    model.policy.model.episodic = name == "episodic"
    model.policy.set_training_mode(True)
    batch = model.replay_buffer.sample_sequences(8, model.horizon)
    elsewhere(model)
    updater = Updater(model.policy, model.update_settings)
    batch = with_tensors(batch, [torch.empty_like(tensor, device=ELSEWHERE) for tensor in tensors_of(batch)])
    with Copies() as copies, fresh_lists():
        for n_updates in (1, 2, 3, 4):
            updater.update(batch, n_updates)
        model.policy.set_training_mode(False)
        observation = batch.observations[:1]
        with torch.no_grad():
            plan = model.policy._plan_of(observation, None)
    assert plan.best_actions.device == ELSEWHERE
    assert copies.found == []


def test_what_waits_is_noticed():
    numbers = torch.ones(3, device=ELSEWHERE)
    with Copies() as copies:
        numbers + torch.ones(3).to(ELSEWHERE)
    assert copies.found
    with pytest.raises(RuntimeError):
        bool(numbers.sum() > 0)
