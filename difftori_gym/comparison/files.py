"""Files that are either whole or not there."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, TypeVar

from difftori_gym.checkpointing.files import atomic_file

_Record = TypeVar("_Record")
_TYPES: dict[str, type] = {"str": str, "int": int, "float": float}


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
    writer.writerows((columns, *rows))
    write_text(path, text.getvalue())


def read_table(path: Path, record: type[_Record]) -> list[_Record]:
    """
    :param path: csv file, which may be missing, and which a spreadsheet may have given a byte-order mark
    :param record: dataclass whose fields are the columns: texts, numbers, and numbers that may be None
    :return: its lines, none when the file is missing
    :raises ValueError: if it has other columns, or a line does not hold them, naming it
    """
    columns = {column.name: column for column in fields(record)}  # type: ignore[arg-type]
    records: list[_Record] = []
    if not path.exists():
        return records
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        if (header := next(reader, [])) != list(columns):
            raise ValueError(f"{path} must have the columns {','.join(columns)}, got {header}.")
        for texts in filter(None, reader):
            try:
                values = {name: _value(columns[name], text) for name, text in zip(columns, texts, strict=True)}
            except ValueError as error:
                raise ValueError(
                    f"{path}, line {reader.line_num}: expected {','.join(columns)}, got {texts} ({error}). "
                    "Correct or remove that line."
                ) from error
            records.append(record(**values))
    return records


def _value(column: Field[Any], text: str) -> Any:
    kind = str(column.type)  # the text of its annotation
    return None if kind.endswith("| None") and not text else _TYPES[kind.split()[0]](text)
