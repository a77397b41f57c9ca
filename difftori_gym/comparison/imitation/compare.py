"""Run a comparison of imitation methods and write its table, figure, report and films."""

from __future__ import annotations

from collections.abc import Sequence

from difftori_gym.comparison.compare import remember_command
from difftori_gym.comparison.folder_lock import FolderLock
from difftori_gym.comparison.imitation.plan import Work, read_imitation_runs
from difftori_gym.comparison.imitation.report import write_report
from difftori_gym.comparison.imitation.results import collect_rows
from difftori_gym.comparison.imitation.settings import ImitationSettings
from difftori_gym.comparison.imitation.training import IMITATION
from difftori_gym.comparison.report import ReportInputs
from difftori_gym.comparison.runner import Display, Failure, run_all


def compare_imitation(
    settings: ImitationSettings, runs: Sequence[Work], display: Display, command: str = ""
) -> list[Failure]:
    """
    Do what is left of the runs, then bring everything in ``settings.out`` up to date.

    The figure and the report show all runs in the folder, those of earlier calls included. They are also written when
    the comparison is interrupted.

    :param settings: what is compared
    :param runs: from :func:`difftori_gym.comparison.imitation.plan.plan_imitation`
    :param display: shows progress
    :param command: command line, for the report
    :return: the runs that died
    :raises FolderHeldError: if another comparison works in ``settings.out``
    """
    with FolderLock(settings.out) as lock:
        commands = remember_command(settings.out, command)
        failures: list[Failure] = []
        try:
            failures = run_all(runs, settings.out, settings.jobs, display, IMITATION, lock.beat)
        finally:
            rows = collect_rows(settings.out)
            if rows:
                # Imported here: matplotlib would be loaded in every process that runs.
                from difftori_gym.comparison.imitation.figures import draw_successes

                draw_successes(rows, settings.out / "success.png", published=settings.published)
            write_report(
                ReportInputs(
                    out=settings.out,
                    rows=rows,
                    runs=read_imitation_runs(settings.out),
                    failures=failures,
                    commands=commands,
                    jobs=settings.jobs,
                    published=settings.published,
                )
            )
    return failures
