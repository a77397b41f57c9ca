"""Curves and success rates that others published."""

from __future__ import annotations

import csv
import functools
from collections import defaultdict
from dataclasses import dataclass
from importlib import resources

import numpy as np
from numpy.typing import NDArray

_CURVES = "dmc_published_curves.csv"
_MEANS = "dmc_published_means.csv"
_SUCCESSES = "imitation_published.csv"
_TDMPC2 = "results folder of nicklashansen/tdmpc2 (MIT)"
_PAPER = "DiffTORI paper, arXiv 2402.05421"
# Where curves and success rates come from, by method and by benchmark.
_SOURCES = {"TD-MPC": "results folder of nicklashansen/tdmpc (MIT)"}
_SOURCES |= dict.fromkeys(("TD-MPC2", "TD-MPC (TD-MPC2 paper)", "SAC", "DreamerV3"), _TDMPC2)
_SOURCES |= {"robomimic": _PAPER, "maniskill1-2": _PAPER, "metaworld-v2": "DP3 paper, arXiv 2403.03954"}
#: What the DiffTORI paper prints for MetaWorld, where it has no numbers per task.
METAWORLD_MEAN = (
    "For MetaWorld the DiffTORI paper prints a mean over the 22 tasks only: DiffTORI is 7.7 points above DP3 "
    f"({_PAPER}); DP3's own paper has a mean of 50.6 %."
)
_BENCHMARKS = {"metaworld": "metaworld-v2", "maniskill": "maniskill1-2", "robosuite": "robomimic", "pusht": "robomimic"}
# Tasks that the tables spell differently.
_NAMES = {"PushT": "Push-T"}
_BASES = {"BC": "bc", "BC-RNN": "bcrnn", "Diffusion": "diffusion"}
#: Our entry that is the published method, by its published name; DP3 is diffusion on point clouds.
OUR_ENTRY: dict[str, str] = {"IBC": "ibc", **_BASES, "DP3": "diffusion"}
OUR_ENTRY |= {
    f"{name}+{base}": f"{name.lower()}+{our}" for name in ("Residual", "DiffTORI") for base, our in _BASES.items()
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


@functools.lru_cache(maxsize=3)
def _read(file: str) -> list[dict[str, str]]:
    text = resources.files("difftori_gym.data").joinpath(file).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


@functools.lru_cache(maxsize=1)
def _curves() -> dict[tuple[str, str, str], dict[int, list[float]]]:
    """:return: returns of all runs by (obs, task, method) and frames"""
    table: dict[tuple[str, str, str], dict[int, list[float]]] = {}
    for row in _read(_CURVES):
        curve = table.setdefault((row["obs"], row["task"], row["method"]), defaultdict(list))
        # Rows are runs: TD-MPC's pendulum-swingup has two different ones that are both called seed 3.
        curve[int(row["env_step"])].append(float(row["episode_return"]))
    return table


def published_curves(suite: str, task: str, obs: str) -> list[PublishedCurve]:
    """:return: one curve per published method; only ``dm_control`` has any"""
    if suite != "dm_control":
        return []
    curves = []
    for (row_obs, row_task, method), points in _curves().items():
        if (row_obs, row_task) != (obs, task):
            continue
        frames = sorted(points)
        means = [float(np.mean(points[frame])) for frame in frames]
        num_seeds = max(len(returns) for returns in points.values())
        curves.append(PublishedCurve(method, np.array(frames), np.array(means), num_seeds, _SOURCES[method]))
    return curves


def published_means(suite: str, task: str, obs: str) -> list[PublishedCurve]:
    """
    :return: of more methods than there are whole curves of, points at 100,000, 200,000, 500,000 and a million frames
        where a source has them; only the paper's 15 tasks of ``dm_control`` have any
    """
    if suite != "dm_control":
        return []
    found: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in _read(_MEANS):
        if (row["obs"], row["task"]) == (obs, task):
            found[row["method"]].append(row)
    curves = []
    for method, rows in found.items():
        frames = np.array([int(row["env_step"]) for row in rows])
        means = np.array([float(row["mean_return"]) for row in rows])
        curves.append(PublishedCurve(method, frames, means, int(rows[0]["seeds"]), rows[0]["source"]))
    return curves


@dataclass(frozen=True)
class PublishedSuccess:
    """
    One line of a published table.

    :param method: name of the method in its source
    :param success: success rate in [0, 1]
    :param std: its printed standard deviation
    :param protocol: how it was made
    :param benchmark: what it is part of
    :param source: what to cite
    """

    method: str
    success: float
    std: float
    protocol: str
    benchmark: str
    source: str


def published_successes(suite: str, task: str) -> list[PublishedSuccess]:
    """:return: one line per published method, none when there is none"""
    benchmark, name = _BENCHMARKS.get(suite, ""), _NAMES.get(task, task)
    rows = [row for row in _read(_SUCCESSES) if (row["benchmark"], row["task"]) == (benchmark, name)]
    return [
        PublishedSuccess(
            row["method"], float(row["success"]), float(row["std"]), row["protocol"], benchmark, _SOURCES[benchmark]
        )
        for row in rows
    ]
