"""Run a policy in the environment that it is trained in, without harm to the training."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper, unwrap_vec_normalize


@contextmanager
def left_right(model: Any, vec_env: VecEnv) -> Iterator[None]:
    """
    While this is open, a policy may be run in ``vec_env``. If that is where ``model`` is trained, the running episodes
    of the training are over: its next ``learn`` begins new ones, and no memory holds a step from one to the other.
    Statistics of a ``VecNormalize`` stand still meanwhile.

    :param model: an algorithm of Stable-Baselines3, or any other policy, about which nothing can be known
    :param vec_env: environments that are about to be moved
    :raises ValueError: if ``model`` is learning in them just now
    """
    shared = isinstance(model, BaseAlgorithm) and share_environment(model.get_env(), vec_env)
    if shared and is_learning(model):
        raise ValueError(
            "expected an environment of its own beside training, got the one that is learned in: its running episode "
            "would be lost. Build a second one with the same make_env or make_vec_env."
        )
    normalize = unwrap_vec_normalize(vec_env)
    trained = normalize.training if normalize is not None else False
    if normalize is not None:
        normalize.training = False
    try:
        yield
    finally:
        if normalize is not None:
            normalize.training = trained
        if shared:
            end_episodes(model)


def share_environment(one: VecEnv | None, other: VecEnv | None) -> bool:
    """
    :param one: environments
    :param other: environments
    :return: whether moving one moves the other
    """
    return one is not None and other is not None and not _parts(one).isdisjoint(_parts(other))


def _parts(vec_env: VecEnv) -> set[int]:
    while isinstance(vec_env, VecEnvWrapper):
        vec_env = vec_env.venv
    parts = {id(vec_env)}
    if isinstance(vec_env, DummyVecEnv):
        parts |= {id(env.unwrapped) for env in vec_env.envs}
    return parts


def is_learning(model: BaseAlgorithm) -> bool:
    """
    :param model: an algorithm
    :return: whether its ``learn`` has been called and has not returned
    """
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_code.co_name == "learn" and frame.f_locals.get("self") is model:
            return True
    return False


def end_episodes(model: BaseAlgorithm) -> None:
    """
    Cut the running episodes of a training: what comes next does not follow from what was stored last.

    :param model: an algorithm that does not learn just now
    """
    model._last_obs = None
    buffer = getattr(model, "replay_buffer", None)
    if not isinstance(buffer, ReplayBuffer) or buffer.size() == 0:
        return
    for cut in ("end_episodes", "truncate_last_trajectory"):  # of sequences, of hindsight replay
        if hasattr(buffer, cut):
            getattr(buffer, cut)()
            return
    last = (buffer.pos - 1) % buffer.buffer_size
    # As at a time limit: values go on, returns over several steps end here.
    buffer.timeouts[last] = np.logical_or(buffer.timeouts[last], np.logical_not(buffer.dones[last]))
    if buffer.optimize_memory_usage:
        buffer.dones[last] = True  # its next observation will be overwritten, as Stable-Baselines3 has it
