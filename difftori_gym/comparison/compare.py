"""Have an engine do the runs of a comparison, and bring its table, figures, report and page up to date."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from difftori_gym.comparison.engines import Engine, EngineOptions, Event, Job, make_engine
from difftori_gym.comparison.files import write_text
from difftori_gym.comparison.folder_lock import FolderLock
from difftori_gym.comparison.records import Results, Standing, is_finished, read_records
from difftori_gym.comparison.report import write_report
from difftori_gym.comparison.results import collect_rows
from difftori_gym.comparison.run_record import Run
from difftori_gym.comparison.settings import ComparisonSettings

if TYPE_CHECKING:
    from difftori_gym.comparison.progress import ProgressBars

_logger = logging.getLogger(__name__)

# What is shown while runs go on is brought up to date no more often.
_SECONDS_BETWEEN_UPDATES = 5.0
_OUTPUT_TAIL = 2000


def compare(
    settings: ComparisonSettings,
    runs: Sequence[Run],
    display: ProgressBars,
    command: str = "",
    engine: Engine | None = None,
) -> dict[str, str]:
    """
    Do what is left of the runs, then bring everything in ``settings.out`` up to date, also when interrupted.

    Figures and report show all runs in the folder, those of earlier calls included.

    :param runs: from :func:`difftori_gym.comparison.plan.plan_runs`
    :param command: command line, for the report
    :param engine: does the runs; None: ``settings.jobs`` processes of this machine
    :return: tracebacks of the runs that died, by name
    :raises FolderHeldError: if another comparison works in ``settings.out``
    """
    out = settings.out
    with FolderLock(out) as lock, engine or make_engine("local", EngineOptions(settings.jobs)) as engine:
        commands = _remember_command(out, command)
        standing, due = Standing(), 0.0

        def look(now: Standing) -> None:
            nonlocal standing, due
            standing, begun = now, time.monotonic()
            lock.beat()
            if begun >= due:
                _publish(settings, commands, standing)
                # With many runs that takes a while, which shall be a small part of the time.
                due = begun + max(_SECONDS_BETWEEN_UPDATES, 20 * (time.monotonic() - begun))

        try:
            run_all(runs, out, engine, display, look)
        finally:
            _publish(settings, commands, Standing(died=standing.died), final=True)
    return standing.died


def _publish(settings: ComparisonSettings, commands: Sequence[str], standing: Standing, *, final: bool = False) -> None:
    """Bring the table and the page up to date; in the end the figures and the report, too, which take seconds."""
    from difftori_gym.comparison.page import write_page

    out, published = settings.out, settings.published
    rows = collect_rows(out)
    results = Results(out, rows, read_records(out, standing), commands, settings.jobs, published)
    write_page(results)
    if final:
        # Imported here: matplotlib takes a second, which a comparison that is refused need not wait for.
        from difftori_gym.comparison.figures import draw_curves, draw_successes

        for name, draw, kind in (("curves", draw_curves, "rl"), ("success", draw_successes, "imitation")):
            if drawn := [row for row in rows if row.kind == kind]:
                draw(drawn, out / f"{name}.png", published=published)
        write_report(results)


def _remember_command(out: Path, command: str) -> list[str]:
    """All different command lines that were used on the folder, oldest first, this one included."""
    path = out / "commands.txt"
    commands = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    if command and command not in commands:
        commands.append(command)
        write_text(path, "\n".join(commands) + "\n")
    return commands


def command_of(folder: Path) -> tuple[str, ...]:
    """:return: command line that does or continues the run of a folder"""
    return (sys.executable, "-m", "difftori_gym.comparison.run", str(folder))


def run_all(
    runs: Sequence[Run],
    out: Path,
    engine: Engine,
    display: ProgressBars,
    look: Callable[[Standing], None] = lambda standing: None,
) -> dict[str, str]:
    """
    Do what is left of each run. A run that dies leaves ``traceback.txt``, and all others go on that do not need it.

    :param engine: does the runs, inside its ``with`` block
    :param look: called every second or so
    :return: tracebacks of the runs that died, by name
    """
    waiting = [run for run in runs if not is_finished(run, out)]
    for run in runs:
        if run not in waiting:
            display.stop(run, "already there")
    active: dict[str, Run] = {}
    started: set[str] = set()
    evaluations: dict[str, int] = {}
    died: dict[str, str] = {}
    # SIGTERM does what Ctrl-C does: runs write their checkpoints, tables and report are brought up to date. The main
    # thread alone has handlers.
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, signal.default_int_handler) if main else None
    try:
        while waiting or active:
            for run in [run for run in waiting if not died.keys().isdisjoint(run.needs)]:
                waiting.remove(run)
                display.stop(run, "failed")
                died[run.name] = f"It needs {', '.join(sorted(died.keys() & {*run.needs}))}, which died."
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
                    if event.exit_code != 0:
                        died[run.name] = _traceback(run, event, out / "runs" / run.name)
                    display.stop(run, "failed" if run.name in died else "done")
            running = started & set(active)
            look(Standing(running, [*(set(active) - running), *(run.name for run in waiting)], died))
    finally:
        if active:
            engine.cancel()
        if main:
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
    return died


def _prepared(run: Run, out: Path) -> Job:
    folder = (out / "runs" / run.name).resolve()
    run.write(folder)
    (folder / "traceback.txt").unlink(missing_ok=True)
    return Job(run.name, folder, command_of(folder), run.needs)


def _traceback(run: Run, event: Event, folder: Path) -> str:
    """What a run that died left behind, else what happened to it, and what to do."""
    trace, output, code = folder / "traceback.txt", folder / "output.txt", event.exit_code
    if not trace.exists():
        how = "was lost" if code is None else f"ended with exit code {code}"
        if code is not None and code < 0:
            how = f"was killed by {signal.Signals(-code).name}; SIGKILL often means that memory ran out"
        tail = output.read_text(encoding="utf-8", errors="replace")[-_OUTPUT_TAIL:] if output.exists() else ""
        told = (
            f"The process of {run.name} ({run.task_id}) {how}. {event.told}{' ' if event.told else ''}What it saved is "
            "kept: the same command goes on from its newest checkpoint."
        )
        write_text(trace, f"{told}\n{tail}")
    return trace.read_text(encoding="utf-8")
