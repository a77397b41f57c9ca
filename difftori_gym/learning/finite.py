"""Observations and rewards that cannot be learned from, refused with expected, got, remedy."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from torch import Tensor

from difftori_gym.observations import ArrayObs, TensorObs, entries, under

MAX_FLOAT32 = float(np.finfo(np.float32).max)  # what is greater turns into an infinity on its way into the networks


def check_finite_observation(
    observation: ArrayObs, space: spaces.Space[Any], *, batched: bool = False, env: int | None = None
) -> None:
    """
    :param observation: one observation or a batch
    :param space: its space, which tells one from a batch
    :param batched: whether axis 0 counts environments in any case
    :param env: the environment that a single observation is from
    :raises ValueError: if a number is nan or infinite, naming the environment index and the key
    """
    if isinstance(observation, tuple):
        raise ValueError(
            "Expected an observation, got a tuple: this looks like mixing Gym API and VecEnv API. "
            "Gymnasium's reset() returns (obs, info), a vectorised environment's returns obs."
        )
    expected = entries(space)
    for key, value in entries(observation).items():
        _check_finite(np.asarray(value), expected.get(key, space), under(key), batched, env)


def _check_finite(value: np.ndarray, space: spaces.Space[Any], where: str, batched: bool, env: int | None) -> None:
    if value.dtype.kind != "f":
        return
    finite = np.abs(value) <= MAX_FLOAT32
    if finite.all():
        return
    is_batch = env is None and (batched or value.ndim > len(space.shape or ()))
    first = np.argwhere(~finite)[0]
    if env is None:
        env = int(first[0]) if is_batch else 0
    raise ValueError(
        f"Expected finite observations, got {value[tuple(first)]} from environment {env}{where} at position "
        f"{tuple(int(i) for i in (first[1:] if is_batch else first))}: repair the environment or wrap it."
    )


def check_finite_transition(
    observation: ArrayObs, rewards: np.ndarray, infos: list[dict[str, Any]], space: spaces.Space[Any]
) -> None:
    """
    Of a vectorised step, ``[n_envs, ...]``; infos may hold the last observations of episodes that ended.

    :raises ValueError: if a number is nan or infinite, naming the environment index, and the key of an observation
    """
    check_finite_observation(observation, space, batched=True)
    for env, info in enumerate(infos):
        if info.get("terminal_observation") is not None:
            check_finite_observation(info["terminal_observation"], space, env=env)
    finite = np.abs(rewards) <= MAX_FLOAT32
    if not finite.all():
        env = int(np.argmin(finite))
        raise ValueError(
            f"Expected finite rewards, got {rewards[env]} from environment {env}: "
            "repair the environment's reward or wrap it."
        )


def check_finite_tensors(observations: TensorObs, rewards: Tensor) -> None:
    """:raises ValueError: if a number is nan or infinite in a step of ``N`` environments, naming the environment"""
    wrong = ~(rewards.abs() <= MAX_FLOAT32)
    for entry in entries(observations).values():
        if entry.is_floating_point():
            wrong = wrong | ~(entry.abs() <= MAX_FLOAT32).flatten(1).all(dim=1).to(wrong.device)
    if bool(wrong.any()):
        raise ValueError(
            f"Expected finite observations and rewards, got others from environment {int(wrong.nonzero()[0])}: "
            "repair the environment or wrap it."
        )
