"""What clusters do on their nodes. Sent to them by value: no node loads torch to look after a run."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from difftori_gym.comparison.engines.process import end, follow, start
from difftori_gym.comparison.engines.storage import Storage

# Seconds between two copies to the storage when there is no new checkpoint or evaluation.
_SAVE_S = 10.0
_HAS_PACKAGE = "import importlib.util, sys; sys.exit(importlib.util.find_spec('difftori_gym') is None)"

Tell = Callable[[str, Any], bool]


class Board:
    """Ray's actor beside the driver: what runs tell, and whether they may go on."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, Any]] = []
        self.stopped = False

    def tell(self, name: str, kind: str, content: Any) -> bool:
        """:return: whether the run may go on"""
        if content is not None:
            self.told.append((name, kind, content))
        return not self.stopped

    def take(self) -> list[tuple[str, str, Any]]:
        """:return: what was told since the last call"""
        told, self.told = self.told, []
        return told

    def stop(self) -> None:
        """Let all runs end with a checkpoint."""
        self.stopped = True


def work(
    folder: Path,
    command: Sequence[str],
    needs: Sequence[str],
    environment: Mapping[str, str],
    storage: Storage | None,
    tell: Tell,
) -> int:
    """
    Do a run as a task of Ray, with a storage in a folder of its own.

    :param folder: on the driver
    :param command: first the interpreter, which is this node's here
    :param needs: names of runs whose files it reads
    :param tell: given a kind and its content; says whether the run may go on
    :return: exit code, negative for a signal
    """
    if not tell("started", platform.node()):
        return 130
    command = (sys.executable, *command[1:])
    if storage is None:
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is not on {platform.node()}: share it with all nodes, or use --storage.")
        return follow(command, folder, environment, lambda news: tell("progress", news))
    with tempfile.TemporaryDirectory(prefix="difftori-gym-") as scratch:
        out = Path(scratch)
        inside = out / "runs" / folder.name
        # Runs of a node film one at a time, though each has a folder of its own.
        (out / "film.lock").symlink_to(Path(tempfile.gettempdir()) / f"difftori-gym-film-{os.getuid()}.lock")
        needed = ["demos", *(f"runs/{need}" for need in needs)] if needs else []
        sent = storage.load(out, [f"runs/{folder.name}", f"videos/{folder.name}.mp4", *needed])
        saved, saved_at, evaluations = [""], 0.0, 0

        def tell_and_save(news: dict[str, Any] | None) -> bool:
            nonlocal saved, saved_at, evaluations
            evaluations = news["evaluations"] if news else evaluations
            marks = [str(evaluations), *sorted(path.name for path in inside.glob("checkpoint-*"))]
            if marks != saved or time.monotonic() - saved_at > _SAVE_S:
                with contextlib.suppress(FileNotFoundError):  # a file went meanwhile: next time
                    storage.save(out, sent)
                    saved, saved_at = marks, time.monotonic()
            return tell("progress", news)

        moved = [str(inside) if part == str(folder) else part for part in command]
        exit_code = follow(moved, inside, environment, tell_and_save)
        storage.save(out, sent)
        return exit_code


def fault(token: Path, environment: Mapping[str, str], storage: Storage | None) -> str:
    """Why no run can be done on this node, empty if it can. A ``token`` lies in the driver's folder of the results."""
    lacks = subprocess.run([sys.executable, "-c", _HAS_PACKAGE], env={**os.environ, **environment}, check=False)
    if lacks.returncode:
        return f"{sys.executable} has no difftori_gym: install the package there as here"
    if storage is not None:
        told = storage.fault()
        return f"--storage {storage.uri} cannot be written: {told}" if told else ""
    if not token.exists():
        return f"{token.parent} is not the driver's: share it with all nodes, or keep results in a --storage URI"
    return "" if os.access(token.parent, os.W_OK) else f"{token.parent} cannot be written"


class Queued:
    """A run as submitit wants it, a job of Slurm. A file ``cancelled`` whose appearance ends it with a checkpoint."""

    def __init__(self, command: Sequence[str], folder: Path, cancelled: Path) -> None:
        self.command, self.folder, self.cancelled = command, folder, cancelled
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> int:
        """:return: exit code of the run"""
        if self.cancelled.exists():
            return 130
        self._process = start(self.command, self.folder)
        while self._process.poll() is None:
            if self.cancelled.exists():
                end([self._process])
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(1.0)
        return self._process.returncode

    def checkpoint(self) -> Any:
        """Called shortly before the time limit: the run writes its checkpoint, and the job is enqueued again."""
        import submitit

        if self._process is not None:
            end([self._process])
        return submitit.helpers.DelayedSubmission(Queued(self.command, self.folder, self.cancelled))
