"""The process of a run. Only the standard library: engines send these functions to nodes by value."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Process = subprocess.Popen[bytes]

# Seconds that a run gets to write its checkpoint when it shall end: an evaluation may have to end before.
GRACE_S = 180.0

# Read by the numeric libraries when they are imported. Several threads per run make runs side by side slower.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")

# Becomes the command after it has asked for SIGKILL (9) at the death of its parent (1: PR_SET_PDEATHSIG). Before a time
# limit, Slurm sends SIGUSR2 to all processes of a job; the one that looks after the run answers it.
_LEASH = """
import ctypes, os, signal, sys
signal.signal(signal.SIGUSR2, signal.SIG_IGN)
getattr(ctypes.CDLL(None), "prctl", lambda *_: 0)(1, 9)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execvp(sys.argv[2], sys.argv[2:])
"""


def start(command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> Process:
    """
    Start a command in a session of its own, which Ctrl-C does not reach. It dies when this process dies.

    :param folder: ``output.txt`` in it gets what the command prints
    :param environment: variables beside those of this process and one thread a run
    """
    folder.mkdir(parents=True, exist_ok=True)
    leash = (sys.executable, "-ISc", _LEASH, str(os.getpid()))
    with (folder / "output.txt").open("ab") as output:
        return subprocess.Popen(
            [*leash, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **_ONE_THREAD, **(environment or {})},
            start_new_session=True,
        )


def end(processes: Iterable[Process], grace_s: float = GRACE_S) -> None:
    """Interrupt processes by SIGTERM, and kill those, with all that they started, that are left after a while."""
    processes = list(processes)
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + grace_s
    try:
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(deadline - time.monotonic(), 0.0))
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


class ProgressFile:
    """``progress.json`` of a run, replaced again and again. What lies there at first is of an earlier process."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "progress.json"
        self._seen = self._stamp()

    def news(self) -> dict[str, Any] | None:
        """:return: its content if it is new"""
        before, self._seen = self._seen, self._stamp()
        if self._seen != before:
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                content = json.loads(self.path.read_text(encoding="utf-8"))
                return {name: content[name] for name in ("stage", "done", "evaluations", "score")}
        return None

    def _stamp(self) -> tuple[int, int] | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns


def follow(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], tell: Callable[[dict[str, Any] | None], bool]
) -> int:
    """
    Do a run in a process of its own until it ends.

    :param tell: called twice a second with new progress or None; says whether the run may go on
    :return: exit code, negative for a signal
    """
    news = ProgressFile(folder)
    process = start(command, folder, environment)
    try:
        while process.poll() is None and tell(news.news()):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.5)
    finally:
        end([process])
    tell(news.news())
    return process.returncode
