"""Have an engine do many runs, those that others need first."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from difftori_gym.comparison.engines import Engine, Event, Job, Progress
from difftori_gym.comparison.files import write_text
from difftori_gym.comparison.run_record import Run
from difftori_gym.comparison.training import is_finished

_logger = logging.getLogger(__name__)

_OUTPUT_TAIL = 2000


@dataclass(frozen=True)
class Standing:
    """
    Where a comparison is.

    :param running: names of the runs that are being worked on
    :param waiting: names of the runs that are still to be started
    :param failures: runs that died
    """

    running: Collection[str]
    waiting: Collection[str]
    failures: Sequence[Failure]


@dataclass(frozen=True)
class Failure:
    """
    A run that died.

    :param name: name of the run
    :param traceback: what it left behind
    """

    name: str
    traceback: str


class Display(Protocol):
    """Where progress is shown."""

    def start(self, run: Run) -> None:
        """:param run: a run that starts, also again"""

    def update(self, run: Run, progress: Progress) -> None:
        """:param progress: where the run is"""

    def stop(self, run: Run, outcome: str) -> None:
        """:param outcome: of a run that is over: ``done``, ``failed`` or ``already there``"""


def command_of(folder: Path) -> tuple[str, ...]:
    """:return: command line that does or continues the run of a folder"""
    return (sys.executable, "-m", "difftori_gym.comparison.run", str(folder))


def run_all(
    runs: Sequence[Run],
    out: Path,
    engine: Engine,
    display: Display,
    look: Callable[[Standing], None] = lambda standing: None,
) -> list[Failure]:
    """
    Do what is left of each run. A run that dies leaves ``traceback.txt``, and all others go on that do not need it.

    :param runs: the runs
    :param out: folder of the results
    :param engine: does the runs, inside its ``with`` block
    :param display: shows progress
    :param look: called every second or so
    :return: the runs that died
    """
    waiting = [run for run in runs if not is_finished(run, out)]
    for run in runs:
        if run not in waiting:
            display.stop(run, "already there")
    active: dict[str, Run] = {}
    started: set[str] = set()
    evaluations: dict[str, int] = {}
    failures: list[Failure] = []
    before = _interrupt_at_sigterm()
    try:
        while waiting or active:
            failures += _give_up(waiting, {failure.name for failure in failures}, display)
            blocked = {run.name for run in waiting} | set(active)
            ready = [run for run in waiting if blocked.isdisjoint(run.needs)]
            for run in ready if engine.slots is None else ready[: engine.slots - len(active)]:
                waiting.remove(run)
                active[run.name] = run
                engine.submit(_prepared(run, out))
            for event in engine.watch(1.0):
                run = active[event.name]
                if event.kind == "started":
                    started.add(run.name)
                    display.start(run)
                elif event.kind == "progress" and event.progress is not None:
                    display.update(run, event.progress)
                    if event.progress.evaluations > evaluations.get(run.name, 0):
                        evaluations[run.name] = event.progress.evaluations
                        told = (run.name, event.progress.done, run.unit, run.score_name, event.progress.score)
                        _logger.info("%s: %d %s, %s %.1f", *told)
                elif event.kind == "ended":
                    del active[run.name]
                    failures += _finish(run, event, out, display)
            running = started & set(active)
            look(Standing(running, [*(set(active) - running), *(run.name for run in waiting)], failures))
    finally:
        if active:
            engine.cancel()
        if before is not None:
            signal.signal(signal.SIGTERM, before)
    return failures


def _prepared(run: Run, out: Path) -> Job:
    folder = (out / "runs" / run.name).resolve()
    run.write(folder)
    (folder / "traceback.txt").unlink(missing_ok=True)
    return Job(run.name, folder, command_of(folder), run.needs)


def _interrupt_at_sigterm() -> Any:
    """
    Let SIGTERM do what Ctrl-C does: runs write their checkpoints, tables and report are brought up to date.

    :return: the handler until now, None outside the main thread, which alone has handlers
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        return None
    return signal.signal(signal.SIGTERM, interrupt) or signal.SIG_DFL


def _give_up(waiting: list[Run], died: set[str], display: Display) -> list[Failure]:
    """Take out the runs that need one that died."""
    failures = []
    for run in [run for run in waiting if not died.isdisjoint(run.needs)]:
        waiting.remove(run)
        display.stop(run, "failed")
        needed = ", ".join(sorted(died.intersection(run.needs)))
        failures.append(Failure(run.name, f"It needs {needed}, which died."))
    return failures


def _finish(run: Run, event: Event, out: Path, display: Display) -> list[Failure]:
    """:return: one failure, or none"""
    if event.exit_code == 0:
        display.stop(run, "done")
        return []
    folder = out / "runs" / run.name
    trace = folder / "traceback.txt"
    if not trace.exists():
        output = folder / "output.txt"
        tail = output.read_text(encoding="utf-8", errors="replace")[-_OUTPUT_TAIL:] if output.exists() else ""
        write_text(trace, f"{_told(run, event)}\n{tail}")
    display.stop(run, "failed")
    return [Failure(run.name, trace.read_text(encoding="utf-8"))]


def _told(run: Run, event: Event) -> str:
    """What happened to a run that left no traceback, and what to do."""
    code = event.exit_code
    if code is None:
        how = "was lost"
    elif code < 0:
        how = f"was killed by {signal.Signals(-code).name}; SIGKILL often means that memory ran out"
    else:
        how = f"ended with exit code {code}"
    return (
        f"The process of {run.name} ({run.task_id}) {how}. {event.told}{' ' if event.told else ''}What it saved is "
        "kept: the same command goes on from its newest checkpoint."
    )
