"""What an engine is given and what it tells."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Job:
    """
    A run to be done.

    :param name: of the run
    :param folder: its folder, ``OUT/runs/NAME``
    :param command: does or continues it; an argument that is the folder is replaced where the folder lies elsewhere
    :param needs: names of the runs in ``OUT`` whose files it reads
    """

    name: str
    folder: Path
    command: tuple[str, ...]
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Progress:
    """
    What a run writes into ``progress.json`` while it runs.

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
class Event:
    """
    Something that happened to a job.

    :param name: of the run
    :param kind: a job that is retried after its machine died starts twice
    :param progress: of kind ``progress``
    :param exit_code: of kind ``ended``: 0 done, negative for a signal, None if its process was lost
    :param told: what the engine knows beyond that, such as the machine; empty for nothing
    """

    name: str
    kind: Literal["started", "progress", "ended"]
    progress: Progress | None = None
    exit_code: int | None = None
    told: str = ""


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
        """:return: what happened since the last call, in order"""

    @abstractmethod
    def cancel(self) -> None:
        """Interrupt all jobs, give them three minutes to write their checkpoints, then end them."""

    def watch(self, timeout_s: float) -> list[Event]:
        """
        :param timeout_s: seconds to wait at most while nothing happens
        :return: as of :meth:`look`
        """
        deadline = time.monotonic() + timeout_s
        while not (events := self.look()) and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(self.look_s, left))
        return events
