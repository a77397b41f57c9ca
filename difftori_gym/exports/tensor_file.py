"""
Tensors and one JSON text in one file, in the safetensors format.

In front of the safetensors package stand checks of what it would accept and must not be read from strangers: a header
that names a tensor twice, or of up to 100 MB, types that no policy has, numbers that are not finite, no regular file.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from difftori_gym.checkpointing.files import atomic_file
from difftori_gym.exports import strict_json
from difftori_gym.exports.strict_json import refusal

MAX_HEADER = 1 << 20
"""Greatest header in bytes; that of a policy has some ten thousand."""
DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
}
_METADATA = "__metadata__"


@dataclass(frozen=True)
class TensorFile:
    """A file of ``num_bytes`` whose header is checked: its text, and shape and type of each tensor by name."""

    path: Path
    text: bytes
    entries: Mapping[str, tuple[tuple[int, ...], torch.dtype]]
    num_bytes: int

    def read(self) -> dict[str, Tensor]:
        """The tensors; a ``ValueError`` if the file has changed meanwhile, or a number is nan or infinite."""
        try:
            with safe_open(self.path, "pt") as file:
                tensors = {name: file.get_tensor(name) for name in self.entries}
        except (SafetensorError, OSError) as error:
            raise refusal(str(self.path), "the file that was opened", str(error)) from error
        for name, tensor in tensors.items():
            if not torch.isfinite(tensor).all():
                raise refusal(f"{self.path}: tensor {name[:60]!r}", "finite numbers", "nan or infinity")
        return tensors


def write_tensor_file(path: Path, key: str, text: str, tensors: Mapping[str, Tensor]) -> None:
    """
    Write ``text`` under ``key``, and tensors, in one step: the file appears when it is complete and on the disk.

    A ``ValueError`` if a number is nan or infinite, a type cannot be written, or the header is too long.
    """
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(
                f"export expects finite weights, got nan or infinity in {name!r}: the model has diverged, export an "
                "earlier checkpoint."
            )
        if tensor.dtype not in DTYPES.values():
            known = ", ".join(map(str, DTYPES.values()))
            raise ValueError(f"export writes {known}, got {tensor.dtype} in {name!r}: cast it.")
    data = save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, {key: text})
    header = int.from_bytes(data[:8], "little")
    if header > MAX_HEADER:
        raise ValueError(
            f"export writes headers of at most {MAX_HEADER} bytes, got {header}: observation spaces whose bounds "
            "differ from entry to entry take the most; use one bound for all entries of an image or a cloud."
        )
    with atomic_file(path) as file:
        file.write(data)


def open_tensor_file(path: Path, key: str) -> TensorFile:
    """
    Read and check the header, and nothing else: what the file says it holds is what its size allows.

    :raises ValueError: if it is no such file
    """
    where = str(path)
    try:
        with open(path, "rb", opener=_open_regular) as file:
            size = os.fstat(file.fileno()).st_size
            header = strict_json.parse(_read_header(file, size, where), where)
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"{where}: expected a file that can be read, got {error.strerror}.") from error
    metadata = header.pop(_METADATA, None)
    text = metadata.get(key) if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise refusal(where, f"a description under {key!r} in its header", metadata)
    for name, entry in header.items():
        dtype = entry.get("dtype") if isinstance(entry, dict) else None
        if not isinstance(dtype, str) or dtype not in DTYPES:
            raise refusal(f"{where}: tensor {name[:60]!r}", f"a dtype of {', '.join(DTYPES)}", dtype)
    return TensorFile(path, text.encode("utf-8", "replace"), _entries(path, header), size)


def _entries(path: Path, header: Mapping[str, Any]) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Shapes and types, once safetensors has compared shapes, offsets and the size of the file with each other."""
    try:
        with safe_open(path, "pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise refusal(str(path), "tensors that fill the file by their shapes", str(error)) from error
    return {name: (shape, DTYPES[header[name]["dtype"]]) for name, shape in shapes.items()}


def _open_regular(path: str, flags: int) -> int:
    # Not to wait for the other end of a pipe.
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(0, "something that is no regular file")
    return descriptor


def _read_header(file: BinaryIO, size: int, where: str) -> bytes:
    prefix = file.read(8)
    length = int.from_bytes(prefix, "little")
    if len(prefix) < 8 or not 2 <= length <= min(size - 8, MAX_HEADER):
        raise refusal(where, f"a header of 2 to {min(max(size - 8, 2), MAX_HEADER)} bytes", length)
    encoded = file.read(length)
    if len(encoded) < length:
        raise refusal(where, f"a header of {length} bytes", len(encoded))
    return encoded
