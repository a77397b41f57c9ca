"""What the folders of runs tell about them."""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from difftori_gym.comparison.demonstrations import num_collected
from difftori_gym.comparison.files import read_json
from difftori_gym.comparison.results import Group, Groups, Row, group_rows, read_rows
from difftori_gym.comparison.run_record import FILE, Run

FINISHED = "finished.json"
State = Literal["died", "interrupted", "running", "waiting", "done"]
STATES: tuple[State, ...] = get_args(State)
Key = tuple[Group, str, int]  # group, entry, seed


@dataclass(frozen=True)
class Finished:
    """What is left of a run that is over."""

    amount: int  # how much was trained
    plan_ms: float | None  # median milliseconds of predict for one observation; in imitation the table has it
    update_ms: float | None  # median milliseconds of a gradient update, None for on-policy and imitation learners
    film_error: str | None  # why there is no film, None when there is one or none was asked for


def read_finished(folder: Path) -> Finished | None:
    """:return: what is left of a run, None when it is not over"""
    return Finished(**read_json(folder / FINISHED)) if (folder / FINISHED).exists() else None


def is_finished(run: Run, out: Path) -> bool:
    """:return: whether a run is trained for long enough, and filmed if it can be, or all demonstrations are there"""
    if run.kind == "collect":
        return num_collected(run.demonstrations_path(out)) >= run.amount
    finished = read_finished(out / "runs" / run.name)
    if finished is None or finished.amount < run.amount:
        return False
    return not run.video or finished.film_error is not None or run.film(out).exists()


@dataclass(frozen=True)
class Record:
    """One run as it is now."""

    name: str  # of its folder
    state: State  # interrupted: neither done nor being worked on
    traceback: str  # what it left when it died, else ""
    run: Run | None = None  # None while it waits to be written
    finished: Finished | None = None
    film: str = ""  # path of its film in the folder of all results, "" without one
    rows: Sequence[Row] = ()

    @property
    def key(self) -> Key | None:
        """What tells its rows from others', None before its first evaluation."""
        return (self.rows[0].group, self.rows[0].entry, self.rows[0].seed) if self.rows else None

    def read(self, out: Path, file: str) -> dict[str, Any]:
        """A json file of its folder, empty when it is missing."""
        path = out / "runs" / self.name / file
        return read_json(path) if path.exists() else {}


@dataclass(frozen=True)
class Standing:
    """Where a comparison is."""

    running: Collection[str] = ()  # names of the runs that are being worked on
    waiting: Collection[str] = ()  # names of the runs that are still to be started
    died: dict[str, str] = field(default_factory=dict)  # tracebacks of runs, by name


def read_records(out: Path, standing: Standing) -> list[Record]:
    """All runs of a comparison, those that died first, then by name. Tracebacks in ``out/runs`` are found, too."""
    running, waiting, died = standing.running, standing.waiting, standing.died
    names = {path.parent.name for path in out.glob(f"runs/*/{FILE}")} | {*running, *waiting, *died}
    records = []
    for name in sorted(names):
        folder, run = out / "runs" / name, None
        trace = folder / "traceback.txt"
        traceback = died.get(name) or (trace.read_text(encoding="utf-8", errors="replace") if trace.exists() else "")
        state: State = "died" if traceback else "interrupted"
        if (folder / FILE).exists():
            run = Run.read(folder / FILE)
            state = "done" if state == "interrupted" and is_finished(run, out) else state
        state = "running" if name in running else "waiting" if name in waiting else state
        film = run.film(out).relative_to(out).as_posix() if run and run.film(out).exists() else ""
        told = traceback if state == "died" else ""
        rows = read_rows(folder / "results.csv")
        records.append(Record(name, state, told, run, read_finished(folder), film, rows))
    return sorted(records, key=lambda record: STATES.index(record.state))


@dataclass(frozen=True)
class Results:
    """What report and page show."""

    out: Path
    rows: Sequence[Row] = ()  # all evaluations
    records: Sequence[Record] = ()  # all runs
    commands: Sequence[str] = ()  # command lines that made the results
    jobs: int = 1  # processes side by side
    published: bool = True  # whether to quote what others published

    @functools.cached_property
    def groups(self) -> Groups:
        """The evaluations by group, entry and seed."""
        return group_rows(self.rows)

    @functools.cached_property
    def by_key(self) -> dict[Key | None, Record]:
        """The runs that were evaluated."""
        return {record.key: record for record in self.records if record.rows}

    def runs(self, group: Group | None = None, kind: str = "") -> list[Run]:
        """Those of a group, or all of a kind."""
        runs = [(record.key, record.run) for record in self.records if record.run]
        return [run for key, run in runs if run.kind == kind or (key and key[0] == group)]
