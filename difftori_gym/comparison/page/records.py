"""What the folder of a run tells about it."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from difftori_gym.comparison.files import read_json
from difftori_gym.comparison.results import Group, read_rows
from difftori_gym.comparison.run_record import FILE, Run
from difftori_gym.comparison.training import film_path, is_finished, read_finished

State = Literal["died", "interrupted", "running", "waiting", "done"]
STATES: tuple[State, ...] = get_args(State)
Key = tuple[Group, str, int]  # group, entry, seed: what tells the rows of a run from others'


@dataclass(frozen=True)
class RunRecord:
    """
    One run.

    :param name: name of its folder
    :param state: ``interrupted`` is neither done nor being worked on
    :param progress: what it was doing last, "" if unknown
    :param traceback: what it left when it died, else ""
    :param command: command line that repeats it, "" before its folder is written
    :param settings: its settings as indented json
    :param sessions: the processes that worked on it: when, machine, versions, commit
    :param film: its film, relative to the page; "" without one
    :param film_error: why there is no film, "" if unknown
    :param plan_ms: milliseconds per plan, measured at its end
    :param key: finds its rows, None before its first evaluation
    """

    name: str
    state: State
    progress: str = ""
    traceback: str = ""
    command: str = ""
    settings: str = ""
    sessions: tuple[Mapping[str, Any], ...] = ()
    film: str = ""
    film_error: str = ""
    plan_ms: float | None = None
    key: Key | None = None


def read_records(
    out: Path, running: Collection[str], waiting: Collection[str], died: Mapping[str, str]
) -> list[RunRecord]:
    """
    :param out: folder of the results
    :param running: names of the runs that are being worked on
    :param waiting: names of the runs that are still to be started
    :param died: tracebacks of runs that died, by name; those in the folders are found without
    :return: all runs, those that died first, then by name
    """
    names = {path.parent.name for path in out.glob(f"runs/*/{FILE}")} | {*running, *waiting, *died}
    records = []
    for name in sorted(names):
        trace = out / "runs" / name / "traceback.txt"
        traceback = died.get(name) or (trace.read_text(encoding="utf-8", errors="replace") if trace.exists() else "")
        state: State = "died" if traceback else "interrupted"
        state = "running" if name in running else "waiting" if name in waiting else state
        records.append(_record(out, name, state, traceback))
    return sorted(records, key=lambda record: STATES.index(record.state))


def _record(out: Path, name: str, state: State, traceback: str) -> RunRecord:
    folder = out / "runs" / name
    if not (folder / FILE).exists():
        return RunRecord(name, state, traceback=traceback if state == "died" else "")
    run, written, finished = Run.read(folder / FILE), read_json(folder / FILE), read_finished(folder)
    if state in ("died", "interrupted") and is_finished(run, out):
        state = "done"
    told = _json(folder / "progress.json")
    rows = read_rows(folder / "results.csv")
    film = film_path(out, run)
    return RunRecord(
        name=name,
        state=state,
        progress=f"{told['stage']} at {told['done']:,} of {run.amount:,} {run.unit}" if told else "",
        traceback=traceback if state == "died" else "",
        command=str(written["command"]),
        settings=json.dumps(written["settings"], indent=1),
        sessions=tuple(_json(folder / "sessions.json").get("sessions", ())),
        film=film.relative_to(out).as_posix() if film.exists() else "",
        film_error=(finished.film_error if finished else None) or "",
        plan_ms=finished.plan_ms if finished else None,
        key=(rows[0].group, rows[0].entry, rows[0].seed) if rows else None,
    )


def _json(path: Path) -> Mapping[str, Any]:
    return read_json(path) if path.exists() else {}
