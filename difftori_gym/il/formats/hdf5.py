"""HDF5 files with errors that name the file. The only module that imports h5py."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

Group = Any  # h5py.Group; h5py has no types


@contextlib.contextmanager
def open_hdf5(path: Path, mode: Literal["r", "a", "w-"] = "r") -> Iterator[Group]:
    """
    Open a file to read (``r``), to read and write (``a``) or new (``w-``), and close it at the end.

    A ``ValueError`` if there is none or it is not a whole HDF5 file, an ``ImportError`` without h5py.
    """
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise ImportError('HDF5 files need the package h5py. Run: pip install "difftori-gym[imitation]"') from error
    if mode == "r" and not path.is_file():
        raise ValueError(f"{path}: expected a file, found none.")
    try:
        file = h5py.File(path, mode)
    except OSError as error:
        raise ValueError(
            f"{path}: expected a whole HDF5 file, got one that does not open ({error}). {_remedy(path, error)}"
        ) from error
    with file:
        yield file


def _remedy(path: Path, error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "Make it readable."
    if isinstance(error, BlockingIOError):
        return "A program has it open to write: wait until it has ended."
    with path.open("rb") as file:
        if file.read(20).startswith(b"version https://git-"):
            return "It is a pointer of Git LFS: run git lfs pull."
    return "It may be truncated: fetch it again, or collect it again."


def read_array(group: Group, name: str, where: str) -> np.ndarray:
    """The values of the dataset ``name``; a ``ValueError`` that begins with ``where`` if they cannot be read."""
    if name not in group or not hasattr(group[name], "shape"):
        above = name.rpartition("/")[0]
        beside = group.get(above, group)
        beside = beside if hasattr(beside, "keys") else group
        found = "a group of that name" if name in group else ", ".join(sorted(beside)) or "nothing"
        raise ValueError(f"{where}: expected a dataset {name!r}, got {found}.")
    try:
        return np.asarray(group[name][()])
    except OSError as error:
        raise ValueError(
            f"{where}: cannot read {name!r} ({error}). The file may be damaged: fetch it again."
        ) from error


def write_variable_bytes(group: Group, name: str, rows: list[np.ndarray]) -> None:
    """A dataset of arrays of bytes, each of its own length."""
    import h5py

    dataset = group.create_dataset(name, (len(rows),), dtype=h5py.vlen_dtype(np.uint8))
    for index, row in enumerate(rows):
        dataset[index] = row


def text_of(value: Any) -> str:
    """A string attribute, which some writers store as bytes."""
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def seed_of(group: Group) -> int | None:
    """Attribute ``seed`` of an episode; None without one, or where a writer stored Python's ``None`` as text."""
    seed = group.attrs.get("seed")
    return None if seed is None or text_of(seed) == "None" else int(seed)


def length_of(group: Group) -> int | None:
    """Number of an episode's actions, None if it holds no array of them."""
    actions: Any = group.get("actions") if hasattr(group, "get") else None
    return len(actions) if getattr(actions, "shape", ()) else None
