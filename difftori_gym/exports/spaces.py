"""
Spaces as JSON of an untrusted file.

Unlike in Minari's text (``difftori_gym.il.formats.minari_layout``), bounds that are the same for every entry are one
number, as for images, infinite ones are words, and nothing is built before its size is known.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any

import numpy as np
from gymnasium import spaces

from difftori_gym.exports.settings import ListOf, Whole, unwritable
from difftori_gym.exports.strict_json import refusal

MIN_ENTRIES = 1 << 20
"""So many numbers an observation may have however small the file is: images of 590 x 590 pixels in three colours."""
_DTYPES = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32")
_WORDS = {"inf": np.inf, "-inf": -np.inf}
_SHAPE = ListOf(Whole(1), most=8)
_KEYS = {
    "Box": {"dtype", "shape", "low", "high"},
    "Discrete": {"n", "start"},
    "MultiDiscrete": {"nvec"},
    "MultiBinary": {"shape"},
}


def space_to_json(space: spaces.Space[Any], where: str) -> dict[str, Any]:
    """JSON of a space; a ``ValueError`` for a kind that is not known, or a key that cannot be read back."""
    if isinstance(space, spaces.Dict) and not any(isinstance(each, spaces.Dict) for each in space.spaces.values()):
        for key in space.spaces:
            if not _is_key(key):
                raise unwritable(where, "keys of 1 to 100 printable characters", key)
        entries = [[key, space_to_json(each, f"{where}[{key!r}]")] for key, each in space.spaces.items()]
        return {"type": "Dict", "entries": entries}
    if isinstance(space, spaces.Box) and str(space.dtype) in _DTYPES:
        bounds = {"low": _bound_to_json(space.low), "high": _bound_to_json(space.high)}
        return {"type": "Box", "dtype": str(space.dtype), "shape": list(space.shape), **bounds}
    if isinstance(space, spaces.Discrete):
        return {"type": "Discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1:
        return {"type": "MultiDiscrete", "nvec": space.nvec.tolist()}
    if isinstance(space, spaces.MultiBinary):
        return {"type": "MultiBinary", "shape": list(space.shape)}
    raise unwritable(where, "a Box, Discrete, MultiDiscrete, MultiBinary or one level of Dict", space)


def space_from_json(value: Any, where: str, budget: int) -> spaces.Space[Any]:
    """The space in JSON from a file; a ``ValueError`` if it is none, or one with too many numbers for ``budget``."""
    limit = max(budget, MIN_ENTRIES)
    if not isinstance(value, dict) or value.get("type") != "Dict":
        return _simple(value, where, limit)
    entries = value.get("entries")
    if set(value) != {"type", "entries"} or not isinstance(entries, list) or not 1 <= len(entries) <= 100:
        raise refusal(where, "1 to 100 entries", value)
    found: OrderedDict[str, spaces.Space[Any]] = OrderedDict()
    for entry in entries:
        if not isinstance(entry, list) or len(entry) != 2 or not _is_key(entry[0]) or entry[0] in found:
            raise refusal(where, "entries [key, space] with different keys", entry)
        found[entry[0]] = _simple(entry[1], f"{where}[{entry[0]!r}]", limit // len(entries))
    return spaces.Dict(found)


def _is_key(key: Any) -> bool:
    # isprintable is False for half of a surrogate pair, which cannot be printed in a message either.
    return isinstance(key, str) and 1 <= len(key) <= 100 and key.isprintable()


def _simple(value: Any, where: str, limit: int) -> spaces.Space[Any]:
    kind = value.get("type") if isinstance(value, dict) else None
    if not isinstance(kind, str) or kind not in _KEYS or set(value) != {"type", *_KEYS[kind]}:
        raise refusal(where, f"a space, one of {', '.join(_KEYS)}, with its keys", value)
    if kind == "Discrete":
        n, start = Whole(1).from_json(value["n"], f"{where}.n", limit), value["start"]
        return spaces.Discrete(n, start=Whole(-(2**31), 2**31).from_json(start, f"{where}.start", limit))
    if kind == "MultiDiscrete":
        sizes = ListOf(Whole(1), most=limit).from_json(value["nvec"], f"{where}.nvec", limit)
        if not 1 <= sum(sizes) <= limit:
            raise refusal(where, f"at most {limit} values in all", sum(sizes))
        return spaces.MultiDiscrete(sizes)
    shape = tuple(_SHAPE.from_json(value["shape"], f"{where}.shape", limit))
    if math.prod(shape) > limit:
        raise refusal(where, f"a number of entries of at most {limit}", "x".join(str(size)[:20] for size in shape))
    if kind == "MultiBinary":
        return spaces.MultiBinary(shape)
    return _box(value, shape, where)


def _box(value: dict[str, Any], shape: tuple[int, ...], where: str) -> spaces.Box:
    if not isinstance(value["dtype"], str) or value["dtype"] not in _DTYPES:
        raise refusal(where, f"a dtype of {', '.join(_DTYPES)}", value["dtype"])
    dtype = np.dtype(value["dtype"])
    low = _bound_from_json(value["low"], shape, dtype, f"{where}.low")
    high = _bound_from_json(value["high"], shape, dtype, f"{where}.high")
    if not (low <= high).all():
        raise refusal(where, "low <= high", "another order")
    return spaces.Box(low, high, shape, dtype.type)


def _bound_to_json(bound: np.ndarray) -> Any:
    flat = [each if np.isfinite(each) else str(each) for each in bound.flatten().tolist()]
    return flat[0] if flat and all(each == flat[0] for each in flat) else flat


def _bound_from_json(value: Any, shape: tuple[int, ...], dtype: np.dtype[Any], where: str) -> np.ndarray:
    size = int(np.prod(shape, dtype=np.int64))
    if isinstance(value, list) and len(value) != size:
        raise refusal(where, f"{size} numbers", f"{len(value)}")
    if isinstance(value, list):
        return np.array([_number(each, dtype, where) for each in value], dtype=dtype).reshape(shape)
    return np.full(shape, _number(value, dtype, where), dtype=dtype)


def _number(value: Any, dtype: np.dtype[Any], where: str) -> float:
    if dtype.kind == "f" and isinstance(value, str) and value in _WORDS:
        return _WORDS[value]
    if dtype.kind == "f" and type(value) in (int, float) and abs(value) <= float(np.finfo(dtype).max):
        return float(value)
    if dtype.kind in "iu" and type(value) is int and np.iinfo(dtype).min <= value <= np.iinfo(dtype).max:
        return value
    raise refusal(where, f"numbers that {dtype} can hold", value)
