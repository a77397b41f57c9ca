"""Files that are either whole or not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from difftori_gym.checkpointing.files import atomic_file


def write_text(path: Path, text: str) -> None:
    """
    Write a file in one step, so that a reader or a killed process never meets half of it.

    :param path: file to write or replace
    :param text: its content
    """
    with atomic_file(path) as file:
        file.write(text.encode())


def read_json(path: Path) -> dict[str, Any]:
    """
    :param path: file with a json object
    :return: the object
    :raises ValueError: if it holds something else
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not readable as json: {error}. Remove it.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a json object, got {type(content).__name__}. Remove it.")
    return content
