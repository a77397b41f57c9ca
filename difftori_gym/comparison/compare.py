"""Do the runs of a comparison and bring its table, figures, report and page up to date."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from difftori_gym.comparison.engines import Engine, EngineOptions, make_engine
from difftori_gym.comparison.files import write_text
from difftori_gym.comparison.folder_lock import FolderLock
from difftori_gym.comparison.report import ReportInputs, write_report
from difftori_gym.comparison.results import collect_rows
from difftori_gym.comparison.run_record import Run, read_runs
from difftori_gym.comparison.runner import Display, Failure, Standing, run_all
from difftori_gym.comparison.settings import ComparisonSettings

# What is shown while runs go on is brought up to date no more often.
_SECONDS_BETWEEN_UPDATES = 5.0


def compare(
    settings: ComparisonSettings,
    runs: Sequence[Run],
    display: Display,
    command: str = "",
    engine: Engine | None = None,
) -> list[Failure]:
    """
    Do what is left of the runs, then bring everything in ``settings.out`` up to date, also when interrupted.

    Figures and report show all runs in the folder, those of earlier calls included.

    :param settings: what is compared
    :param runs: from :func:`difftori_gym.comparison.plan.plan_runs`
    :param display: shows progress
    :param command: command line, for the report
    :param engine: does the runs; None: ``settings.jobs`` processes of this machine
    :return: the runs that died
    :raises FolderHeldError: if another comparison works in ``settings.out``
    """
    out = settings.out
    with FolderLock(out) as lock, engine or make_engine("local", EngineOptions(settings.jobs)) as engine:
        commands = _remember_command(out, command)
        failures: list[Failure] = []
        due = 0.0

        def look(standing: Standing) -> None:
            nonlocal due
            lock.beat()
            begun = time.monotonic()
            if begun >= due:
                _publish(settings, commands, standing, final=False)
                # With many runs that takes a while, which shall be a small part of the time.
                due = begun + max(_SECONDS_BETWEEN_UPDATES, 20 * (time.monotonic() - begun))

        try:
            failures = run_all(runs, out, engine, display, look)
        finally:
            _publish(settings, commands, Standing((), (), failures), final=True)
    return failures


def _publish(settings: ComparisonSettings, commands: Sequence[str], standing: Standing, *, final: bool) -> None:
    """Bring the table and the page up to date; in the end the figures and the report, too, which take seconds."""
    from difftori_gym.comparison.page import write_page

    out, rows = settings.out, collect_rows(settings.out)
    died = {failure.name: failure.traceback for failure in standing.failures}
    running, waiting = standing.running, standing.waiting
    write_page(out, rows, running=running, waiting=waiting, died=died, commands=commands, published=settings.published)
    if not final:
        return
    # Imported here: matplotlib takes a second, which a comparison that is refused need not wait for.
    from difftori_gym.comparison.figures import draw_curves, draw_successes

    learned, imitated = ([row for row in rows if row.kind == kind] for kind in ("rl", "imitation"))
    if learned:
        draw_curves(learned, out / "curves.png", published=settings.published)
    if imitated:
        draw_successes(imitated, out / "success.png", published=settings.published)
    how = (standing.failures, commands, settings.jobs, settings.published)
    write_report(ReportInputs(out, rows, read_runs(out), *how))


def _remember_command(out: Path, command: str) -> list[str]:
    """All different command lines that were used on the folder, oldest first, this one included."""
    path = out / "commands.txt"
    commands = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    if command and command not in commands:
        commands.append(command)
        write_text(path, "\n".join(commands) + "\n")
    return commands
