"""Run a comparison and write its table, figure, report and films."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from difftori_gym.comparison.files import write_text
from difftori_gym.comparison.folder_lock import FolderLock
from difftori_gym.comparison.old_results import ResultRow
from difftori_gym.comparison.report import ReportInputs, write_report
from difftori_gym.comparison.runner import Display, Failure, run_all
from difftori_gym.comparison.settings import ComparisonSettings, RunSettings, read_runs
from difftori_gym.comparison.training import TRAINING
from difftori_gym.comparison.workload import Run, Workload


class Request(Protocol):
    """What comparisons of all kinds are asked for."""

    @property
    def out(self) -> Path:
        """Folder of the results."""
        ...

    @property
    def jobs(self) -> int:
        """Processes side by side."""
        ...

    @property
    def published(self) -> bool:
        """Whether to quote published results."""
        ...


@dataclass(frozen=True)
class Kind:
    """
    What differs between kinds of comparison.

    :param workload: how runs are done, and how their table is brought up to date
    :param read_runs: gives all runs in a folder, by name
    :param draw: draws rows of the table into a folder, with published results or without
    :param write_report: writes the report
    """

    workload: Workload
    read_runs: Callable[[Path], dict[str, Any]]
    draw: Callable[[Sequence[Any], Path, bool], None]
    write_report: Callable[[ReportInputs[Any, Any]], None]


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
    return run_and_report(settings, runs, display, command, _KIND)


def run_and_report(request: Request, runs: Sequence[Run], display: Display, command: str, kind: Kind) -> list[Failure]:
    """
    Do what is left of the runs, then bring everything in ``request.out`` up to date, also when interrupted.

    :param request: what is compared
    :param runs: the runs of the request
    :param display: shows progress
    :param command: command line, for the report
    :param kind: what runs and results are
    :return: the runs that died
    :raises FolderHeldError: if another comparison works in ``request.out``
    """
    out = request.out
    with FolderLock(out) as lock:
        commands = remember_command(out, command)
        failures: list[Failure] = []
        try:
            failures = run_all(runs, out, request.jobs, display, kind.workload, lock.beat)
        finally:
            rows = kind.workload.collect(out)
            if rows:
                kind.draw(rows, out, request.published)
            kind.write_report(
                ReportInputs(
                    out=out,
                    rows=rows,
                    runs=kind.read_runs(out),
                    failures=failures,
                    commands=commands,
                    jobs=request.jobs,
                    published=request.published,
                )
            )
    return failures


def _draw(rows: Sequence[ResultRow], out: Path, published: bool) -> None:
    # Imported here: matplotlib would be loaded in every process that runs.
    from difftori_gym.comparison.figures import draw_curves

    draw_curves(rows, out / "curves.png", published=published)


_KIND = Kind(workload=TRAINING, read_runs=read_runs, draw=_draw, write_report=write_report)


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
