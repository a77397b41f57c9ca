"""Spaces as the JSON text that Minari writes (minari/serialization.py of Minari 0.5.3)."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from gymnasium import spaces


def space_to_json(space: spaces.Space) -> str:
    """
    :param space: a ``Box`` or a ``Dict`` of such
    :return: its text
    """
    return json.dumps(_describe(space))


def space_from_json(text: str, where: str) -> spaces.Space:
    """
    :param text: of :func:`space_to_json` or of Minari
    :param where: the file, for error messages
    :return: the space
    :raises ValueError: if it is not a ``Box`` or a ``Dict`` of such
    """
    try:
        return _build(json.loads(text), where)
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{where}: expected a space as Minari writes it, got {text!s:.100} ({error!r}).") from error


def _describe(space: spaces.Space) -> dict[str, Any]:
    if isinstance(space, spaces.Dict):
        return {"type": "Dict", "subspaces": {key: _describe(entry) for key, entry in space.spaces.items()}}
    assert isinstance(space, spaces.Box)
    return {
        "type": "Box",
        "dtype": str(space.dtype),
        "shape": list(space.shape),
        "low": space.low.tolist(),
        "high": space.high.tolist(),
    }


def _build(description: dict[str, Any], where: str) -> spaces.Space:
    kind = description["type"]
    if kind == "Dict":
        return spaces.Dict({key: _build(entry, where) for key, entry in description["subspaces"].items()})
    if kind != "Box":
        raise ValueError(
            f"{where}: expected spaces made of Box and Dict, got {kind}: imitation here learns from arrays."
        )
    shape, dtype = tuple(description["shape"]), np.dtype(description["dtype"])
    low, high = (np.asarray(description[name], dtype=dtype).reshape(shape) for name in ("low", "high"))
    return spaces.Box(low, high, shape, dtype.type)
