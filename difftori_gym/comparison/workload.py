"""What the runner has to know about the runs it starts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from difftori_gym.envs import TaskId


@dataclass(frozen=True)
class Progress:
    """
    What a run tells while it runs.

    :param stage: what it does, such as ``train``, ``evaluate``, ``film``
    :param done: how much of its amount is done
    :param evaluations: number of evaluations so far
    :param score: score of the newest evaluation, None before the first
    """

    stage: str
    done: int
    evaluations: int
    score: float | None


@dataclass(frozen=True)
class Begun:
    """
    How far an earlier process came.

    :param agent_steps: agent steps trained, gradient steps of an imitation learner
    :param wall_s: seconds of training so far
    :param cpu_s: seconds of processor time of training so far
    """

    agent_steps: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0


class Stopwatch:
    """
    Seconds of training, on the wall and of the processor in this process.

    :param begun: what an earlier process took
    """

    def __init__(self, begun: Begun) -> None:
        self.wall_s, self.cpu_s = begun.wall_s, begun.cpu_s
        self._started: tuple[float, float] | None = None

    def start(self) -> None:
        """Count from now on."""
        self._started = (time.perf_counter(), time.process_time())

    def stop(self) -> None:
        """Count no more; nothing if it does not count."""
        if self._started is not None:
            wall, cpu = self._started
            self.wall_s += time.perf_counter() - wall
            self.cpu_s += time.process_time() - cpu
        self._started = None


Report = Callable[[Progress], None]


class Run(Protocol):
    """Something to be done in a process of its own."""

    @property
    def name(self) -> str:
        """Name of its folder."""
        ...

    @property
    def task_id(self) -> TaskId:
        """Suite and task."""
        ...

    @property
    def amount(self) -> int:
        """How much is to be done."""
        ...

    @property
    def unit(self) -> str:
        """What the amount counts, such as ``frames``."""
        ...

    @property
    def score_name(self) -> str:
        """What an evaluation measures, such as ``return``."""
        ...

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the runs that must be finished before."""
        ...


@dataclass(frozen=True)
class Workload:
    """
    How runs of a kind are done.

    :param execute: does what is left of a run, given its folder, where to report to, and a context to film in; a
        function of a module, because other processes import it
    :param is_finished: tells, given the folder of all results, whether nothing is left of a run
    :param collect: brings the table of all runs in a folder up to date and gives its rows
    """

    execute: Callable[[Any, Path, Report, AbstractContextManager[object]], None]
    is_finished: Callable[[Any, Path], bool]
    collect: Callable[[Path], Sequence[Any]]
