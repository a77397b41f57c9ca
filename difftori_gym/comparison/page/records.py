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
    :param traceback: what it left when it died, else ""
    :param progress: what it was doing last, "" if unknown
    :param command: command line that repeats it
    :param settings: as indented json
    :param sessions: the processes that worked on it: when, machine, versions, commit
    :param film: path of its film from the page, "" without one
    :param film_error: why there is no film, "" if unknown
    :param plan_ms: milliseconds per plan, measured at its end
    :param key: None before its first evaluation
    """

    name: str
    state: State
    traceback: str
    progress: str = ""
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
    """All runs, those that died first, then by name; the arguments are those of the page."""
    names = {path.parent.name for path in out.glob(f"runs/*/{FILE}")} | {*running, *waiting, *died}
    records = []
    for name in sorted(names):
        trace = out / "runs" / name / "traceback.txt"
        traceback = died.get(name) or (trace.read_text(encoding="utf-8", errors="replace") if trace.exists() else "")
        state: State = "died" if traceback else "interrupted"
        state = "running" if name in running else "waiting" if name in waiting else state
        records.append(_record(out, name, state, traceback if state == "died" else ""))
    return sorted(records, key=lambda record: STATES.index(record.state))


def _record(out: Path, name: str, state: State, traceback: str) -> RunRecord:
    folder = out / "runs" / name
    if not (folder / FILE).exists():
        return RunRecord(name, state, traceback)
    run, written, finished = Run.read(folder / FILE), read_json(folder / FILE), read_finished(folder)
    if state == "interrupted" and is_finished(run, out):
        state = "done"
    told, sessions = (
        read_json(folder / file) if (folder / file).exists() else {} for file in ("progress.json", "sessions.json")
    )
    rows = read_rows(folder / "results.csv")
    film = film_path(out, run)
    return RunRecord(
        name=name,
        state=state,
        traceback=traceback,
        progress=f"{told['stage']} at {told['done']:,} of {run.amount:,} {run.unit}" if told else "",
        command=str(written["command"]),
        settings=json.dumps(written["settings"], indent=1),
        sessions=tuple(sessions.get("sessions", ())),
        film=film.relative_to(out).as_posix() if film.exists() else "",
        film_error=(finished.film_error if finished else None) or "",
        plan_ms=finished.plan_ms if finished else None,
        key=(rows[0].group, rows[0].entry, rows[0].seed) if rows else None,
    )
