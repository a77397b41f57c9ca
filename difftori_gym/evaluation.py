"""Run a policy without learning and record what it earns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, unwrap_vec_normalize

from difftori_gym.training_environment import left_right
from difftori_gym.wrappers.seed_first_reset import checked_seed
from difftori_gym.wrappers.success import latched_success


class Predictor(Protocol):
    """What evaluation and films need of a model or policy: Stable-Baselines3's ``predict``."""

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], Any]:
        """See ``stable_baselines3.common.base_class.BaseAlgorithm.predict``."""


@dataclass(frozen=True)
class Evaluation:
    """
    Episodes of one policy, in the order of their seeds.

    :param returns: undiscounted returns ``[episodes]``
    :param lengths: agent steps ``[episodes]``
    :param successes: whether each episode succeeded, see :func:`~difftori_gym.wrappers.told_success` ``[episodes]``;
        None when no episode told
    """

    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]
    successes: NDArray[np.bool_] | None

    @property
    def mean_return(self) -> float:
        """Mean return over the episodes."""
        return float(self.returns.mean())

    @property
    def success_rate(self) -> float | None:
        """Share of successful episodes in [0, 1], None when the environment does not tell."""
        return None if self.successes is None else float(self.successes.mean())


def evaluate(
    model: Predictor,
    env: gym.Env[Any, Any] | VecEnv,
    *,
    n_episodes: int = 10,
    seed: int | None = None,
    deterministic: bool = True,
) -> Evaluation:
    """
    Run whole episodes, the environments of a ``VecEnv`` side by side.

    With a seed, episode ``k`` starts from ``seed + k`` whatever the number of environments, so that policies and
    moments of training are compared on the same starts. Every environment runs one episode per round, so that short
    episodes are not counted more often than long ones. Returns come from ``Monitor`` where there is one.

    :param model: model or policy
    :param env: environment to run in; it is reset
    :param n_episodes: number of episodes, at least 1
    :param seed: seed of the first episode, at least 0. None: the environment's own stream
    :param deterministic: no exploration
    :return: returns, lengths and successes
    :raises ValueError: if ``n_episodes`` is below 1, or while the model learns in this environment
    """
    if n_episodes < 1:
        raise ValueError(f"evaluate needs n_episodes >= 1, got {n_episodes}.")
    seed = checked_seed(seed, "evaluate needs")
    vec_env = env if isinstance(env, VecEnv) else DummyVecEnv([lambda: env])
    episodes: list[Episode] = []
    with left_right(model, vec_env):
        while len(episodes) < n_episodes:
            if seed is not None:
                vec_env.seed(seed + len(episodes))
            episodes += run_episodes(model, vec_env, deterministic=deterministic)
    episodes = episodes[:n_episodes]
    told = any(episode.success is not None for episode in episodes)
    return Evaluation(
        returns=np.array([episode.total for episode in episodes], dtype=np.float64),
        lengths=np.array([episode.length for episode in episodes], dtype=np.int64),
        successes=np.array([bool(episode.success) for episode in episodes]) if told else None,
    )


@dataclass
class Episode:
    """
    One episode as it runs.

    :param total: sum of rewards so far
    :param length: agent steps so far
    :param success: whether any step so far told that it is solved, None as long as none told either way
    :param finished: whether it is over
    """

    total: float = 0.0
    length: int = 0
    success: bool | None = None
    finished: bool = False

    def add(self, reward: float, done: bool, info: dict[str, Any]) -> None:
        self.total += reward
        self.length += 1
        self.finished = done
        self.success = latched_success(self.success, info)
        if done:
            self.total = float(info.get("episode", {}).get("r", self.total))


def run_episodes(
    model: Predictor,
    vec_env: VecEnv,
    *,
    deterministic: bool = True,
    max_steps: int | None = None,
    on_step: Callable[[Sequence[Episode]], None] | None = None,
) -> list[Episode]:
    """
    Run one episode in every environment. Returns are those of the environments, not those of a ``VecNormalize``.

    :param model: model or policy
    :param vec_env: environments, which are reset first
    :param deterministic: no exploration
    :param max_steps: stop after so many agent steps even when episodes are not over
    :param on_step: called with the episodes before every step, when the policy has been asked
    :return: the episodes, one per environment
    """
    episodes = [Episode() for _ in range(vec_env.num_envs)]
    normalize = unwrap_vec_normalize(vec_env)
    observation = vec_env.reset()
    state = None
    start = np.ones(vec_env.num_envs, dtype=np.bool_)
    steps = 0
    while not all(episode.finished for episode in episodes) and (max_steps is None or steps < max_steps):
        action, state = model.predict(observation, state=state, episode_start=start, deterministic=deterministic)
        if on_step is not None:
            on_step(episodes)
        observation, rewards, start, infos = vec_env.step(action)
        if normalize is not None:
            rewards = normalize.get_original_reward()
        steps += 1
        for episode, reward, done, info in zip(episodes, rewards, start, infos, strict=True):
            if not episode.finished:
                episode.add(float(reward), bool(done), info)
    return episodes
