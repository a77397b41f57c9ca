"""Files and folders that are either whole or not there, whatever kills the process that writes them."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

# Followed by the number of the process and the final name. A name with this start is never read.
_UNFINISHED = ".unfinished-"


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """
    Fill a folder beside its place, write it through to the disk, and move it there in one step.

    :param path: folder to be made; one that is there already is replaced
    :return: where to write, inside a ``with`` block
    :raises OSError: if it cannot be written, naming folder, cause and remedy; ``path`` is then as it was
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = _beside(path)
    with _explained(path, unfinished):
        _remove(unfinished)
        unfinished.mkdir()
        yield unfinished
        for file in unfinished.iterdir():
            _sync(file)
        _sync(unfinished)
        discard(path)
        unfinished.replace(path)
        _sync(path.parent)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """
    Write a file beside its place, through to the disk, and move it there in one step.

    :param path: file to write or replace
    :return: the open file, inside a ``with`` block
    :raises OSError: if it cannot be written, naming file, cause and remedy; ``path`` is then as it was
    """
    unfinished = _beside(path)
    with _explained(path, unfinished):
        with unfinished.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
        _sync(path.parent)


def discard(path: Path) -> None:
    """Remove a folder, if it is there, so that nobody ever sees a part of it."""
    if path.exists():
        removed = _beside(path.with_name(f"{path.name}-removed"))
        _remove(removed)
        path.replace(removed)
        _remove(removed)


def discard_unfinished(directory: Path) -> list[Path]:
    """Remove what processes left in a folder that were killed while they wrote; returns what was removed."""
    found = sorted(directory.glob(f"{_UNFINISHED}*"))
    for path in found:
        _remove(path)
    return found


def _beside(path: Path) -> Path:
    return path.with_name(f"{_UNFINISHED}{os.getpid()}-{path.name}")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _explained(path: Path, unfinished: Path) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        _remove(unfinished)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise OSError(
                error.errno,
                f"Expected room to write {path}, got: {error.strerror}. Nothing was replaced: what was written there "
                "before is whole. Make room and start again from it",
            ) from error
        raise
