"""Run a policy in the environment that it is trained in, without harm to the training."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from copy import copy
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecEnv,
    VecEnvWrapper,
    VecMonitor,
    unwrap_vec_normalize,
)

# What Monitors keep of a whole training.
_COUNTED = ("episode_returns", "episode_lengths", "episode_times", "total_steps", "episode_count")


@contextmanager
def left_right(model: Any, vec_env: VecEnv) -> Iterator[None]:
    """
    While this is open, a policy may be run in ``vec_env``. If that is where ``model`` is trained, the running episodes
    of the training are over: its next ``learn`` begins new ones, and no memory holds a step from one to the other.
    Statistics of a ``VecNormalize`` stand still meanwhile, lists and files of a ``Monitor`` stay as they are, and a
    seed that waits for the first episode of the training still does.

    :param model: an algorithm of Stable-Baselines3, or any other policy, about which nothing can be known. One that
        collects nothing, as in imitation, has nothing to lose
    :param vec_env: environments that are about to be moved
    :raises ValueError: if ``model`` is learning in them just now
    """
    shared = collects_from(model, vec_env)
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
        with _uncounted(model.get_env()) if shared else nullcontext():
            yield
    finally:
        if normalize is not None:
            normalize.training = trained
        if shared:
            end_episodes(model)


def collects_from(model: Any, vec_env: VecEnv) -> bool:
    """:return: whether moving environments moves what a model collects from, if it does; it may be any policy"""
    collects = isinstance(model, (OnPolicyAlgorithm, OffPolicyAlgorithm))
    return collects and share_environment(model.get_env(), vec_env)


def share_environment(one: VecEnv | None, other: VecEnv | None) -> bool:
    """:return: whether moving one moves the other"""
    return one is not None and other is not None and not _parts(one).isdisjoint(_parts(other))


def _parts(vec_env: VecEnv) -> set[int]:
    vec_env = vec_env.unwrapped
    parts = {id(vec_env)}
    if isinstance(vec_env, DummyVecEnv):
        parts |= {id(env.unwrapped) for env in vec_env.envs}
    return parts


@contextmanager
def _uncounted(vec_env: VecEnv) -> Iterator[None]:
    """Monitors and seeds of a training's environments are afterwards what they were."""
    innermost, monitors = vec_env.unwrapped, list[Any]()
    while isinstance(vec_env, VecEnvWrapper):
        monitors += [vec_env] if isinstance(vec_env, VecMonitor) else []
        vec_env = vec_env.venv
    for env in innermost.envs if isinstance(innermost, DummyVecEnv) else ():
        while isinstance(env, gym.Wrapper):
            monitors += [env] if isinstance(env, Monitor) else []
            env = env.env
    counted = [{name: copy(value) for name, value in vars(each).items() if name in _COUNTED} for each in monitors]
    files = [each.results_writer for each in monitors]
    for each in monitors:
        each.results_writer = None
    waiting = innermost._seeds, innermost._options
    try:
        yield
    finally:
        for each, before, file in zip(monitors, counted, files, strict=True):
            vars(each).update(before, results_writer=file)
        innermost._seeds, innermost._options = waiting
        if all(seed is None for seed in innermost._seeds):
            innermost.seed()  # the training does not go on in the random stream of an evaluation


def is_learning(model: BaseAlgorithm) -> bool:
    """:return: whether a model's ``learn`` has been called and has not returned"""
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_code.co_name == "learn" and frame.f_locals.get("self") is model:
            return True
    return False


def end_episodes(model: BaseAlgorithm) -> None:
    """
    Cut the running episodes of a training, which is not learning just now: what comes next does not follow from what
    was stored last.
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
