"""The table of evaluations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from difftori_gym.baselines.methods import METHODS
from difftori_gym.comparison.files import read_table, write_table


@dataclass(frozen=True)
class ResultRow:
    """
    One evaluation of one run. The names are the columns of ``results.csv``.

    :param suite: suite of the task
    :param task: canonical name of the task
    :param obs: kind of observation
    :param method: name of the method
    :param seed: seed of the run
    :param frames: environment frames trained so far, action repeat included
    :param agent_steps: agent steps trained so far
    :param wall_s: seconds of training so far, without evaluations, checkpoints and films
    :param episode_return: mean undiscounted return of the evaluation episodes
    :param success: share of successful evaluation episodes, None when the task does not tell
    :param cpu_s: seconds of processor time of the training process so far, counted like ``wall_s``
    :param dead_starts: evaluation episodes with less than a tenth of their median return
    """

    suite: str
    task: str
    obs: str
    method: str
    seed: int
    frames: int
    agent_steps: int
    wall_s: float
    episode_return: float
    success: float | None
    cpu_s: float
    dead_starts: int


Task = tuple[str, str, str]  # suite, task, obs

COLUMNS: tuple[str, ...] = tuple(field.name for field in fields(ResultRow))


def write_results(path: Path, rows: Iterable[ResultRow]) -> None:
    """
    Write a table in one step.

    :param path: csv file
    :param rows: its rows
    """
    write_table(path, COLUMNS, (_values(row) for row in rows))


def read_results(path: Path) -> list[ResultRow]:
    """
    Read a table.

    :param path: csv file, which may be missing
    :return: its rows, none when the file is missing
    :raises ValueError: if its columns are not those of :class:`ResultRow`
    """
    return read_table(path, COLUMNS, _row)


def _values(row: ResultRow) -> tuple[object, ...]:
    success = "" if row.success is None else f"{row.success:.4f}"
    counts = (row.suite, row.task, row.obs, row.method, row.seed, row.frames, row.agent_steps)
    measured = (f"{row.wall_s:.2f}", f"{row.episode_return:.4f}", success)
    return (*counts, *measured, f"{row.cpu_s:.2f}", row.dead_starts)


def _row(record: dict[str, str]) -> ResultRow:
    """
    :param record: one line, by column
    :return: the row
    """
    return ResultRow(
        suite=record["suite"],
        task=record["task"],
        obs=record["obs"],
        method=record["method"],
        seed=int(record["seed"]),
        frames=int(record["frames"]),
        agent_steps=int(record["agent_steps"]),
        wall_s=float(record["wall_s"]),
        episode_return=float(record["episode_return"]),
        success=float(record["success"]) if record["success"] else None,
        cpu_s=float(record["cpu_s"]),
        dead_starts=int(record["dead_starts"]),
    )


def collect_results(out: Path) -> list[ResultRow]:
    """
    Merge the tables of all runs into ``out/results.csv``.

    :param out: folder of the results
    :return: all rows, by suite, task, method, seed and frames
    """
    rows = [row for path in out.glob("runs/*/results.csv") for row in read_results(path)]
    rows.sort(key=lambda row: (row.suite, row.task, row.method, row.seed, row.frames))
    write_results(out / "results.csv", rows)
    return rows


def group_tasks(rows: Sequence[ResultRow]) -> dict[Task, dict[str, dict[int, list[ResultRow]]]]:
    """
    :param rows: evaluations
    :return: by task, method in the order of the registry, and seed; frames ascending
    """
    order = list(METHODS["rl"])
    grouped: dict[Task, dict[str, dict[int, list[ResultRow]]]] = {}
    for row in sorted(rows, key=lambda row: (row.suite, row.task, row.obs, order.index(row.method), row.seed)):
        methods = grouped.setdefault((row.suite, row.task, row.obs), {})
        methods.setdefault(row.method, defaultdict(list))[row.seed].append(row)
    for methods in grouped.values():
        for seeds in methods.values():
            for run in seeds.values():
                run.sort(key=lambda row: row.frames)
    return grouped
