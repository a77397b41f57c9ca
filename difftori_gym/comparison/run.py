"""
Do, or continue, one run of a comparison: ``python -m difftori_gym.comparison.run FOLDER``.

Its settings lie in FOLDER/run.json, where FOLDER is OUT/runs/NAME. Exit code: 0 when it is done, 1 when it died
(FOLDER/traceback.txt), 2 when it cannot be carried out, 130 when SIGTERM or SIGINT ended it.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import FrameType

import torch

from difftori_gym.comparison.engines import Progress
from difftori_gym.comparison.files import write_text
from difftori_gym.comparison.folder_lock import take
from difftori_gym.comparison.run_record import FILE, Run
from difftori_gym.comparison.training import do_run

# A message per step would slow a fast learner down.
_SECONDS_BETWEEN_REPORTS = 0.5
_FILM_WAIT_S = 300.0


class ProgressWriter:
    """Replaces ``progress.json`` in the folder of a run at most twice a second."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "progress.json"
        self._written = 0.0
        self._pending: Progress | None = None

    def __call__(self, progress: Progress) -> None:
        self._pending = progress
        if time.monotonic() - self._written >= _SECONDS_BETWEEN_REPORTS:
            self.flush()

    def flush(self) -> None:
        """Write what was held back."""
        if self._pending is not None:
            unfinished = self.path.with_name(f".{self.path.name}")  # not through to the disk: it lives for seconds
            unfinished.write_text(json.dumps(asdict(self._pending)), encoding="utf-8")
            unfinished.replace(self.path)
            self._written, self._pending = time.monotonic(), None


@contextlib.contextmanager
def film_turn(path: Path) -> Iterator[None]:
    """One process films at a time; one that hangs in its film keeps the others waiting five minutes only."""
    with path.open("w") as file:
        deadline = time.monotonic() + _FILM_WAIT_S
        while not take(file) and time.monotonic() < deadline:
            time.sleep(0.2)
        yield


def _interrupt(number: int, frame: FrameType | None) -> None:
    # Outside of training, which holds it back: an end that leaves no half of a film behind.
    raise KeyboardInterrupt(f"{signal.Signals(number).name} ended it.")


def main(arguments: list[str]) -> int:
    """:return: exit code, given the folder of a run"""
    try:
        folder = Path(*arguments).resolve()
        run = Run.read(folder / FILE)
        if len(arguments) != 1 or folder.name != run.name or folder.parent.name != "runs":
            raise ValueError(f"expected one folder OUT/runs/{run.name}, got {' '.join(arguments)}.")
    except (ValueError, OSError, TypeError) as error:
        sys.stderr.write(f"run: {error}\n")
        return 2
    (folder / "traceback.txt").unlink(missing_ok=True)
    for kind in (signal.SIGTERM, signal.SIGINT):
        signal.signal(kind, _interrupt)
    report = ProgressWriter(folder)
    try:
        torch.set_num_threads(1)
        do_run(run, folder, report, film_turn(folder.parent.parent / "film.lock"))
    except KeyboardInterrupt as ended:
        sys.stderr.write(f"{ended}\n")
        return 130
    except Exception:
        traceback.print_exc()
        write_text(folder / "traceback.txt", traceback.format_exc())
        return 1
    finally:
        report.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
