"""Success rates of imitation methods that others published."""

from __future__ import annotations

import csv
import functools
from dataclasses import dataclass
from importlib import resources

_FILE = "imitation_published.csv"
_PAPER = "DiffTORI paper, arXiv 2402.05421"
#: where the rows of each benchmark come from
SOURCES: dict[str, str] = {
    "robomimic": _PAPER,
    "maniskill1-2": _PAPER,
    "metaworld-v2": "DP3 paper, arXiv 2403.03954",
}
#: What the DiffTORI paper prints for MetaWorld, where it has no numbers per task.
METAWORLD_MEAN = (
    "For MetaWorld the DiffTORI paper prints a mean over the 22 tasks only: DiffTORI is 7.7 points above DP3 "
    f"({_PAPER}); DP3's own paper has a mean of 50.6 %."
)

_BENCHMARKS = {
    "metaworld": "metaworld-v2",
    "maniskill": "maniskill1-2",
    "robosuite": "robomimic",
    "pusht": "robomimic",
}
#: Tasks that the tables spell differently.
_NAMES = {"PushT": "Push-T"}

#: Our entry that is the published method, by its published name; DP3 is diffusion on point clouds.
OUR_ENTRY: dict[str, str] = {
    "IBC": "ibc",
    "BC": "bc",
    "BC-RNN": "bcrnn",
    "Diffusion": "diffusion",
    "DP3": "diffusion",
    "Residual+BC": "residual+bc",
    "Residual+BC-RNN": "residual+bcrnn",
    "Residual+Diffusion": "residual+diffusion",
    "DiffTORI+BC": "difftori+bc",
    "DiffTORI+BC-RNN": "difftori+bcrnn",
    "DiffTORI+Diffusion": "difftori+diffusion",
}


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


@functools.lru_cache(maxsize=1)
def _table() -> dict[tuple[str, str], list[PublishedSuccess]]:
    """:return: rows by benchmark and task"""
    table: dict[tuple[str, str], list[PublishedSuccess]] = {}
    text = resources.files("difftori_gym.data").joinpath(_FILE).read_text(encoding="utf-8")
    for row in csv.DictReader(text.splitlines()):
        benchmark = row["benchmark"]
        table.setdefault((benchmark, row["task"]), []).append(
            PublishedSuccess(
                row["method"],
                float(row["success"]),
                float(row["std"]),
                row["protocol"],
                benchmark,
                SOURCES[benchmark],
            )
        )
    return table


def published_successes(suite: str, task: str) -> list[PublishedSuccess]:
    """
    Look up published success rates.

    :param suite: suite of the task
    :param task: canonical name of the task
    :return: one per published method, none when there is none
    """
    return _table().get((_BENCHMARKS.get(suite, ""), _NAMES.get(task, task)), [])
