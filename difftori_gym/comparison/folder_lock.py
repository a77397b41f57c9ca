"""One comparison at a time in a folder, also where several machines see the folder."""

from __future__ import annotations

import json
import os
import platform
import time
from datetime import datetime
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows: what the file says has to do
    fcntl = None  # type: ignore[assignment]

# A holder on another machine, where locks may not reach, shows that it lives by writing the time.
_BEAT_S, _DEAD_S = 20.0, 120.0


class FolderHeldError(ValueError):
    """Another process works in the folder; the message names it."""


class FolderLock:
    """Held inside a ``with`` block; the folder is made. A holder that died, here or elsewhere, is recognised."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> FolderLock:
        """:raises FolderHeldError: if another process holds the folder"""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._file = (self.folder / "comparison.lock").open("a+", encoding="utf-8")
        self._file.seek(0)
        try:
            holder = dict(json.load(self._file))
        except (ValueError, TypeError):  # nobody, or half a text
            holder = {}
        age = time.time() - os.fstat(self._file.fileno()).st_mtime
        elsewhere = holder.get("machine") not in (None, platform.node())
        if not take(self._file) or (elsewhere and age < _DEAD_S):
            self._file.close()
            raise FolderHeldError(
                f"{self.folder} is in use by process {holder.get('process', '?')} on "
                f"{holder.get('machine', 'this machine')} since {holder.get('since', '?')}: wait for it, or use "
                "another --out."
            )
        self._since = datetime.now().isoformat(sep=" ", timespec="seconds")
        self._beaten = -_BEAT_S
        self.beat()
        return self

    def beat(self) -> None:
        """Show that the holder lives; to be called again and again, writes only now and then."""
        if time.monotonic() - self._beaten > _BEAT_S:
            self._beaten = time.monotonic()
            self._write(json.dumps({"process": os.getpid(), "machine": platform.node(), "since": self._since}))

    def _write(self, text: str) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._file.write(text)
        self._file.flush()

    def __exit__(self, *exception: object) -> None:
        self._write("")  # the file stays: one that is removed could be locked twice
        self._file.close()


def take(file: IO[str]) -> bool:
    """Lock a file until it is closed, if no other process has; True where there are no locks."""
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True
