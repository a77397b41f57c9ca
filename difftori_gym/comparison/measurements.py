"""Milliseconds of plans and updates, by one clock: processor time, and wall-clock where a GPU has to be waited for."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from difftori_gym.observations import map_obs

# Updates per measurement: what is done at every fifth update, say, is in the mean of ten.
_UPDATES = 10


def plan_ms(model: BaseAlgorithm, env: VecEnv, *, carry: bool, repeats: int = 50) -> float:
    """
    Median milliseconds of ``predict`` for one observation.

    :param model: the learner
    :param env: an environment to draw an observation from
    :param carry: whether the policy's state is carried from call to call; else every call is a new plan
    :param repeats: number of calls
    """
    observation: Any = map_obs(lambda array: array[:1], env.reset())
    state, start = None, np.ones(1, dtype=np.bool_)

    def predict() -> None:  # the answer is an array, so that a GPU has been waited for
        nonlocal state, start
        _, after = model.predict(observation, state=state, episode_start=start, deterministic=True)
        if carry:
            state, start = after, np.zeros(1, dtype=np.bool_)

    return _median_ms(model, predict, repeats, warm_ups=2)


def update_ms(model: BaseAlgorithm) -> float | None:
    """
    Median milliseconds of a gradient update. Updates change the model: save it first.

    :param model: the learner, after training
    :return: None for on-policy and imitation learners and an empty replay
    """
    if not isinstance(model, OffPolicyAlgorithm) or model.replay_buffer is None or model.replay_buffer.size() == 0:
        return None
    batch_size = int(model.batch_size)
    model.set_logger(Logger(folder=None, output_formats=[]))
    return _median_ms(model, lambda: model.train(_UPDATES, batch_size), repeats=5, warm_ups=1) / _UPDATES


def _median_ms(model: BaseAlgorithm, action: Callable[[], Any], repeats: int, warm_ups: int) -> float:
    clock = time.process_time if model.device.type == "cpu" else time.perf_counter
    times = []
    for _ in range(warm_ups + repeats):
        start = clock()
        action()
        times.append(clock() - start)
    return 1000.0 * statistics.median(times[warm_ups:])
