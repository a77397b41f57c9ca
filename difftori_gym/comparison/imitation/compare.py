"""Run a comparison of imitation methods and write its table, figure, report and films."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from difftori_gym.comparison.compare import Kind, run_and_report
from difftori_gym.comparison.imitation.plan import Work, read_imitation_runs
from difftori_gym.comparison.imitation.report import write_report
from difftori_gym.comparison.imitation.results import ImitationRow
from difftori_gym.comparison.imitation.settings import ImitationSettings
from difftori_gym.comparison.imitation.training import IMITATION
from difftori_gym.comparison.runner import Display, Failure


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
    return run_and_report(settings, runs, display, command, _KIND)


def _draw(rows: Sequence[ImitationRow], out: Path, published: bool) -> None:
    # Imported here: matplotlib would be loaded in every process that runs.
    from difftori_gym.comparison.imitation.figures import draw_successes

    draw_successes(rows, out / "success.png", published=published)


_KIND = Kind(workload=IMITATION, read_runs=read_imitation_runs, draw=_draw, write_report=write_report)
