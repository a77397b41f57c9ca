"""Results and checkpoints where nodes share no folder. Imports nothing of ours: sent to nodes by value."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

# Replaced in one step by these file systems; elsewhere a file is written beside its place and moved there.
_OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "memory"}
# What need not outlive a machine.
_LEFT_OUT = ("progress.json", "film.lock", "comparison.lock")
# Written last into a checkpoint: without it, the others are not read.
_RECORD = "state.json"


class Storage:
    """
    A copy of ``OUT``. A file arrives there after the files that were written before it, and a checkpoint's record after
    its data, so that whatever is killed leaves a whole state behind.

    :param uri: folder, as fsspec names it: ``s3://bucket/folder``, ``file:///folder``
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def _open(self) -> tuple[Any, str]:
        from fsspec.core import url_to_fs

        file_system, root = url_to_fs(self.uri)
        return file_system, str(root).rstrip("/")

    def fault(self) -> str:
        """:return: why it cannot be written, in one line; empty if it can"""
        try:
            file_system, root = self._open()
            path = f"{root}/.written-{uuid.uuid4().hex}"
            file_system.makedirs(root, exist_ok=True)
            file_system.pipe_file(path, b"written")
            found = file_system.cat_file(path)
            file_system.rm_file(path)
        except Exception as error:
            return " ".join(f"{type(error).__name__}: {error}".split())
        return "" if found == b"written" else "what was written cannot be read"

    def begin(self, out: Path, name: str) -> None:
        """Bring a run's settings, and all of it if nothing is there yet."""
        file_system, root = self._open()
        there = file_system.exists(f"{root}/runs/{name}/run.json")
        self._copy(out, {}, (out / "runs" / name).glob("run.json" if there else "**/*"))

    def save(self, out: Path, sent: dict[str, tuple[int, int]]) -> None:
        """
        Copy what is new beyond ``sent``, which is changed in place, then remove what is gone.

        :raises FileNotFoundError: if files went meanwhile; nothing is lost, call again
        """
        file_system, root = self._open()
        found = self._copy(out, sent, out.rglob("*"))
        for key in sorted(set(sent) - found, key=lambda key: not key.endswith(_RECORD)):
            with contextlib.suppress(FileNotFoundError):
                file_system.rm_file(f"{root}/{key}")
            del sent[key]
            with contextlib.suppress(OSError):  # where there are folders, the last file leaves an empty one
                file_system.rmdir(f"{root}/{key}".rpartition("/")[0])

    def _copy(self, out: Path, sent: dict[str, tuple[int, int]], paths: Iterable[Path]) -> set[str]:
        file_system, root = self._open()
        found = {}
        for path in paths:
            key = path.relative_to(out).as_posix()
            if path.is_file() and ".unfinished-" not in key and path.name not in _LEFT_OUT:
                state = path.stat()
                found[key] = state.st_mtime_ns, state.st_size
        for key in sorted(found, key=lambda key: (found[key][0], key.endswith(_RECORD))):
            if sent.get(key) != found[key]:
                self._put(file_system, out / key, f"{root}/{key}")
                sent[key] = found[key]
        return set(found)

    @staticmethod
    def _put(file_system: Any, source: Path, path: str) -> None:
        file_system.makedirs(path.rpartition("/")[0], exist_ok=True)
        protocol = file_system.protocol
        if _OBJECT_STORES.isdisjoint((protocol,) if isinstance(protocol, str) else protocol):
            file_system.put_file(str(source), f"{path}.unfinished-")
            file_system.mv(f"{path}.unfinished-", path)
        else:
            file_system.put_file(str(source), path)

    def load(self, out: Path, folders: Iterable[str], checkpoints: bool = True) -> dict[str, tuple[int, int]]:
        """Copy folders or single files to ``out`` as far as they are there; returns them for :meth:`save`."""
        file_system, root = self._open()
        file_system.invalidate_cache()
        copied = {}
        for path in (path for folder in folders for path in file_system.find(f"{root}/{folder}")):
            key = path.removeprefix(f"{root}/")
            if ".unfinished-" in key or (not checkpoints and "/checkpoint-" in key):
                continue
            target = out / key
            target.parent.mkdir(parents=True, exist_ok=True)
            unfinished = target.with_name(f".unfinished-{target.name}")
            with contextlib.suppress(FileNotFoundError):  # replaced or removed meanwhile
                file_system.get_file(path, str(unfinished))
                unfinished.replace(target)
                copied[key] = target.stat().st_mtime_ns, target.stat().st_size
        return copied
