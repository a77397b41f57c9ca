"""Reinforcement that begins with demonstrations: learned from alone at first, then in a share of every batch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.utils import configure_logger
from torch import Tensor

from difftori_gym.learning.memory_errors import out_of_memory_explained
from difftori_gym.learning.transfers import LateResults
from difftori_gym.rl.demonstrated_batch import joined
from difftori_gym.rl.demonstrations import DemonstrationSet, Rewards, check_demonstrations, fill, rewards_of
from difftori_gym.rl.exploration import PlanningSchedule
from difftori_gym.rl.sequence_buffer import SequenceBatch, SequenceSampling
from difftori_gym.rl.tensor_collection import TensorCollection

SelfFromDemonstrations = TypeVar("SelfFromDemonstrations", bound="FromDemonstrations")

LEAST = 1 / 3
"""The share of demonstrations falls to this part of what it was, as MoDem's 75 % fall to 25 %."""

FREE_AFTER = 20
"""Own successes for each demonstration after which neither plans nor prior are held."""

LOG_EVERY = 1000


class FromDemonstrations(TensorCollection):
    """An off-policy algorithm that plans, which can begin with demonstrations."""

    # Of the algorithm that is derived from this.
    update_settings: Any
    horizon: int
    schedule: PlanningSchedule
    _updater: Any

    #: Share of demonstrations in a batch before the agent's own successes, 0 for none.
    demonstration_share: float = 0.0
    _num_demonstrations: int = 0
    _own_successes: int = 0
    _demonstrated_return: float = 0.0
    _shown: SequenceSampling | None = None  # the demonstrations, as a replay of their own

    def learn_from(
        self: SelfFromDemonstrations,
        demonstrations: DemonstrationSet,
        pretrain_steps: int = 5000,
        share: float = 0.5,
        *,
        rewards: Rewards | None = None,
        clone_coef: float = 4.0,
    ) -> SelfFromDemonstrations:
        """
        Begin with demonstrations, before :meth:`learn` (MoDem, arXiv 2212.05698).

        First encoder, dynamics, reward and values learn from them alone, and the policy prior clones their actions.
        Then, in :meth:`learn`, the first ``learning_starts`` actions are those of the prior with exploration noise in
        place of random ones, and every batch holds a share of demonstrations (RLPD, arXiv 2302.02948), whose actions
        the prior goes on to clone beside climbing the values (TD3+BC, arXiv 2106.06860). The share falls as the agent's
        own successes come: with as many as there are demonstrations to one half, and to a third at last. Where the
        environment does not tell success, an episode counts that returns what the demonstrations do on average.

        What was learned from demonstrations alone knows nothing of other actions. So plans begin as the prior's
        actions, and values move the prior little. Both become free with the agent's own successes, :data:`FREE_AFTER`
        times as many as there are demonstrations, or without them after five times ``schedule_steps``.

        Neither ``save`` nor ``save_replay_buffer`` writes the demonstrations. A model that was loaded is given them
        again, with ``pretrain_steps=0``; a checkpoint of ``ResumeCallback`` holds them.

        :param demonstrations: :class:`~difftori_gym.il.Demonstrations` of any reader; ``take(10)`` of them are the
            first ten
        :param pretrain_steps: updates from demonstrations alone, at least 0
        :param share: of demonstrations in every batch at first, in [0, 1]; 0 for none after the first updates
        :param rewards: those of the demonstrations are the ``"environment"``'s, as recorded, or ``"success"`` alone, 1
            for each step that leads to where the task is solved; None for what the environment rewards
        :param clone_coef: weight of cloning in the prior's loss, in units of the values' mean size, at least 0
        :return: the learner
        :raises ValueError: for a number outside its range, rewards that are not known, and demonstrations of other
            observations, actions, action repeat, control mode or time limit than the environment's
        """
        _check_numbers(pretrain_steps, share, clone_coef)
        check_demonstrations(demonstrations, self.observation_space, self.action_space, self.env)
        earned = rewards_of(demonstrations, rewards, self.env)
        actions = [self.policy.scale_action(episode.actions) for episode in demonstrations.episodes]
        memory = self._memory_of(sum(map(len, demonstrations.episodes)))
        fill(memory, demonstrations, actions, earned)
        if any(episode.terminated for episode in demonstrations.episodes):
            self.policy.model.episodic = True
        self._shown, self._num_demonstrations = memory, len(demonstrations.episodes)
        self._demonstrated_return = float(np.mean([each.sum() for each in earned]))
        self.demonstration_share = float(share)
        self.update_settings = replace(self.update_settings, clone_coef=clone_coef)
        self._pretrain(pretrain_steps)
        self._move_schedules()
        return self

    def _memory_of(self, num_steps: int) -> SequenceSampling:
        assert self.replay_buffer_class is not None
        kwargs = {**(self.replay_buffer_kwargs or {}), "handle_timeout_termination": True}
        memory = self.replay_buffer_class(
            num_steps, self.observation_space, self.action_space, device=self.device, n_envs=1, **kwargs
        )
        assert isinstance(memory, SequenceSampling)
        return memory

    def _pretrain(self, steps: int) -> None:
        """Updates from demonstrations alone; means of the terms are told as in training, if ``verbose``."""
        assert self._shown is not None
        logger = configure_logger(self.verbose)
        self.policy.set_training_mode(True)
        settings, self._updater.settings = self._updater.settings, replace(self.update_settings, pretrains=True)
        priorities = LateResults(self._update_priorities)
        try:
            for step in range(1, steps + 1):
                shown = self._shown.sample_sequences(self.batch_size, self.horizon, env=self._vec_normalize_env)
                with out_of_memory_explained(batch_size=self.batch_size):
                    batch = joined(None, shown)
                    priorities.put(batch.indices, self._updater.update(batch, step))
                if step % LOG_EVERY == 0 or step == steps:
                    for name, value in self._updater.means.pop().items():
                        logger.record(f"pretrain/{name}", value)
                    logger.record("pretrain/n_updates", step)
                    logger.dump(step)
            priorities.settle()
        finally:
            self._updater.settings = settings

    @property
    def present_share(self) -> float:
        """Share of demonstrations in the batches of this moment."""
        total = self._num_demonstrations + self._own_successes
        left = self._num_demonstrations / total if total else 0.0
        return self.demonstration_share * max(left, LEAST)

    def _sample_windows(self, batch_size: int) -> SequenceBatch:
        """:return: what the next update learns from"""
        assert isinstance(self.replay_buffer, SequenceSampling)
        count = 0 if self._shown is None else round(self.present_share * batch_size)
        env = self._vec_normalize_env
        if count == 0:
            return self.replay_buffer.sample_sequences(batch_size, self.horizon, env=env)
        assert self._shown is not None
        own = None
        if count < batch_size:
            own = self.replay_buffer.sample_sequences(batch_size - count, self.horizon, env=env)
        return joined(own, self._shown.sample_sequences(count, self.horizon, env=env))

    def _update_priorities(self, indices: np.ndarray, priorities: np.ndarray) -> None:
        shown = indices < 0
        if not shown.all():
            assert isinstance(self.replay_buffer, SequenceSampling)
            self.replay_buffer.update_priorities(indices[~shown], priorities[~shown])
        if shown.any():
            assert self._shown is not None
            self._shown.update_priorities(-1 - indices[shown], priorities[shown])

    def dump_logs(self) -> None:
        """Write the log, with the present share of demonstrations if there are any."""
        if self._shown is not None:
            self.logger.record("train/demo_share", self.present_share)
        super().dump_logs()

    def _free_plans(self, step: int) -> None:
        """Let plans leave the prior, and values move it, as far as the agent may after so many agent steps."""
        freedom = 1.0
        if self._num_demonstrations:
            earned = self._own_successes / (FREE_AFTER * self._num_demonstrations)
            freedom = min(max(earned, self.schedule.progress(max(step - self.learning_starts, 0) / 5)), 1.0)
        self.policy.prior_radius = 2.0 * freedom**2 if freedom < 1.0 else None
        share = round(8 * freedom) / 8  # in eighths: with each, a GPU records its updates anew
        if share != self._updater.settings.value_share:
            self._updater.settings = replace(self._updater.settings, value_share=share)

    def _acts_as_cloned(self, learning_starts: int) -> bool:
        return self._shown is not None and self.num_timesteps < learning_starts

    def _cloned_action(self, observations: Any, drawn: np.ndarray | None) -> Tensor:
        """
        The prior's actions for observations on the device, in [-1, 1], ``[N, A]``; ``drawn`` ``[N, *action shape]`` is
        their noise, None for white noise.
        """
        self._schedule_step = self.num_timesteps
        self._move_schedules()
        with torch.no_grad():
            action = self.policy.model.pi(self.policy.encode(observations))
        noise = torch.randn_like(action) if drawn is None else self._upload(drawn).flatten(1)
        return (action + self.policy.exploration_std * noise).clamp(-1.0, 1.0)

    def _update_info_buffer(self, infos: list[dict[str, Any]], dones: np.ndarray | None = None) -> None:
        super()._update_info_buffer(infos, dones)
        if dones is None or self.demonstration_share == 0:
            return
        for index in np.flatnonzero(dones):
            told = infos[index].get("is_success")
            if told is None:
                told = infos[index].get("episode", {}).get("r", -np.inf) >= self._demonstrated_return
            self._own_successes += bool(told)

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "run",
        progress_bar: bool = False,
    ) -> Any:
        if self.demonstration_share > 0 and self._shown is None:
            raise ValueError(
                f"{self.algorithm}.learn expects the demonstrations that it began with, got none: they are not saved "
                "with a model, call learn_from(demonstrations, pretrain_steps=0), or set demonstration_share = 0."
            )
        return super()._setup_learn(total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_shown"]


def _check_numbers(pretrain_steps: int, share: float, clone_coef: float) -> None:
    if isinstance(pretrain_steps, bool) or not isinstance(pretrain_steps, (int, np.integer)) or pretrain_steps < 0:
        raise ValueError(f"learn_from needs an integer pretrain_steps >= 0, got {pretrain_steps!r}.")
    if not 0 <= share <= 1:
        raise ValueError(f"learn_from needs a share of demonstrations in [0, 1], got {share!r}.")
    if not 0 <= clone_coef < np.inf:
        raise ValueError(f"learn_from needs a finite clone_coef >= 0, got {clone_coef!r}.")
