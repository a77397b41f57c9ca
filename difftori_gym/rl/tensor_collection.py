"""Collection from environments that step in tensors: nothing but flags and statistics leaves the device."""

from __future__ import annotations

from typing import Any, Protocol, TypeGuard

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.type_aliases import RolloutReturn, TrainFreq
from stable_baselines3.common.utils import should_collect_more_steps
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from torch import Tensor

from difftori_gym.learning.finite import check_finite_tensors
from difftori_gym.learning.off_policy import OffPolicyLearner
from difftori_gym.learning.transfers import uploaded
from difftori_gym.observations import TensorObs, map_obs
from difftori_gym.rl.exploration import CorrelatedNoise, Exploration, NoiseModes, RewardedSteps
from difftori_gym.rl.planning import carried_plan
from difftori_gym.rl.policies import DiffTORIPolicy
from difftori_gym.rl.sequence_buffer import sequence_buffer_class
from difftori_gym.rl.tensor_buffer import TensorSequenceReplayBuffer


class StepOfTensors(Protocol):
    """A step of ``N`` environments on the device; an environment whose episode ended has been reset already."""

    @property
    def observations(self) -> TensorObs:
        """To act on next, ``[N, ...]``."""

    @property
    def rewards(self) -> Tensor:
        """``[N]``"""

    @property
    def final_observations(self) -> TensorObs:
        """What the actions led to, ``[N, ...]``."""


class TensorEnv(Protocol):
    """What a ``VecEnv`` offers beside its own interface to be learned from on the device."""

    num_envs: int

    @property
    def observations(self) -> TensorObs:
        """What the environments show now, ``[N, ...]``."""

    def step_tensor(self, actions: Tensor) -> StepOfTensors:
        """Step with actions ``[N, A]`` in the environment's units."""

    def episode_infos(self) -> tuple[np.ndarray, list[dict[str, Any]]]:
        """Which episodes ended with the last step ``[N]``, and the infos of a ``VecEnv``."""


def steps_in_tensors(env: Any) -> TypeGuard[TensorEnv]:
    """:return: whether the environment steps in tensors; not under a wrapper, whose changes would be lost"""
    return isinstance(env, VecEnv) and not isinstance(env, VecEnvWrapper) and hasattr(env, "step_tensor")


def buffer_class_for(env: VecEnv | None, observation_space: spaces.Space[Any]) -> type[ReplayBuffer]:
    """:return: the class of the replay buffer that suits the environment, if any, and its observations"""
    return TensorSequenceReplayBuffer if steps_in_tensors(env) else sequence_buffer_class(observation_space)


class TensorCollection(OffPolicyLearner):
    """
    An off-policy algorithm that plans, which collects on the device where the environment allows it.

    Callbacks see ``new_obs`` and ``rewards`` as tensors then, and ``dones`` and ``infos`` (without
    ``terminal_observation``) as ever.
    """

    # Of the algorithm that is derived from this.
    policy: DiffTORIPolicy
    exploration: Exploration
    _noise: CorrelatedNoise
    _noise_modes: NoiseModes
    _rewarded_steps: RewardedSteps
    _plan_state: Any
    _schedule_step: int
    _step_is_stored: bool
    _move_schedules: Any
    _acts_as_cloned: Any
    _cloned_action: Any

    _tensor_plan: Tensor | None = None

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        train_freq: TrainFreq,
        replay_buffer: ReplayBuffer,
        action_noise: ActionNoise | None = None,
        learning_starts: int = 0,
        log_interval: int | None = None,
    ) -> RolloutReturn:
        """See ``stable_baselines3.common.off_policy_algorithm.OffPolicyAlgorithm.collect_rollouts``."""
        if not (steps_in_tensors(env) and isinstance(replay_buffer, TensorSequenceReplayBuffer)):
            return super().collect_rollouts(
                env, callback, train_freq, replay_buffer, action_noise, learning_starts, log_interval
            )
        self.policy.set_training_mode(False)
        steps, episodes = 0, 0
        callback.on_rollout_start()
        while should_collect_more_steps(train_freq, steps, episodes):
            observations = self._on_device(env.observations)
            scaled = self._tensor_action(observations, learning_starts, action_noise, env.num_envs)
            self._step_is_stored = False
            step = env.step_tensor(self._in_env_units(scaled))
            dones, infos = env.episode_infos()
            self.num_timesteps += env.num_envs
            steps += 1
            callback.update_locals({**locals(), "new_obs": step.observations, "rewards": step.rewards})
            if not callback.on_step():
                return RolloutReturn(steps * env.num_envs, episodes, continue_training=False)
            self._update_info_buffer(infos, dones)
            final, rewards = self._on_device(step.final_observations), step.rewards.to(self.device)
            self._store_tensors(replay_buffer, observations, final, scaled, rewards, dones, infos)
            self._update_current_progress_remaining(self.num_timesteps, self._total_timesteps)
            episodes += int(dones.sum())
            self._end_episodes(dones, action_noise, log_interval)
        callback.on_rollout_end()
        return RolloutReturn(steps * env.num_envs, episodes, continue_training=True)

    def _correlated_noise(self, learning_starts: int, shape: tuple[int, ...]) -> np.ndarray | None:
        """:return: what the next actions are disturbed with, or are while they are random; None for white noise"""
        explore, correlation = self.exploration, self.exploration.correlation
        if self.num_timesteps < learning_starts:
            correlation = correlation if explore.warmup_correlation is None else explore.warmup_correlation
        elif explore.mode_steps is not None:
            noisy = self._noise_modes(shape[0], explore.mode_steps)
            return self._noise(shape, correlation) * noisy.reshape(-1, *[1] * (len(shape) - 1)).astype(np.float32)
        return self._noise(shape, correlation) if correlation > 0 else None

    def _tensor_action(
        self, observations: TensorObs, learning_starts: int, action_noise: ActionNoise | None, n_envs: int
    ) -> Tensor:
        """What ``_sample_action`` does, for a batch on the device; actions in [-1, 1], ``[N, A]``."""
        action_shape: tuple[int, ...] = self.action_space.shape or ()
        drawn = self._correlated_noise(learning_starts, (n_envs, *action_shape))
        noise = None if drawn is None else self._upload(drawn).flatten(1)
        if self._acts_as_cloned(learning_starts):
            scaled = self._cloned_action(observations, drawn)
        elif self.num_timesteps < learning_starts:
            size = (n_envs, int(np.prod(action_shape)))
            scaled = 2.0 * torch.rand(size, device=self.device) - 1.0 if noise is None else noise.clamp(-1.0, 1.0)
        else:
            self._schedule_step = self.num_timesteps
            self._move_schedules()
            # Without a generator, a sampling planner plans row by row.
            random = noise is None or self.policy.planner.samples
            generator = self.policy.drawn_generator() if random else None
            solution = self.policy.plan(observations, previous=self._tensor_plan, generator=generator)
            scaled = self.policy.first_action(observations, solution, noise is not None, generator)
            if noise is not None:
                scaled = (scaled + self.policy.exploration_std * noise).clamp(-1.0, 1.0)
            if self.policy.planner.init == "warm":
                self._tensor_plan = carried_plan(solution).clone()
        if action_noise is not None:
            scaled = (scaled + self._upload(np.asarray(action_noise())).reshape(scaled.shape)).clamp(-1.0, 1.0)
        return scaled

    def _store_tensors(
        self,
        replay_buffer: TensorSequenceReplayBuffer,
        observations: TensorObs,
        final: TensorObs,
        scaled: Tensor,
        rewards: Tensor,
        dones: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        check_finite_tensors(final, rewards)
        self._note_step(rewards, dones, infos)
        if self._tensor_plan is not None and dones.any():
            self._tensor_plan[torch.as_tensor(dones, device=self.device)] = torch.nan
        replay_buffer.add(observations, final, scaled, rewards, dones, infos)
        self._step_is_stored = True

    def _note_step(self, rewards: np.ndarray | Tensor, dones: np.ndarray, infos: list[dict[str, Any]]) -> None:
        timeouts = np.array([info.get("TimeLimit.truncated", False) for info in infos], dtype=bool)
        if np.any(dones & ~timeouts) and not self.policy.model.episodic:
            self.policy.model.episodic = True
        if self.exploration.after_reward:
            self._rewarded_steps.add(torch.as_tensor(rewards).cpu().numpy(), dones)

    def _end_episodes(self, dones: np.ndarray, action_noise: ActionNoise | None, log_interval: int | None) -> None:
        for index in np.flatnonzero(dones):
            self._episode_num += 1
            if action_noise is not None:
                action_noise.reset(**({"indices": [int(index)]} if len(dones) > 1 else {}))
            if log_interval is not None and self._episode_num % log_interval == 0:
                self.dump_logs()

    def _in_env_units(self, scaled: Tensor) -> Tensor:
        space = self.action_space
        assert isinstance(space, spaces.Box)
        low, high = self._upload(space.low).flatten(), self._upload(space.high).flatten()
        actions = low + 0.5 * (scaled + 1.0) * (high - low)
        return actions.clamp(low, high).reshape(-1, *space.shape)

    def _upload(self, array: np.ndarray) -> Tensor:
        return uploaded(np.asarray(array, dtype=np.float32), self.device)

    def _on_device(self, observations: TensorObs) -> TensorObs:
        return map_obs(lambda value: value.to(self.device), observations)
