"""Descriptions in JSON that lie beside files of arrays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_description(path: Path, what: str) -> dict[str, Any]:
    """
    :param path: a file of JSON, with or without a byte-order mark
    :param what: what it ought to hold, for the error message
    :return: the object in it
    :raises ValueError: if there is none that can be read
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:  # ValueError: neither JSON nor text
        raise ValueError(f"{path}: expected {what} in JSON, got none that can be read ({error}).") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path}: expected {what} as a JSON object, got {type(found).__name__}.")
    return found
