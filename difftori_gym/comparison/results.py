"""The table of evaluations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

from difftori_gym.baselines.methods import METHODS, Kind
from difftori_gym.comparison.files import read_table, write_table
from difftori_gym.envs import TaskId


class Group(NamedTuple):
    """What is shown together."""

    suite: str
    task: str
    obs: str
    demos: int  # 0 in reinforcement learning

    @property
    def title(self) -> str:
        """How the group is headed."""
        return f"{self.suite}/{self.task} ({self.obs}{f', {self.demos} demonstrations' if self.demos else ''})"


@dataclass(frozen=True, kw_only=True)
class RunId:
    """What tells a run from others."""

    suite: str
    task: str  # canonical name
    obs: str  # kind of observation
    demos: int | None = None  # number of demonstrations, the first ones; None: all there are
    method: str = ""
    base: str = ""  # method of its base policy, "" without one
    variant: str = ""  # what is special about it, in an ablation; else ""
    seed: int = 0

    @property
    def task_id(self) -> TaskId:
        """Suite and task."""
        return TaskId(self.suite, self.task)

    @property
    def entry(self) -> str:
        """What is compared, in one word: method, base and variant."""
        base, variant = self.base and f"+{self.base}", self.variant and f"-{self.variant}"
        return (self.method or "collect") + base + variant


@dataclass(frozen=True, kw_only=True)
class Row(RunId):
    """One evaluation of one run. The names are the columns of ``results.csv``."""

    demos: int  # 0 in reinforcement learning
    frames: int  # environment frames trained so far, action repeat included; 0 in imitation, which sees none
    steps: int  # agent steps trained so far, gradient steps in imitation
    wall_s: float  # seconds of training so far, without evaluations, checkpoints and films
    cpu_s: float  # processor time of the training process so far, counted like wall_s
    episodes: int  # of the evaluation
    episode_return: float  # their mean undiscounted return
    successes: int | None  # among them, None when the task does not tell
    dead_starts: int | None  # those with less than a tenth of their median return, None in imitation
    plan_ms: float | None  # median of a new plan for one observation, None where it is measured in the end only
    n_action_steps: int  # actions that are executed per plan

    @property
    def kind(self) -> Kind:
        """``rl`` or ``imitation``."""
        return "imitation" if self.demos else "rl"

    @property
    def label(self) -> str:
        """What is compared, for figures and tables, such as ``DiffTORI (+BC)``."""
        methods = METHODS[self.kind]
        base = f" (+{methods[self.base].label})" if self.base else ""
        return methods[self.method].label + base + (f", {self.variant}" if self.variant else "")

    @property
    def group(self) -> Group:
        """What it is shown together with."""
        return Group(self.suite, self.task, self.obs, self.demos)

    @property
    def amount(self) -> int:
        """How much of the run is done: frames, or gradient steps in imitation."""
        return self.frames if self.kind == "rl" else self.steps

    @property
    def success(self) -> float | None:
        """Share of successful episodes, None when the task does not tell."""
        return None if self.successes is None else self.successes / self.episodes

    @property
    def score(self) -> float:
        """Per cent of success in imitation where the task tells it, else the return."""
        return self.episode_return if self.success is None or self.kind == "rl" else 100.0 * self.success


Runs = dict[int, list[Row]]  # evaluations by seed, in the order of training
Groups = dict[Group, dict[str, Runs]]  # by entry, too

COLUMNS: tuple[str, ...] = tuple(field.name for field in fields(Row))
_FORMS = {"wall_s": ".2f", "cpu_s": ".2f", "episode_return": ".4f", "plan_ms": ".3f"}


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write a csv file in one step."""
    write_table(path, COLUMNS, ([_text(name, getattr(row, name)) for name in COLUMNS] for row in rows))


def _text(name: str, value: object) -> str:
    return "" if value is None else format(value, _FORMS.get(name, ""))


def read_rows(path: Path) -> list[Row]:
    """Rows of a csv file, see :func:`~difftori_gym.comparison.files.read_table`."""
    return read_table(path, Row)


def collect_rows(out: Path) -> list[Row]:
    """Merge the tables of all runs into ``out/results.csv``, by task, method as in the registry, seed and amount."""
    rows = sorted((row for path in out.glob("runs/*/results.csv") for row in read_rows(path)), key=_order)
    write_rows(out / "results.csv", rows)
    return rows


def _order(row: Row) -> tuple[object, ...]:
    return (*row.group, list(METHODS[row.kind]).index(row.method), row.base, row.variant, row.seed, row.amount)


def group_rows(rows: Sequence[Row]) -> Groups:
    """:return: evaluations by group, entry and seed, in the order of :func:`collect_rows`"""
    grouped: Groups = {}
    for row in sorted(rows, key=_order):
        grouped.setdefault(row.group, {}).setdefault(row.entry, {}).setdefault(row.seed, []).append(row)
    return grouped


def by_amount(runs: Runs) -> dict[int, list[Row]]:
    """Evaluations of all seeds after the same amount of training, amounts ascending."""
    points: dict[int, list[Row]] = {}
    for row in sorted((row for run in runs.values() for row in run), key=lambda row: row.amount):
        points.setdefault(row.amount, []).append(row)
    return points
