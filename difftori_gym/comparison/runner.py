"""Run many runs, several at a time, each in a process of its own."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Lock
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from difftori_gym.checkpointing.signals import TrainingInterrupted
from difftori_gym.comparison.files import write_text
from difftori_gym.comparison.workload import Progress, Report, Run, Workload

_logger = logging.getLogger(__name__)

# Read by the numeric libraries when they are imported. Several threads per run make runs side by side slower.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")

_OUTPUT_TAIL = 2000

# Seconds that a run gets to write its checkpoint when all shall end: an evaluation may have to end before.
_GRACE_S = 180.0


@dataclass(frozen=True)
class Failure:
    """
    A run that died.

    :param name: name of the run
    :param traceback: what it left behind
    """

    name: str
    traceback: str


class Display(Protocol):
    """Where progress is shown."""

    def start(self, run: Run) -> None:
        """:param run: a run that starts"""

    def update(self, run: Run, progress: Progress) -> None:
        """
        :param run: a run
        :param progress: where it is
        """

    def stop(self, run: Run, outcome: str) -> None:
        """
        :param run: a run that is over
        :param outcome: ``done``, ``failed`` or ``already there``
        """


@dataclass
class _Job:
    """
    A running process.

    :param run: what it does
    :param process: the process
    :param messages: what it tells
    :param evaluations: how many it told of
    """

    run: Run
    process: BaseProcess
    messages: Connection
    evaluations: int = 0


class _FilmTurn(contextlib.AbstractContextManager["_FilmTurn"]):
    """
    One process films at a time; a process killed in the middle of its film keeps the others waiting five minutes only.

    :param lock: shared by all processes
    """

    def __init__(self, lock: Lock) -> None:
        self.lock = lock
        self._mine = False

    def __enter__(self) -> _FilmTurn:
        self._mine = self.lock.acquire(timeout=300)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._mine:
            self.lock.release()


def _work(
    execute: Callable[[Any, Path, Report, contextlib.AbstractContextManager[object]], None],
    run: Run,
    directory: Path,
    messages: Connection,
    lock: Lock,
) -> None:
    """
    What a child process does.

    :param execute: see :class:`~difftori_gym.comparison.workload.Workload`
    :param run: the run
    :param directory: its folder
    :param messages: end of a pipe to the parent
    :param lock: held while filming
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C: the parent ends its children
    # Outside of training, which holds it back: an end that leaves no half of a film behind.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    directory.mkdir(parents=True, exist_ok=True)
    trace = directory / "traceback.txt"
    trace.unlink(missing_ok=True)
    # Warnings and messages of native libraries would tear the progress bars.
    with (directory / "output.txt").open("a", encoding="utf-8") as output:
        os.dup2(output.fileno(), sys.stdout.fileno() if _has_descriptor(sys.stdout) else 1)
        os.dup2(output.fileno(), sys.stderr.fileno() if _has_descriptor(sys.stderr) else 2)
    import torch

    torch.set_num_threads(1)
    try:
        execute(run, directory, messages.send, _FilmTurn(lock))
    except BrokenPipeError:
        sys.exit(1)  # the parent is gone
    except TrainingInterrupted as ended:
        sys.exit(str(ended))
    except Exception:
        write_text(trace, traceback.format_exc())
        sys.exit(1)


def _has_descriptor(stream: object) -> bool:
    """
    :param stream: standard output or error
    :return: whether it is a file of the operating system
    """
    try:
        return stream.fileno() >= 0  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        return False


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """
    :param variables: environment variables that children inherit while this is open
    """
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def run_all(
    runs: Sequence[Run],
    out: Path,
    jobs: int,
    display: Display,
    workload: Workload,
    beat: Callable[[], None] = lambda: None,
) -> list[Failure]:
    """
    Do what is left of each run, those that others need first. The table of results is brought up to date after every
    evaluation.

    A run that dies leaves ``traceback.txt`` in its folder, and all others go on that do not need it.

    :param runs: the runs
    :param out: folder of the results
    :param jobs: processes side by side, at least 1
    :param display: shows progress
    :param workload: how the runs are done
    :param beat: called every second or so
    :return: the runs that died
    """
    waiting = [run for run in runs if not workload.is_finished(run, out)]
    for run in runs:
        if run not in waiting:
            display.stop(run, "already there")
    context = multiprocessing.get_context("spawn")
    lock = context.Lock()
    active: list[_Job] = []
    failures: list[Failure] = []
    before = _interrupt_at_sigterm()
    try:
        while waiting or active:
            beat()
            failures += _give_up(waiting, {failure.name for failure in failures}, display)
            blocked = {run.name for run in waiting} | {job.run.name for job in active}
            for run in [run for run in waiting if blocked.isdisjoint(run.needs)][: jobs - len(active)]:
                waiting.remove(run)
                active.append(_start(context, run, out, lock, display, workload))
            wait([job.messages for job in active], timeout=1.0)
            for job in list(active):
                _listen(job, out, display, workload)
                if not job.process.is_alive():
                    active.remove(job)
                    failures += _finish(job, out, display, workload)
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)
        for job in active:
            job.process.terminate()
        for job in active:
            job.process.join(timeout=_GRACE_S)
            job.process.kill()
            job.process.join()
        workload.collect(out)
    return failures


def _interrupt_at_sigterm() -> Any:
    """
    Let SIGTERM do what Ctrl-C does: runs write their checkpoints, tables and report are brought up to date.

    :return: the handler until now, None outside the main thread, which alone has handlers
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        return None
    return signal.signal(signal.SIGTERM, interrupt) or signal.SIG_DFL


def _give_up(waiting: list[Run], died: set[str], display: Display) -> list[Failure]:
    """
    Take out the runs that need one that died.

    :param waiting: runs that have not been started, changed in place
    :param died: names of the runs that died
    :param display: shows progress
    :return: a failure for each of them
    """
    failures = []
    for run in [run for run in waiting if not died.isdisjoint(run.needs)]:
        waiting.remove(run)
        display.stop(run, "failed")
        needed = ", ".join(sorted(died.intersection(run.needs)))
        failures.append(Failure(run.name, f"It needs {needed}, which died."))
    return failures


def _start(
    context: multiprocessing.context.SpawnContext, run: Run, out: Path, lock: Lock, display: Display, workload: Workload
) -> _Job:
    """
    :param context: how processes are started
    :param run: what to do
    :param out: folder of the results
    :param lock: held while filming
    :param display: shows progress
    :param workload: how the run is done
    :return: the running process
    """
    messages, child_end = context.Pipe(duplex=False)
    arguments = (workload.execute, run, out / "runs" / run.name, child_end, lock)
    process = context.Process(target=_work, args=arguments, name=run.name, daemon=True)
    with _environment(_ONE_THREAD):
        process.start()
    child_end.close()
    display.start(run)
    return _Job(run, process, messages)


def _listen(job: _Job, out: Path, display: Display, workload: Workload) -> None:
    """
    Read what a process told since the last time.

    :param job: the process
    :param out: folder of the results
    :param display: shows progress
    :param workload: how the run is done
    """
    try:
        while job.messages.poll():
            progress = job.messages.recv()
            display.update(job.run, progress)
            if progress.evaluations > job.evaluations:
                job.evaluations = progress.evaluations
                told = (job.run.name, progress.done, job.run.unit, job.run.score_name, progress.score)
                _logger.info("%s: %d %s, %s %.1f", *told)
                workload.collect(out)
    except (EOFError, OSError):
        job.process.join(timeout=60)  # it closed its end: it is about to end


def _finish(job: _Job, out: Path, display: Display, workload: Workload) -> list[Failure]:
    """
    :param job: a process that is over
    :param out: folder of the results
    :param display: shows progress
    :param workload: how the run is done
    :return: one failure, or none
    """
    _listen(job, out, display, workload)
    job.messages.close()
    directory = out / "runs" / job.run.name
    if job.process.exitcode == 0:
        display.stop(job.run, "done")
        return []
    trace = directory / "traceback.txt"
    if not trace.exists():
        output = directory / "output.txt"
        tail = output.read_text(encoding="utf-8", errors="replace")[-_OUTPUT_TAIL:] if output.exists() else ""
        write_text(trace, f"{_told(job.run, job.process.exitcode)}\n{tail}")
    display.stop(job.run, "failed")
    return [Failure(job.run.name, trace.read_text(encoding="utf-8"))]


def _told(run: Run, exit_code: int | None) -> str:
    """
    :param run: a run whose process left no traceback
    :param exit_code: of the process, negative for a signal
    :return: what happened to it and what to do
    """
    if exit_code is not None and exit_code < 0:
        how = f"was killed by {signal.Signals(-exit_code).name}; SIGKILL often means that memory ran out"
    else:
        how = f"ended with exit code {exit_code}"
    return (
        f"The process of {run.name} ({run.task_id}) {how}. What it saved is kept: the same command goes on from its "
        "newest checkpoint."
    )
