"""What every learner from replay is beside an off-policy algorithm of Stable-Baselines3."""

from __future__ import annotations

import io
import pathlib
from typing import ClassVar, TypeVar

from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import MaybeCallback

from difftori_gym.learning.learner import Learner

SelfOffPolicyLearner = TypeVar("SelfOffPolicyLearner", bound="OffPolicyLearner")


class OffPolicyLearner(Learner, OffPolicyAlgorithm):
    """An off-policy algorithm whose settings are used or refused, and which takes only a replay that fits it."""

    live_settings: ClassVar[frozenset[str]] = Learner.live_settings | {
        "action_noise",
        "gamma",
        "gradient_steps",
        "learning_starts",
        "tau",
        "train_freq",
    }

    def _follow(self, name: str) -> None:
        super()._follow(name)
        if name == "train_freq":
            self._convert_train_freq()

    def learn(
        self: SelfOffPolicyLearner,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 4,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfOffPolicyLearner:
        """See ``stable_baselines3.common.base_class.BaseAlgorithm.learn``; ``total_timesteps`` are agent steps."""
        name = tb_log_name or self.algorithm
        return super().learn(total_timesteps, callback, log_interval, name, reset_num_timesteps, progress_bar)

    def load_replay_buffer(self, path: str | pathlib.Path | io.BufferedIOBase, truncate_last_traj: bool = True) -> None:
        """
        :param path: what ``save_replay_buffer`` wrote
        :param truncate_last_traj: False if the environment still is where the newest stored transition led
        :raises ValueError: if it does not fit this model, which then keeps its own
        """
        own = self.replay_buffer
        super().load_replay_buffer(path, truncate_last_traj)
        try:
            assert self.replay_buffer is not None
            self._check_replay(self.replay_buffer)
        except ValueError:
            self.replay_buffer = own
            raise
        self._follow("gamma")  # which a replay may hold as well

    def _check_replay(self, replay: ReplayBuffer) -> None:
        """Refuse a replay that does not hold what this model's environments show and take."""
        if replay.n_envs != self.n_envs:
            raise ValueError(
                f"load_replay_buffer expects a replay of {self.n_envs} environments, as the model has, got one of "
                f"{replay.n_envs}: {self.algorithm}.load(path, env) with {replay.n_envs} environments, or go on with "
                "an empty replay."
            )
        for what in ("observation_space", "action_space"):
            expected, got = getattr(self, what), getattr(replay, what)
            if expected != got:
                raise ValueError(
                    f"load_replay_buffer expects a replay of the {what} {expected}, got one of {got}: load what was "
                    "saved in the same environment."
                )
