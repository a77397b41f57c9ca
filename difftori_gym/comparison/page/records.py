"""What the folder of a run tells about it."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from difftori_gym.comparison.files import read_json
from difftori_gym.comparison.results import Group, read_rows

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
    :param film: address of its film, relative to the page; "" without one
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
    names = {path.name for path in out.glob("runs/*") if path.is_dir()} | {*running, *waiting, *died}
    records = [_record(out, name, running, waiting, died) for name in sorted(names)]
    return sorted(records, key=lambda record: STATES.index(record.state))


def _record(
    out: Path, name: str, running: Collection[str], waiting: Collection[str], died: Mapping[str, str]
) -> RunRecord:
    folder = out / "runs" / name
    origin = _json(folder / "run.json")
    finished = _json(folder / "finished.json")
    traceback = died.get(name) or _text(folder / "traceback.txt")
    told = _json(folder / "progress.json")
    rows = read_rows(folder / "results.csv")
    film = f"videos/{name}.mp4"
    state: State = "interrupted"
    if name in running:
        state = "running"
    elif name in waiting:
        state = "waiting"
    elif finished:
        state = "done"
    elif traceback:
        state = "died"
    return RunRecord(
        name=name,
        state=state,
        progress=f"{told.get('stage', '')} at {told.get('done', 0):,}" if told else "",
        traceback=traceback if state == "died" else "",
        command=str(origin.get("command", "")),
        settings=json.dumps(origin.get("settings", {}), indent=1),
        sessions=tuple(_json(folder / "sessions.json").get("sessions", ())),
        film=film if (out / film).exists() else "",
        film_error=str(finished.get("film_error") or ""),
        plan_ms=finished.get("plan_ms"),
        key=(rows[0].group, rows[0].entry, rows[0].seed) if rows else None,
    )


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _json(path: Path) -> Mapping[str, Any]:
    return read_json(path) if path.exists() else {}
