"""Files that are either whole or not there."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from difftori_gym.checkpointing.files import atomic_file

_Row = TypeVar("_Row")


def write_text(path: Path, text: str) -> None:
    """Write or replace a file in one step, so that a reader or a killed process never meets half of it."""
    with atomic_file(path) as file:
        file.write(text.encode())


def read_json(path: Path) -> dict[str, Any]:
    """:raises ValueError: if the file holds no json object"""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:  # neither JSON nor text
        raise ValueError(f"{path} is not readable as json: {error}. Use another --out.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a json object, got {type(content).__name__}. Use another --out.")
    return content


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write a csv file in one step; the values of each row are in the order of the columns."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_text(path, text.getvalue())


def read_table(path: Path, columns: Sequence[str], parse: Callable[[dict[str, str]], _Row]) -> list[_Row]:
    """
    :param path: csv file, which may be missing, and which a spreadsheet may have given a byte-order mark
    :param columns: names of its columns
    :param parse: makes a row of the texts by column
    :return: its rows, none when the file is missing
    :raises ValueError: if it has other columns, or a line does not hold them, naming it
    """
    if not path.exists():
        return []
    rows = []
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if list(reader.fieldnames or ()) != list(columns):
            raise ValueError(f"{path} must have the columns {','.join(columns)}, got {reader.fieldnames}.")
        for record in reader:
            try:
                if len(record) != len(columns) or None in record.values():
                    raise ValueError(f"expected {len(columns)} columns")
                rows.append(parse(record))
            except ValueError as error:
                raise ValueError(
                    f"{path}, line {reader.line_num}: expected {','.join(columns)}, got {list(record.values())} "
                    f"({error}). Correct or remove that line."
                ) from error
    return rows
