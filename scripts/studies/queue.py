"""Do the cells of a plan one after the other, several at a time, in processes of their own."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from difftori_gym.comparison.files import write_text
from studies.plan import Cell, Study
from studies.rows import add_rows, finished, made_rows
from studies.trees import tree_of

_logger = logging.getLogger("evidence")

# Seconds that a cell gets to write its checkpoint: an evaluation may have to end before.
_GRACE_S = 240.0
_LIMITS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_REFUSED, _INTERRUPTED = 2, 130  # exit codes of compare.py


@dataclass(frozen=True)
class Places:
    """
    Where everything lies.

    :param repository: the git repository
    :param data: tables of studies
    :param work: cells, trees and locks; not in the repository
    """

    repository: Path
    data: Path
    work: Path

    def out(self, cell: Cell) -> Path:
        """:return: folder of a cell's results, which cells of imitation share"""
        return self.work / "cells" / cell.folder

    def died(self, cell: Cell) -> Path:
        """:return: file that holds the last line of a cell that died"""
        return self.work / "died" / f"{cell.name}.txt"

    def log(self, cell: Cell) -> Path:
        """:return: what a cell wrote on its standard output and error"""
        return self.work / "logs" / f"{cell.name}.txt"

    def lock(self, cell: Cell) -> Path:
        """:return: file that is locked while a process works in the cell's folder"""
        return self.work / "locks" / f"{cell.folder}.lock"

    @property
    def trees(self) -> Path:
        """Source trees by commit."""
        return self.work / "trees"


@dataclass
class _Job:
    """
    A cell and its process.

    :param cell: the cell
    :param process: compare.py
    :param commit: that it runs at
    :param lock: of its folder; the process holds it, too, and goes on holding it if this one is killed
    """

    cell: Cell
    process: subprocess.Popen[bytes]
    commit: str
    lock: IO[str]


class Queue:
    """
    Cells that are open, taken in the order of the plan. Several processes may share one queue.

    :param plan: reads the studies, before each cell, so that a plan may be edited meanwhile; raises ValueError for one
        that is not whole, and the one before stays
    :param places: where everything lies
    :param jobs: cells side by side
    :param min_free_gb: no cell is started with less space on the disk
    :param arguments: of compare.py, beyond those of the cells
    """

    def __init__(
        self,
        plan: Callable[[], Sequence[Study]],
        places: Places,
        *,
        jobs: int = 1,
        min_free_gb: float = 2.0,
        arguments: Sequence[str] = (),
    ) -> None:
        self.plan, self.cells = plan, list[Cell]()
        self.places, self.jobs, self.min_free_gb = places, jobs, min_free_gb
        self.arguments = list(arguments)
        self._left: set[str] = set()  # studies that were refused and cells that were interrupted, by name
        self._ends = False

    def end(self) -> None:
        """Start nothing more; running cells write their checkpoints. May be called by a handler of signals."""
        self._ends = True

    def run(self, until: float | None = None) -> bool:
        """
        Work until nothing is open.

        :param until: time of day (``time.time``) at which to end
        :return: whether every cell that was started came to its end
        :raises OSError: if a table cannot be written
        """
        active: list[_Job] = []
        well = True
        try:
            while not self._ends and (until is None or time.time() < until):
                while len(active) < self.jobs and (job := self._start_next()) is not None:
                    active.append(job)
                if not active:
                    break
                time.sleep(0.3)
                for job in [job for job in active if job.process.poll() is not None]:
                    active.remove(job)
                    well = self._close(job) and well
        finally:
            self._stop(active)
        return well

    def _stop(self, active: list[_Job]) -> None:
        for job in active:
            job.process.terminate()
        deadline = time.monotonic() + _GRACE_S
        for job in active:
            try:
                job.process.wait(timeout=max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                os.killpg(job.process.pid, signal.SIGKILL)
                job.process.wait()
            if job.process.returncode == 0:  # it was done just then
                self._close(job)
            else:
                _logger.info("%s: stopped, goes on next time", job.cell.name)

    def _start_next(self) -> _Job | None:
        try:
            self.cells = [cell for study in self.plan() for cell in study.cells()]
        except ValueError as error:
            _logger.error("%s", error)
        done = finished(self.cells, self.places.data)
        for cell in self.cells:
            if self._ends or cell.name in done or self.places.died(cell).exists():
                continue
            if not self._left.isdisjoint((cell.name, cell.study.name)):
                continue
            lock = _take(self.places.lock(cell))
            if lock is None:
                continue
            # Another process may have ended it between the look and the lock.
            if cell.name not in finished([cell], self.places.data) and self._has_space():
                job = self._start(cell, lock)
                if job is not None:
                    return job
            lock.close()
        return None

    def _has_space(self) -> bool:
        free = shutil.disk_usage(self.places.work).free / 1e9
        if free < self.min_free_gb and not self._ends:
            _logger.error("%s has %.1f GB left, less than %.1f: make space.", self.places.work, free, self.min_free_gb)
            self.end()
        return free >= self.min_free_gb

    def _start(self, cell: Cell, lock: IO[str]) -> _Job | None:
        places = self.places
        try:
            tree = tree_of(cell.study.commit, places.repository, places.trees)
        except ValueError as error:
            _logger.error("study %s: %s", cell.study.name, error)
            self._left.add(cell.study.name)
            return None
        variables = {**os.environ, **dict.fromkeys(_LIMITS, "1"), "PYTHONPATH": str(tree)}
        command = [sys.executable, str(tree / "examples" / "compare.py"), *cell.arguments(places.out(cell))]
        command += self.arguments
        log = places.log(cell)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as output:
            process = subprocess.Popen(
                command,
                cwd=tree,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                pass_fds=[lock.fileno()],
            )
        _logger.info("%s: started", cell.name)
        return _Job(cell, process, tree.name, lock)

    def _close(self, job: _Job) -> bool:
        """:return: whether the cell came to its end"""
        cell, places, code = job.cell, self.places, job.process.returncode
        with job.lock:
            rows = made_rows(cell, places.out(cell), job.commit) if code == 0 else []
            if rows and rows[-1].amount >= cell.study.amount:
                add_rows(places.data / f"{cell.study.name}.csv", rows, places.work / "rows.lock")
                _logger.info("%s: done, return %.1f", cell.name, rows[-1].episode_return)
                return True
            line = _last_line(places.log(cell)) or f"ended with exit code {code} and without a word"
            if code == _REFUSED:
                _logger.error("study %s: %s", cell.study.name, line)
                self._left.add(cell.study.name)
            elif code == _INTERRUPTED:
                _logger.error("%s: interrupted by another, goes on next time", cell.name)
                self._left.add(cell.name)
            else:
                places.died(cell).parent.mkdir(parents=True, exist_ok=True)
                write_text(places.died(cell), f"{line}\n")
                _logger.error("%s: died: %s", cell.name, line)
        return False


def _take(path: Path) -> IO[str] | None:
    """:return: the file, locked, or None if another process has it"""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file


def is_held(path: Path) -> bool:
    """
    :param path: file of a lock
    :return: whether a process works there
    """
    if not path.exists():
        return False
    file = _take(path)
    if file is None:
        return True
    file.close()
    return False


def _last_line(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    said = [line.strip() for line in lines if line.strip() and not line.startswith(("/", " "))]
    return said[-1] if said else ""
