"""What is measured when a run is over."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from difftori_gym.comparison.files import read_json, write_text

_FILE = "summary.json"
# Updates per measurement: what is done at every fifth update, say, is in the mean of ten.
_UPDATES = 10


@dataclass(frozen=True)
class RunSummary:
    """
    A finished run.

    :param frames: environment frames trained
    :param plan_ms: median milliseconds of ``predict`` for one observation
    :param update_ms: median milliseconds of a gradient update, None for on-policy learners
    :param film_error: why there is no film, None when there is one or none was asked for
    """

    frames: int
    plan_ms: float
    update_ms: float | None
    film_error: str | None


def write_summary(directory: Path, summary: RunSummary) -> None:
    """
    :param directory: folder of the run
    :param summary: what to write
    """
    write_text(directory / _FILE, json.dumps(asdict(summary), indent=2))


def read_summary(directory: Path) -> RunSummary | None:
    """
    :param directory: folder of the run
    :return: its summary, None when the run has not finished
    """
    path = directory / _FILE
    return RunSummary(**read_json(path)) if path.exists() else None


def _median_ms(action: Callable[[], Any], repeats: int, warm_ups: int = 1) -> float:
    """
    :param action: what to time
    :param repeats: how often
    :param warm_ups: calls before that
    :return: median milliseconds
    """
    times = []
    for _ in range(warm_ups + repeats):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return 1000.0 * statistics.median(times[warm_ups:])


def measure_plan_ms(model: BaseAlgorithm, env: VecEnv, repeats: int = 50) -> float:
    """
    Time the policy on one observation at a time, carrying its state.

    :param model: the learner
    :param env: an environment to draw observations from
    :param repeats: number of calls
    :return: median milliseconds of ``predict``
    """
    observation: Any = env.reset()
    first = {key: value[:1] for key, value in observation.items()} if isinstance(observation, dict) else observation[:1]
    state: Any = None
    start = np.ones(1, dtype=np.bool_)

    def predict() -> None:
        nonlocal state, start
        _, state = model.predict(first, state=state, episode_start=start, deterministic=True)
        start = np.zeros(1, dtype=np.bool_)

    return _median_ms(predict, repeats, warm_ups=3)


def measure_update_ms(model: BaseAlgorithm, repeats: int = 5) -> float | None:
    """
    Time gradient updates. They change the model: save it first.

    :param model: the learner, after training
    :param repeats: number of measurements, each the mean of ten updates
    :return: median milliseconds of one update, None for on-policy learners and an empty replay
    """
    if not isinstance(model, OffPolicyAlgorithm) or model.replay_buffer is None or model.replay_buffer.size() == 0:
        return None
    batch_size = int(model.batch_size)
    model.set_logger(Logger(folder=None, output_formats=[]))
    return _median_ms(lambda: model.train(_UPDATES, batch_size), repeats) / _UPDATES
