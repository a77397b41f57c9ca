"""Progress bars, one per running process."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from difftori_gym.comparison import engines
from difftori_gym.comparison.run_record import Run


class ProgressBars:
    """Shows a comparison in the terminal, by default on standard error. Runs that are over leave a line."""

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

    def __exit__(self, *exception: object) -> None:
        self._bars.stop()

    def start(self, run: Run) -> None:
        """:param run: a run that starts, also again"""
        self._remove(run)
        self._ids[run.name] = self._bars.add_task(
            run.name, total=run.amount, stage="start", unit=run.unit, score_name=run.score_name, score="-"
        )

    def update(self, run: Run, progress: engines.Progress) -> None:
        """:param progress: where the run is"""
        score = "-" if progress.score is None else f"{progress.score:.1f}"
        self._bars.update(self._ids[run.name], completed=progress.done, stage=progress.stage, score=score)

    def stop(self, run: Run, outcome: str) -> None:
        """:param outcome: of a run that is over: ``done``, ``failed`` or ``already there``"""
        self._remove(run)
        self._console.print(f"{run.name}: {outcome}", highlight=False)

    def _remove(self, run: Run) -> None:
        if run.name in self._ids:
            self._bars.remove_task(self._ids.pop(run.name))
