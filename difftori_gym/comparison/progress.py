"""Progress bars, one per running process."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from difftori_gym.comparison import training
from difftori_gym.comparison.settings import RunSettings


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
            TextColumn("{task.completed:.0f}/{task.total:.0f} frames"),
            TextColumn("{task.fields[stage]:8} return {task.fields[episode_return]}"),
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

    def start(self, run: RunSettings) -> None:
        """:param run: a run that starts"""
        self._ids[run.name] = self._bars.add_task(run.name, total=run.frames, stage="start", episode_return="-")

    def update(self, run: RunSettings, progress: training.Progress) -> None:
        """
        :param run: a run
        :param progress: where it is
        """
        episode_return = "-" if progress.episode_return is None else f"{progress.episode_return:.1f}"
        self._bars.update(
            self._ids[run.name], completed=progress.frames, stage=progress.stage, episode_return=episode_return
        )

    def stop(self, run: RunSettings, outcome: str) -> None:
        """
        :param run: a run that is over
        :param outcome: ``done``, ``failed`` or ``already there``
        """
        bar = self._ids.pop(run.name, None)
        if bar is not None:
            self._bars.remove_task(bar)
        self._console.print(f"{run.name}: {outcome}", highlight=False)
