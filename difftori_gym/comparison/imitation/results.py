"""The table of evaluations of imitation runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from difftori_gym.baselines.methods import METHODS
from difftori_gym.comparison.files import read_table, write_table
from difftori_gym.comparison.imitation.settings import entry_label, entry_name


@dataclass(frozen=True)
class ImitationRow:
    """
    One evaluation of one run. The names are the columns of ``results.csv``.

    :param suite: suite of the task
    :param task: canonical name of the task
    :param obs: kind of observation
    :param demos: number of demonstrations
    :param method: name of the method
    :param base: name of the method of its base policy, "" without one
    :param variant: what is special about it, in an ablation
    :param seed: seed of the run
    :param steps: gradient steps so far
    :param wall_s: seconds of training so far, without evaluations, checkpoints and films
    :param cpu_s: seconds of processor time of the training process so far, counted like ``wall_s``
    :param episodes: evaluation episodes
    :param successes: successful ones among them, None when the task does not tell
    :param mean_return: their mean undiscounted return
    :param plan_ms: median milliseconds of a new plan for one observation
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
    steps: int
    wall_s: float
    cpu_s: float
    episodes: int
    successes: int | None
    mean_return: float
    plan_ms: float
    n_action_steps: int

    @property
    def entry(self) -> str:
        """What is compared, in one word."""
        return entry_name(self.method, self.base or None, self.variant)

    @property
    def label(self) -> str:
        """What is compared, for figures and tables."""
        return entry_label(self.method, self.base or None, self.variant)

    @property
    def group(self) -> Group:
        """What is shown together."""
        return (self.suite, self.task, self.obs, self.demos)


Group = tuple[str, str, str, int]  # suite, task, obs, demos
Seeds = dict[int, ImitationRow]  # newest evaluation by seed

COLUMNS: tuple[str, ...] = tuple(field.name for field in fields(ImitationRow))
_FLOATS = {"wall_s": ".2f", "cpu_s": ".2f", "mean_return": ".4f", "plan_ms": ".3f"}
_INTEGERS = ("demos", "seed", "steps", "episodes", "n_action_steps")


def write_rows(path: Path, rows: Iterable[ImitationRow]) -> None:
    """
    Write a table in one step.

    :param path: csv file
    :param rows: its rows
    """
    write_table(path, COLUMNS, (_values(row) for row in rows))


def read_rows(path: Path) -> list[ImitationRow]:
    """
    Read a table.

    :param path: csv file, which may be missing
    :return: its rows, none when the file is missing
    :raises ValueError: if its columns are not those of :class:`ImitationRow`
    """
    return read_table(path, COLUMNS, _row)


def _values(row: ImitationRow) -> list[object]:
    values = {name: getattr(row, name) for name in COLUMNS}
    values |= {name: format(values[name], form) for name, form in _FLOATS.items()}
    return list((values | {"successes": "" if row.successes is None else row.successes}).values())


def _row(record: dict[str, str]) -> ImitationRow:
    """
    :param record: one line, by column
    :return: the row
    """
    numbers = {name: float(record[name]) for name in _FLOATS} | {name: int(record[name]) for name in _INTEGERS}
    successes = int(record["successes"]) if record["successes"] else None
    return ImitationRow(**{**record, **numbers, "successes": successes})  # type: ignore[arg-type]


def collect_rows(out: Path) -> list[ImitationRow]:
    """
    Merge the tables of all runs into ``out/results.csv``.

    :param out: folder of the results
    :return: all rows, by task, method, base, variant, seed and steps
    """
    rows = [row for path in out.glob("runs/*/results.csv") for row in read_rows(path)]
    rows.sort(key=lambda row: (*row.group, _order(row), row.seed, row.steps))
    write_rows(out / "results.csv", rows)
    return rows


def _order(row: ImitationRow) -> tuple[int, str, str]:
    """:return: what methods are ordered by: the registry, then base and variant"""
    return (list(METHODS["imitation"]).index(row.method), row.base, row.variant)


def newest(rows: Sequence[ImitationRow]) -> dict[Group, dict[str, Seeds]]:
    """
    :param rows: evaluations, in the order of :func:`collect_rows`
    :return: the newest evaluation of each run, by group, entry and seed
    """
    grouped: dict[Group, dict[str, Seeds]] = {}
    for row in sorted(rows, key=lambda row: (*row.group, _order(row), row.seed, row.steps)):
        grouped.setdefault(row.group, {}).setdefault(row.entry, {})[row.seed] = row
    return grouped
