"""Progress bars, one per running process."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from difftori_gym.comparison import workload
from difftori_gym.comparison.workload import Run


class ProgressBars:
    """
    A :class:`difftori_gym.comparison.runner.Display` in the terminal. Runs that are over leave a line.

    :param console: where to draw, standard error by default
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f} {task.fields[unit]}"),
            TextColumn("{task.fields[stage]:8} {task.fields[score_name]} {task.fields[score]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._ids: dict[str, TaskID] = {}

    def __enter__(self) -> ProgressBars:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def start(self, run: Run) -> None:
        """:param run: a run that starts"""
        self._ids[run.name] = self._bars.add_task(
            run.name, total=run.amount, stage="start", unit=run.unit, score_name=run.score_name, score="-"
        )

    def update(self, run: Run, progress: workload.Progress) -> None:
        """
        :param run: a run
        :param progress: where it is
        """
        score = "-" if progress.score is None else f"{progress.score:.1f}"
        self._bars.update(self._ids[run.name], completed=progress.done, stage=progress.stage, score=score)

    def stop(self, run: Run, outcome: str) -> None:
        """
        :param run: a run that is over
        :param outcome: ``done``, ``failed`` or ``already there``
        """
        bar = self._ids.pop(run.name, None)
        if bar is not None:
            self._bars.remove_task(bar)
        self._console.print(f"{run.name}: {outcome}", highlight=False)
