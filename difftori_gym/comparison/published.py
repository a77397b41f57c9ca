"""Curves that others published."""

from __future__ import annotations

import csv
import functools
from collections import defaultdict
from dataclasses import dataclass
from importlib import resources

import numpy as np
from numpy.typing import NDArray

_FILE = "dmc_published_curves.csv"
_MEANS = "dmc_published_means.csv"
_TDMPC = "results folder of nicklashansen/tdmpc (MIT)"
_TDMPC2 = "results folder of nicklashansen/tdmpc2 (MIT)"

#: where each method's rows come from
SOURCES: dict[str, str] = {
    "TD-MPC": _TDMPC,
    "TD-MPC2": _TDMPC2,
    "TD-MPC (TD-MPC2 paper)": _TDMPC2,
    "SAC": _TDMPC2,
    "DreamerV3": _TDMPC2,
}


@dataclass(frozen=True)
class PublishedCurve:
    """
    Mean return of one published method on one task.

    :param method: name of the method in its source
    :param frames: environment frames ``[N]``, ascending
    :param mean: mean return over the seeds ``[N]``
    :param num_seeds: number of seeds
    :param source: what to cite
    """

    method: str
    frames: NDArray[np.int64]
    mean: NDArray[np.float64]
    num_seeds: int
    source: str

    def within(self, max_frames: int) -> bool:
        """
        :param max_frames: end of an axis
        :return: whether two or more of the curve's points lie on it, so that a line shows what was measured
        """
        return int((self.frames <= max_frames).sum()) >= 2


@functools.lru_cache(maxsize=1)
def _table() -> dict[tuple[str, str, str], dict[int, list[float]]]:
    """:return: returns of all runs by (obs, task, method) and frames"""
    table: dict[tuple[str, str, str], dict[int, list[float]]] = {}
    text = resources.files("difftori_gym.data").joinpath(_FILE).read_text(encoding="utf-8")
    for row in csv.DictReader(text.splitlines()):
        curve = table.setdefault((row["obs"], row["task"], row["method"]), defaultdict(list))
        # Rows are runs: TD-MPC's pendulum-swingup has two different ones that are both called seed 3.
        curve[int(row["env_step"])].append(float(row["episode_return"]))
    return table


def published_curves(suite: str, task: str, obs: str) -> list[PublishedCurve]:
    """
    Look up published curves.

    :param suite: suite of the task; only ``dm_control`` has any
    :param task: canonical name of the task
    :param obs: kind of observation
    :return: one curve per published method, none when there is none
    """
    if suite != "dm_control":
        return []
    curves = []
    for (row_obs, row_task, method), points in _table().items():
        if (row_obs, row_task) != (obs, task):
            continue
        frames = sorted(points)
        means = [float(np.mean(points[frame])) for frame in frames]
        num_seeds = max(len(returns) for returns in points.values())
        curves.append(PublishedCurve(method, np.array(frames), np.array(means), num_seeds, SOURCES[method]))
    return curves


def published_means(suite: str, task: str, obs: str) -> list[PublishedCurve]:
    """
    Look up means at a few numbers of frames, of more methods than there are whole curves of.

    :param suite: suite of the task; only ``dm_control`` has any, the paper's 15 tasks
    :param task: canonical name of the task
    :param obs: kind of observation
    :return: points at 100,000, 200,000, 500,000 and a million frames where a source has them, by method
    """
    if suite != "dm_control":
        return []
    text = resources.files("difftori_gym.data").joinpath(_MEANS).read_text(encoding="utf-8")
    found: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in csv.DictReader(text.splitlines()):
        if (row["obs"], row["task"]) == (obs, task):
            found[row["method"]].append(row)
    return [
        PublishedCurve(
            method,
            np.array([int(row["env_step"]) for row in rows]),
            np.array([float(row["mean_return"]) for row in rows]),
            int(rows[0]["seeds"]),
            rows[0]["source"],
        )
        for method, rows in found.items()
    ]
