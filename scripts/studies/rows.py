"""The tables of studies, ``docs/data/STUDY.csv``."""

from __future__ import annotations

import csv
import fcntl
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from difftori_gym.comparison.files import read_table, write_table
from studies.plan import OF_LIBRARIES, Cell, Study


@dataclass(frozen=True)
class Row:
    """
    One evaluation of a finished run. The names are the columns of ``STUDY.csv``.

    :param suite: suite of the task
    :param task: canonical name of the task
    :param obs: kind of observation
    :param method: name of the method, with its base in imitation
    :param seed: seed of the run
    :param frames: environment frames so far, action repeat included; 0 in imitation, which sees none
    :param agent_steps: agent steps so far, gradient steps in imitation
    :param episode_return: mean undiscounted return of the evaluation episodes
    :param success: share of successful episodes, None when the task does not tell
    :param wall_s: seconds of training so far
    :param cpu_s: of them, processor time
    :param commit: twelve digits of the commit of the run
    :param settings: what differs from the method's preset, as json
    :param dead_starts: evaluation episodes below a tenth of their median, None in imitation
    """

    suite: str
    task: str
    obs: str
    method: str
    seed: int
    frames: int
    agent_steps: int
    episode_return: float
    success: float | None
    wall_s: float
    cpu_s: float
    commit: str
    settings: str
    dead_starts: int | None

    @property
    def key(self) -> tuple[str, str, str, str, int]:
        """What tells its run from the others of the study."""
        return (self.suite, self.task, self.obs, self.method, self.seed)

    @property
    def amount(self) -> int:
        """Frames, or gradient steps in imitation."""
        return self.frames or self.agent_steps


COLUMNS: tuple[str, ...] = tuple(field.name for field in fields(Row))
_FORMS = {"episode_return": ".4f", "success": ".4f", "wall_s": ".2f", "cpu_s": ".2f"}


def read_rows(path: Path) -> list[Row]:
    """
    :param path: table of a study, which may be missing
    :return: its rows
    :raises ValueError: if it is another table, or a line is not whole
    """
    try:
        return read_table(path, Row)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def add_rows(path: Path, new: Sequence[Row], lock: Path) -> None:
    """
    Put rows into a table in one step; those of the same runs that were there go.

    :param path: table of a study
    :param new: all rows of one or more runs
    :param lock: file that keeps other processes out meanwhile
    """
    runs = {row.key for row in new}
    with exclusive(lock):
        rows = [row for row in read_rows(path) if row.key not in runs] + list(new)
        rows.sort(key=lambda row: (*row.key, row.frames, row.agent_steps))
        write_table(path, COLUMNS, (_values(row) for row in rows))


def _values(row: Row) -> Iterator[Any]:
    for name, value in asdict(row).items():
        yield "" if value is None else format(value, _FORMS[name]) if name in _FORMS else value


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """
    :param path: a file that one process at a time holds while this is open
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def made_rows(cell: Cell, out: Path, commit: str) -> list[Row]:
    """
    What compare.py has written of a cell.

    :param cell: the cell
    :param out: folder of its results
    :param commit: that it ran at
    :return: its rows
    """
    path = out / "results.csv"
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        records = list(csv.DictReader(file))
    rows = [Row(commit=commit[:12], settings=cell.settings, **_made(record)) for record in records]
    return [row for row in rows if row.key == cell.key]


def _made(record: dict[str, str]) -> dict[str, Any]:
    """What a line of results.csv tells, that of an older commit, which had a table for each kind of learning, too."""
    values: dict[str, Any] = {name: record[name] for name in ("suite", "task", "obs")}
    values["method"] = record["method"] + (f"+{record['base']}" if record.get("base") else "")
    values |= {"seed": int(record["seed"]), "frames": int(record.get("frames", 0))}
    values["agent_steps"] = int(record.get("agent_steps") or record["steps"])
    values["episode_return"] = float(record.get("episode_return") or record["mean_return"])
    values |= {name: float(record[name]) for name in ("wall_s", "cpu_s")}
    share = record.get("success")
    if record.get("successes"):
        share = str(int(record["successes"]) / int(record["episodes"]))
    values["success"] = float(share) if share else None
    return {**values, "dead_starts": int(record["dead_starts"]) if record.get("dead_starts") else None}


def check_rows(studies: Sequence[Study], data: Path) -> None:
    """
    Refuse what would mix rows of different settings under one name, or lose rows.

    :param studies: of the plan
    :param data: folder of the tables
    :raises ValueError: naming the study and what to do
    """
    names = {study.name for study in studies}
    for path in sorted(data.glob("*.csv")):
        if path.stem not in names and _is_table(path):
            raise ValueError(
                f"{path} holds rows of a study that the plan does not name: rename the table with its study, or put "
                f"the study {path.stem!r} back."
            )
    for study in studies:
        cells = {cell.key: cell for cell in study.cells()}
        last = {row.key: row for row in read_rows(data / f"{study.name}.csv")}
        for key, row in last.items():
            _check_row(study, row, cells.get(key))


def _is_table(path: Path) -> bool:
    with path.open(encoding="utf-8") as file:
        return file.readline().strip() == ",".join(COLUMNS)


def _check_row(study: Study, row: Row, cell: Cell | None) -> None:
    name = f"study {study.name!r}, {row.method} on {row.suite}/{row.task} with seed {row.seed}"
    remedy = "Give the new runs a study of another name, or take these rows out of the table."
    if cell is None:
        raise ValueError(f"{name}: the table has rows of a run that the plan does not name any more. {remedy}")
    for what, had, has in (
        ("settings", row.settings or "the preset", cell.settings or "the preset"),
        ("frames or steps", row.amount, study.amount),
    ):
        if had != has:
            raise ValueError(f"{name}: {what} were {had}, now {has}. {remedy}")
    if row.method not in OF_LIBRARIES and not _same_commit(row.commit, study.commit):
        raise ValueError(f"{name}: the run was made at commit {row.commit}, now {study.commit[:12]}. {remedy}")


def _same_commit(one: str, other: str) -> bool:
    digits = min(len(one), len(other), 12)
    return one[:digits] == other[:digits]


def finished(cells: Iterable[Cell], data: Path) -> dict[str, list[Row]]:
    """
    :param cells: of one or more studies
    :param data: folder of the tables
    :return: rows of the finished ones by name, frames ascending
    """
    tables: dict[str, dict[tuple[str, str, str, str, int], list[Row]]] = {}
    found = {}
    for cell in cells:
        name = cell.study.name
        if name not in tables:
            tables[name] = {}
            for row in read_rows(data / f"{name}.csv"):
                tables[name].setdefault(row.key, []).append(row)
        if rows := tables[name].get(cell.key):
            found[cell.name] = rows
    return found
