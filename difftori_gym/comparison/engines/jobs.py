"""What an engine is given and what it tells."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class Job:
    """A run to be done."""

    name: str  # of the run
    folder: Path  # OUT/runs/NAME
    command: tuple[str, ...]  # does or continues it; the folder among its words is replaced where it lies elsewhere
    needs: tuple[str, ...] = ()  # names of the runs in OUT whose files it reads


@dataclass(frozen=True)
class Progress:
    """What a run writes into ``progress.json`` while it runs."""

    stage: str  # what it does, such as train, evaluate, film
    done: int  # how much of its amount is done
    evaluations: int  # so far
    score: float | None  # of the newest evaluation, None before the first


@dataclass(frozen=True)
class Event:
    """Something that happened to a job."""

    name: str  # of the run
    kind: Literal["started", "progress", "ended"]  # a job that is retried after its machine died starts twice
    progress: Progress | None = None
    exit_code: int | None = None  # 0 done, negative for a signal, None if its process was lost
    told: str = ""  # what the engine knows beyond that, such as the machine


def _of(engine: str, help: str, **argument: Any) -> Any:
    """An option of one engine, None when it is not given, and its argument on a command line."""
    return field(default=None, metadata={"engine": engine, "help": f"{engine}: {help}", **argument})


@dataclass(frozen=True)
class EngineOptions:
    """Options of all engines; those of another engine than the chosen one must be left out."""

    jobs: int = 1  # local: processes side by side
    out: Path = Path()  # folder of the results
    address: str | None = _of("ray", "auto or HOST:PORT of a cluster; default: one is started on this machine")
    cpus_per_run: float | None = _of("ray", "processors that a run takes, default: 1", type=float)
    gpus_per_run: float | None = _of("ray", "GPUs that a run takes, such as 0.25, default: 0", type=float)
    storage: str | None = _of(
        "ray", "keeps checkpoints and results where nodes share no folder: s3://...", metavar="URI"
    )
    slurm: Mapping[str, str] | None = _of(
        "slurm", "options of its jobs, such as partition=gpu", nargs="+", metavar="KEY=VALUE"
    )


class EngineError(ValueError):
    """No job could run; the message says why, in one line."""


class Engine(AbstractContextManager["Engine"], ABC):
    """Where jobs run. Used inside a ``with`` block, which raises EngineError if no job could run; it leaves no job."""

    #: Jobs worth submitting at once, None for any number.
    slots: int | None = None
    #: Seconds between two looks.
    look_s = 0.2

    @abstractmethod
    def submit(self, job: Job) -> None:
        """Start a job now or as soon as there is room."""

    @abstractmethod
    def look(self) -> list[Event]:
        """What happened since the last call, in order."""

    @abstractmethod
    def cancel(self) -> None:
        """Interrupt all jobs, give them three minutes to write their checkpoints, then end them."""

    def watch(self, timeout_s: float) -> list[Event]:
        """The same, after at most so many seconds in which nothing happens."""
        deadline = time.monotonic() + timeout_s
        while not (events := self.look()) and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(self.look_s, left))
        return events
