"""Environments of ManiSkill 3 that step together: thousands on a GPU, one on a CPU, through the same code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from difftori_gym.envs.maniskill_observation import View, space_of
from difftori_gym.observations import TensorObs, map_obs
from difftori_gym.wrappers import BatchedEnv, TensorStep


class ManiSkillBatch(BatchedEnv):
    """
    All environments of one ManiSkill simulation.

    An episode ends where ManiSkill ends it: by success or failure of the task (terminated) or at its time limit.

    :param source: ManiSkill's environment with its time limit
    :param view: what is made of its observations
    :param action_repeat: environment frames per step, at least 1
    :param render_mode: None or ``rgb_array``
    :raises ValueError: for actions that are no ``Box`` or a number outside its range
    """

    def __init__(self, source: Any, view: View, *, action_repeat: int = 1, render_mode: str | None = None) -> None:
        if action_repeat < 1:
            raise ValueError(f"ManiSkillBatch needs action_repeat >= 1, got {action_repeat}.")
        base = source.unwrapped
        action_space = base.single_action_space
        if not isinstance(action_space, spaces.Box):
            raise ValueError(
                f"ManiSkill's {base.spec.id} needs one robot with a Box action space, got {action_space}. "
                "Choose a task with one robot."
            )
        self.source, self.view, self.action_repeat = source, view, action_repeat
        self.control_mode = str(base.control_mode)
        first = view(source.reset(seed=_any_seeds(base.num_envs))[0])
        super().__init__(
            base.num_envs,
            space_of(first),
            spaces.Box(action_space.low, action_space.high, dtype=np.float32),
            device=base.device,
            render_mode=render_mode,
            render_fps=base.control_freq / action_repeat,
        )

    def reset(self, seeds: Sequence[int | None]) -> TensorObs:
        seeded = [index for index, seed in enumerate(seeds) if seed is not None]
        given = [int(seed) for seed in seeds if seed is not None]
        if len(given) == self.num_envs:
            return self.view(self.source.reset(seed=given)[0])
        raw, _ = self.source.reset()
        if given:
            raw, _ = self.source.reset(seed=given, options={"env_idx": torch.tensor(seeded, device=self.device)})
        return self.view(raw)

    def step(self, actions: Tensor) -> TensorStep:
        raw, rewards, terminated, truncated, info = self.source.step(actions)
        final, rewards = self.view(raw), rewards.float().clone()
        terminated, truncated = terminated.clone(), truncated & ~terminated
        success = info["success"].bool().clone() if "success" in info else None
        frames = torch.ones(self.num_envs, dtype=torch.int32, device=self.device)
        for _ in range(self.action_repeat - 1):
            # Where the episode has ended, the simulation runs on unseen until the step is over.
            running = ~(terminated | truncated)
            if not bool(running.any()):
                break
            raw, reward, ends, cut, info = self.source.step(actions)
            final = map_obs(lambda new, old, running=running: _where(running, new, old), self.view(raw), final)
            rewards, frames = rewards + reward.float() * running, frames + running
            terminated, truncated = terminated | (ends & running), truncated | (cut & running & ~ends)
            if success is not None:
                success = success | (info["success"].bool() & running)
        observations = self._reset_ended(terminated | truncated, final)
        return TensorStep(observations, rewards, terminated, truncated, final, frames, success)

    def _reset_ended(self, ended: Tensor, final: TensorObs) -> TensorObs:
        """Observations ``[N, ...]`` to act on next: fresh ones where an episode ended."""
        if not bool(ended.any()):
            return final
        options = None if bool(ended.all()) else {"env_idx": ended.nonzero().flatten()}
        fresh = self.view(self.source.reset(options=options)[0])
        return map_obs(lambda new, old: _where(ended, new, old), fresh, final)

    def render(self) -> list[np.ndarray]:
        """Of the task's camera for people."""
        images = self.source.render()
        return list(np.asarray(images.cpu() if isinstance(images, Tensor) else images, dtype=np.uint8))

    def close(self) -> None:
        self.source.close()


def _any_seeds(count: int) -> list[int]:
    """Seeds from the system: ManiSkill without one always starts from the same."""
    return [int(seed) for seed in np.random.SeedSequence().generate_state(count) >> 1]


def _where(condition: Tensor, chosen: Tensor, other: Tensor) -> Tensor:
    return torch.where(condition.reshape(-1, *(1,) * (chosen.ndim - 1)), chosen, other)
