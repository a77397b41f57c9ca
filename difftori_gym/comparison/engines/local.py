"""Runs as processes of this machine."""

from __future__ import annotations

import subprocess
from typing import Any

from difftori_gym.comparison.engines.jobs import Engine, Event, Job, Progress
from difftori_gym.comparison.engines.process import GRACE_S, ProgressFile, end, start


class LocalEngine(Engine):
    """:param jobs: processes side by side, at least 1"""

    look_s = 0.05

    def __init__(self, jobs: int) -> None:
        if jobs < 1:
            raise ValueError(f"--jobs must be at least 1, got {jobs}.")
        self.slots = jobs
        self._running: dict[str, tuple[subprocess.Popen[bytes], ProgressFile]] = {}
        self._events: list[Event] = []

    def submit(self, job: Job) -> None:
        """Start a job now."""
        progress = ProgressFile(job.folder)
        self._running[job.name] = start(job.command, job.folder), progress
        self._events.append(Event(job.name, "started"))

    def look(self) -> list[Event]:
        events, self._events = self._events, []
        for name, (process, progress) in list(self._running.items()):
            exit_code = process.poll()
            if (news := progress.news()) is not None:
                events.append(Event(name, "progress", Progress(**news)))
            if exit_code is not None:
                del self._running[name]
                events.append(Event(name, "ended", exit_code=exit_code))
        return events

    def cancel(self, grace_s: float = GRACE_S) -> None:
        end((process for process, _ in self._running.values()), grace_s)

    def __exit__(self, *exception: Any) -> None:
        self.cancel(grace_s=0.0)
        self._running.clear()
