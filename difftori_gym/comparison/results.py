"""The table of evaluations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from difftori_gym.baselines.methods import METHODS, Kind
from difftori_gym.comparison.files import read_table, write_table

Group = tuple[str, str, str, int]  # suite, task, obs, demos


@dataclass(frozen=True)
class Row:
    """
    One evaluation of one run. The names are the columns of ``results.csv``.

    :param suite: suite of the task
    :param task: canonical name of the task
    :param obs: kind of observation
    :param demos: number of demonstrations, 0 in reinforcement learning
    :param method: name of the method
    :param base: name of the method of its base policy, "" without one
    :param variant: what is special about it, in an ablation; else ""
    :param seed: seed of the run
    :param frames: environment frames trained so far, action repeat included; 0 in imitation, which sees none
    :param steps: agent steps trained so far, gradient steps in imitation
    :param wall_s: seconds of training so far, without evaluations, checkpoints and films
    :param cpu_s: seconds of processor time of the training process so far, counted like ``wall_s``
    :param episodes: evaluation episodes
    :param episode_return: their mean undiscounted return
    :param successes: successful ones among them, None when the task does not tell
    :param dead_starts: those with less than a tenth of their median return, None in imitation
    :param plan_ms: median milliseconds of a new plan for one observation, None where it is measured in the end only
    :param n_action_steps: actions that are executed per plan
    """

    suite: str
    task: str
    obs: str
    demos: int
    method: str
    base: str
    variant: str
    seed: int
    frames: int
    steps: int
    wall_s: float
    cpu_s: float
    episodes: int
    episode_return: float
    successes: int | None
    dead_starts: int | None
    plan_ms: float | None
    n_action_steps: int

    @property
    def kind(self) -> Kind:
        """``rl`` or ``imitation``."""
        return "imitation" if self.demos else "rl"

    @property
    def entry(self) -> str:
        """What is compared, in one word."""
        return entry_name(self.method, self.base, self.variant)

    @property
    def label(self) -> str:
        """What is compared, for figures and tables, such as ``DiffTORI (+BC)``."""
        methods = METHODS[self.kind]
        base = f" (+{methods[self.base].label})" if self.base else ""
        return methods[self.method].label + base + (f", {self.variant}" if self.variant else "")

    @property
    def group(self) -> Group:
        """What is shown together."""
        return (self.suite, self.task, self.obs, self.demos)

    @property
    def amount(self) -> int:
        """How much of the run is done, in :attr:`unit`."""
        return self.frames if self.kind == "rl" else self.steps

    @property
    def unit(self) -> str:
        """``frames`` or ``steps``."""
        return "frames" if self.kind == "rl" else "steps"

    @property
    def success(self) -> float | None:
        """Share of successful episodes, None when the task does not tell."""
        return None if self.successes is None else self.successes / self.episodes

    @property
    def score(self) -> float:
        """Per cent of success in imitation where the task tells it, else the return."""
        return self.episode_return if self.success is None or self.kind == "rl" else 100.0 * self.success


Runs = dict[int, list[Row]]  # evaluations by seed, in the order of training

COLUMNS: tuple[str, ...] = tuple(field.name for field in fields(Row))
_FLOATS = {"wall_s": ".2f", "cpu_s": ".2f", "episode_return": ".4f", "plan_ms": ".3f"}
_TEXTS = ("suite", "task", "obs", "method", "base", "variant")
_OPTIONAL = ("successes", "dead_starts", "plan_ms")


def entry_name(method: str, base: str | None, variant: str) -> str:
    """What is compared as part of a file name."""
    return method + (f"+{base}" if base else "") + (f"-{variant}" if variant else "")


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write a csv file in one step."""
    write_table(path, COLUMNS, ([_text(name, getattr(row, name)) for name in COLUMNS] for row in rows))


def _text(name: str, value: object) -> str:
    return "" if value is None else format(value, _FLOATS.get(name, ""))


def read_rows(path: Path) -> list[Row]:
    """
    :return: rows of a csv file, none when it is missing
    :raises ValueError: if its columns are not those of :class:`Row`, or a line does not hold them
    """
    return read_table(path, COLUMNS, lambda record: Row(**{name: _value(name, record[name]) for name in COLUMNS}))


def _value(name: str, text: str) -> Any:
    if name in _TEXTS:
        return text
    if name in _OPTIONAL and not text:
        return None
    return float(text) if name in _FLOATS else int(text)


def collect_rows(out: Path) -> list[Row]:
    """Merge the tables of all runs into ``out/results.csv``, by task, method as in the registry, seed and amount."""
    rows = sorted((row for path in out.glob("runs/*/results.csv") for row in read_rows(path)), key=_order)
    write_rows(out / "results.csv", rows)
    return rows


def _order(row: Row) -> tuple[object, ...]:
    return (*row.group, list(METHODS[row.kind]).index(row.method), row.base, row.variant, row.seed, row.amount)


def group_rows(rows: Sequence[Row]) -> dict[Group, dict[str, Runs]]:
    """:return: evaluations by group, entry and seed, in the order of :func:`collect_rows`"""
    grouped: dict[Group, dict[str, Runs]] = {}
    for row in sorted(rows, key=_order):
        grouped.setdefault(row.group, {}).setdefault(row.entry, {}).setdefault(row.seed, []).append(row)
    return grouped
