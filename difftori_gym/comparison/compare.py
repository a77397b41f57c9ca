"""Run a comparison and write its table, figure, report and films."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from difftori_gym.comparison.files import write_text
from difftori_gym.comparison.folder_lock import FolderLock
from difftori_gym.comparison.report import ReportInputs, write_report
from difftori_gym.comparison.results import collect_results
from difftori_gym.comparison.runner import Display, Failure, run_all
from difftori_gym.comparison.settings import ComparisonSettings, RunSettings, read_runs
from difftori_gym.comparison.training import TRAINING


def compare(
    settings: ComparisonSettings, runs: Sequence[RunSettings], display: Display, command: str = ""
) -> list[Failure]:
    """
    Do what is left of the runs, then bring everything in ``settings.out`` up to date.

    The figure and the report show all runs in the folder, those of earlier calls included. They are also written when
    the comparison is interrupted.

    :param settings: what is compared
    :param runs: from :func:`difftori_gym.comparison.settings.plan_runs`
    :param display: shows progress
    :param command: command line, for the report
    :return: the runs that died
    :raises FolderHeldError: if another comparison works in ``settings.out``
    """
    with FolderLock(settings.out) as lock:
        commands = remember_command(settings.out, command)
        failures: list[Failure] = []
        try:
            failures = run_all(runs, settings.out, settings.jobs, display, TRAINING, lock.beat)
        finally:
            rows = collect_results(settings.out)
            if rows:
                # Imported here: matplotlib would be loaded in every process that runs.
                from difftori_gym.comparison.figures import draw_curves

                draw_curves(rows, settings.out / "curves.png", published=settings.published)
            write_report(
                ReportInputs(
                    out=settings.out,
                    rows=rows,
                    runs=read_runs(settings.out),
                    failures=failures,
                    commands=commands,
                    jobs=settings.jobs,
                    published=settings.published,
                )
            )
    return failures


def remember_command(out: Path, command: str) -> list[str]:
    """
    :param out: folder of the results
    :param command: command line of this call, empty for none
    :return: all different command lines that were used on the folder, oldest first
    """
    path = out / "commands.txt"
    commands = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    if command and command not in commands:
        commands.append(command)
        write_text(path, "\n".join(commands) + "\n")
    return commands
