"""One comparison at a time in a folder, also where several machines see the folder."""

from __future__ import annotations

import json
import os
import platform
import time
from datetime import datetime
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows: what the file says has to do
    fcntl = None  # type: ignore[assignment]

_FILE = "comparison.lock"
# A holder on another machine, where locks may not reach, shows that it lives by writing the time.
_BEAT_S, _DEAD_S = 20.0, 120.0


class FolderHeldError(ValueError):
    """Another process works in the folder; the message names it."""


class FolderLock:
    """
    Held inside a ``with`` block. A holder that died, here or elsewhere, is recognised.

    :param folder: folder of the results, made when missing
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file: IO[str] | None = None
        self._beaten = 0.0

    def __enter__(self) -> FolderLock:
        """:raises FolderHeldError: if another process holds the folder"""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / _FILE
        file = path.open("a+", encoding="utf-8")
        file.seek(0)
        holder, age = _read(file), time.time() - path.stat().st_mtime
        elsewhere = holder.get("machine") not in (None, platform.node())
        if not _take(file) or (elsewhere and age < _DEAD_S):
            file.close()
            raise FolderHeldError(
                f"{self.folder} is in use by process {holder.get('process', '?')} on "
                f"{holder.get('machine', 'this machine')} since {holder.get('since', '?')}: wait for it, or use "
                "another --out."
            )
        self._file = file
        self._since = datetime.now().isoformat(sep=" ", timespec="seconds")
        self.beat()
        return self

    def beat(self) -> None:
        """Show that the holder lives; to be called again and again, writes only now and then."""
        if self._file is not None and time.monotonic() - self._beaten > _BEAT_S:
            self._beaten = time.monotonic()
            self._file.seek(0)
            self._file.truncate()
            json.dump({"process": os.getpid(), "machine": platform.node(), "since": self._since}, self._file)
            self._file.flush()

    def __exit__(self, *exception: object) -> None:
        if self._file is not None:
            self._file.seek(0)
            self._file.truncate()  # the file stays: one that is removed could be locked twice
            self._file.close()
            self._file = None


def _read(file: IO[str]) -> dict[str, Any]:
    try:
        content = json.load(file)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _take(file: IO[str]) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
