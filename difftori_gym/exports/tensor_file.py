"""
Tensors and one JSON text in one file, in the safetensors format.

A safetensors file is the length of a header (8 bytes, little-endian), the header (JSON: name -> dtype, shape, offsets;
texts under ``__metadata__``), and the bytes of the tensors. Any safetensors reader opens what is written here, and this
reader opens any safetensors file that keeps to what is below. It is a reader of its own because the header has to be
checked against the settings before a tensor is read, and checked more strictly: the safetensors package takes a header
that names a tensor twice.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from difftori_gym.exports import strict_json
from difftori_gym.exports.refusal import refusal

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
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_METADATA = "__metadata__"
_ENTRY = {"dtype", "shape", "data_offsets"}


@dataclass(frozen=True)
class TensorEntry:
    """
    One tensor of a file.

    :param dtype: its type
    :param shape: its shape
    :param begin: first byte, counted from the end of the header
    :param num_bytes: how many follow
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    num_bytes: int


@dataclass(frozen=True)
class TensorFile:
    """
    The checked header of a file.

    :param path: where it lies
    :param text: what stands under the key it was opened with
    :param entries: the tensors, by name
    :param data_start: bytes before the first tensor
    :param num_bytes: size of the file
    """

    path: Path
    text: bytes
    entries: Mapping[str, TensorEntry]
    data_start: int
    num_bytes: int

    def read(self) -> dict[str, Tensor]:
        """
        :return: the tensors, by name
        :raises ValueError: if the file has become shorter, or a number is nan or infinite
        """
        tensors = {}
        with self.path.open("rb") as file:
            for name, entry in self.entries.items():
                file.seek(self.data_start + entry.begin)
                data = bytearray(entry.num_bytes)
                if file.readinto(data) != entry.num_bytes:
                    raise refusal(str(self.path), f"{self.num_bytes} bytes", "fewer")
                tensor = torch.frombuffer(data, dtype=entry.dtype) if data else torch.empty(0, dtype=entry.dtype)
                if not torch.isfinite(tensor).all():
                    raise refusal(f"{self.path}: tensor {name[:60]!r}", "finite numbers", "nan or infinity")
                tensors[name] = tensor.view(entry.shape)
        return tensors


def write_tensor_file(path: Path, key: str, text: str, tensors: Mapping[str, Tensor]) -> None:
    """
    Write in one step: the file appears under its name when it is complete and on the disk.

    :param path: file
    :param key: name of the text
    :param text: JSON
    :param tensors: by name
    :raises ValueError: if a number is nan or infinite, a type cannot be written, or the header is too long
    """
    header: dict[str, Any] = {_METADATA: {key: text}}
    arrays, begin = [], 0
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(
                f"export expects finite weights, got nan or infinity in {name!r}: the model has diverged, export an "
                "earlier checkpoint."
            )
        if tensor.dtype not in _NAMES:
            raise ValueError(f"export writes {', '.join(map(str, _NAMES))}, got {tensor.dtype} in {name!r}: cast it.")
        array = np.ascontiguousarray(tensor.detach().cpu().numpy())
        arrays.append(array)
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, begin + array.nbytes],
        }
        begin += array.nbytes
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)  # numbers then begin at a multiple of their size, as safetensors has it
    if len(encoded) > MAX_HEADER:
        raise ValueError(
            f"export writes headers of at most {MAX_HEADER} bytes, got {len(encoded)}: observation spaces whose bounds "
            "differ from entry to entry take the most; use one bound for all entries of an image or a cloud."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with unfinished.open("wb") as file:
            file.write(len(encoded).to_bytes(8, "little") + encoded)
            for array in arrays:
                file.write(array.tobytes())
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def open_tensor_file(path: Path, key: str) -> TensorFile:
    """
    Read and check the header, and nothing else.

    :param path: file
    :param key: name of the text
    :return: what the file says it holds, which is what its size allows
    :raises ValueError: if it is no such file
    """
    where = str(path)
    try:
        with open(path, "rb", opener=_open_regular) as file:
            size = os.fstat(file.fileno()).st_size
            encoded = _read_header(file, size, where)
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"{where}: expected a file that can be read, got {error.strerror}.") from error
    header = strict_json.parse(encoded, where)
    metadata = header.pop(_METADATA, None)
    text = metadata.get(key) if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise refusal(where, f"a description under {key!r} in its header", metadata)
    entries = {name: _entry(value, f"{where}: tensor {name[:60]!r}") for name, value in header.items()}
    start = 8 + len(encoded)
    _check_layout(entries, size - start, where)
    return TensorFile(path, text.encode("utf-8", "replace"), entries, start, size)


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


def _entry(value: Any, where: str) -> TensorEntry:
    if not isinstance(value, dict) or set(value) != _ENTRY:
        raise refusal(where, f"the keys {sorted(_ENTRY)}", value)
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise refusal(where, f"a dtype of {', '.join(DTYPES)}", dtype)
    if not _counts(shape) or len(shape) > 8:
        raise refusal(where, "a shape of at most 8 whole numbers >= 0", shape)
    if not _counts(offsets) or len(offsets) != 2:
        raise refusal(where, "two offsets", offsets)
    num_bytes = math.prod(shape) * DTYPES[dtype].itemsize
    if offsets[1] - offsets[0] != num_bytes:
        raise refusal(where, f"{str(num_bytes)[:40]} bytes for its shape and dtype", offsets)
    return TensorEntry(DTYPES[dtype], tuple(shape), offsets[0], num_bytes)


def _counts(value: Any) -> bool:
    # type() and not isinstance: a bool is an int. 2**63 and more is nothing that torch could count.
    return isinstance(value, list) and all(type(each) is int and 0 <= each < 1 << 63 for each in value)


def _check_layout(entries: Mapping[str, TensorEntry], data_bytes: int, where: str) -> None:
    """The tensors fill the rest of the file, without gaps and without sharing a byte."""
    expected = 0
    for entry in sorted(entries.values(), key=lambda entry: (entry.begin, entry.num_bytes)):
        if entry.begin != expected:
            raise refusal(where, f"a tensor from byte {expected} on", entry.begin)
        expected += entry.num_bytes
    if expected != data_bytes:
        raise refusal(where, f"{expected} bytes of tensors", data_bytes)
