"""Curves and success rates that others published."""

from __future__ import annotations

import csv
import functools
from collections import defaultdict
from dataclasses import dataclass
from importlib import resources

import numpy as np
from numpy.typing import NDArray

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
    """Mean return of one published method on one task."""

    method: str  # its name in the source
    frames: NDArray[np.int64]  # environment frames [N], ascending
    mean: NDArray[np.float64]  # mean return over the seeds [N]
    num_seeds: int
    source: str  # what to cite

    def within(self, max_frames: int) -> bool:
        """Whether two or more of its points lie on an axis that ends there, so that a line shows what was measured."""
        return int((self.frames <= max_frames).sum()) >= 2


@functools.cache
def _read(file: str, *key: str) -> dict[tuple[str, ...], list[dict[str, str]]]:
    """:return: rows of a table by some of their columns"""
    text = resources.files("difftori_gym.data").joinpath(file).read_text(encoding="utf-8")
    found: dict[tuple[str, ...], list[dict[str, str]]] = defaultdict(list)
    for row in csv.DictReader(text.splitlines()):
        found[tuple(row[name] for name in key)].append(row)
    return dict(found)


def published_curves(suite: str, task: str, obs: str) -> list[PublishedCurve]:
    """:return: one curve per published method; only ``dm_control`` has any"""
    # Rows are runs: TD-MPC's pendulum-swingup has two different ones that are both called seed 3.
    return _curves("dmc_published_curves.csv", "episode_return", suite, task, obs)


def published_means(suite: str, task: str, obs: str) -> list[PublishedCurve]:
    """
    :return: of more methods than there are whole curves of, points at 100,000, 200,000, 500,000 and a million frames
        where a source has them; only the paper's 15 tasks of ``dm_control`` have any
    """
    return _curves("dmc_published_means.csv", "mean_return", suite, task, obs)


def _curves(file: str, column: str, suite: str, task: str, obs: str) -> list[PublishedCurve]:
    methods: dict[str, dict[int, list[dict[str, str]]]] = {}
    for row in _read(file, "obs", "task").get((obs, task), []) if suite == "dm_control" else []:
        methods.setdefault(row["method"], defaultdict(list))[int(row["env_step"])].append(row)
    curves = []
    for method, points in methods.items():
        frames = sorted(points)
        means = [float(np.mean([float(row[column]) for row in points[at]])) for at in frames]
        first = points[frames[0]][0]
        seeds = int(first["seeds"]) if "seeds" in first else max(map(len, points.values()))
        source = first["source"] if "source" in first else _SOURCES[method]
        curves.append(PublishedCurve(method, np.array(frames), np.array(means), seeds, source))
    return curves


@dataclass(frozen=True)
class PublishedSuccess:
    """One line of a published table."""

    method: str  # its name in the source
    success: float  # share in [0, 1]
    std: float  # its printed standard deviation
    protocol: str  # how it was made
    benchmark: str  # what it is part of
    source: str  # what to cite


def published_successes(suite: str, task: str) -> list[PublishedSuccess]:
    """:return: one line per published method, none when there is none"""
    benchmark = _BENCHMARKS.get(suite, "")
    rows = _read("imitation_published.csv", "benchmark", "task").get((benchmark, _NAMES.get(task, task)), [])
    return [
        PublishedSuccess(
            row["method"], float(row["success"]), float(row["std"]), row["protocol"], benchmark, _SOURCES[benchmark]
        )
        for row in rows
    ]
