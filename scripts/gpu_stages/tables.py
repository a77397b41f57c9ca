"""Tables that grow row by row, and are gone on with."""

from __future__ import annotations

import csv
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from difftori_gym.comparison.files import write_table, write_text


class Table:
    """
    Rows of a stage, on the disk as soon as they are measured, as ``NAME.csv`` and ``NAME.md``.

    Rows that are there already, of an earlier call or of another machine, stay.

    :param folder: where it lies
    :param name: its name
    :param keys: columns that tell what was measured
    :param values: columns of what came out
    :param copies: further folders that it is copied to
    """

    def __init__(
        self, folder: Path, name: str, keys: Sequence[str], values: Sequence[str], copies: Sequence[Path] = ()
    ) -> None:
        self.path = folder / f"{name}.csv"
        self.keys, self.columns, self.copies = tuple(keys), (*keys, *values), tuple(copies)
        self.rows = _read(self.path, self.columns)

    def has(self, **key: Any) -> bool:
        """:return: whether a row with these keys is there"""
        wanted = {name: _cell(value) for name, value in key.items()}
        assert wanted.keys() <= set(self.keys)
        return any(all(row[name] == text for name, text in wanted.items()) for row in self.rows)

    def add(self, **row: Any) -> None:
        """Add a row; what is left out is empty."""
        assert row.keys() <= set(self.columns)
        self.rows.append({name: _cell(row.get(name)) for name in self.columns})
        self.write()
        print(f"{self.path.stem}: " + ", ".join(f"{name} {value}" for name, value in self.rows[-1].items()), flush=True)

    def write(self) -> None:
        """Bring the files up to date."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_table(self.path, self.columns, (row.values() for row in self.rows))
        lines = [f"| {' | '.join(self.columns)} |", "|" + "---|" * len(self.columns)]
        lines += [f"| {' | '.join(row.values())} |" for row in self.rows]
        write_text(self.path.with_suffix(".md"), "\n".join(lines) + "\n")
        for folder in self.copies:
            folder.mkdir(parents=True, exist_ok=True)
            for path in (self.path, self.path.with_suffix(".md")):
                shutil.copyfile(path, folder / path.name)


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.5g}" if isinstance(value, float) else str(value)


def _read(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != tuple(columns):
            raise ValueError(
                f"{path} has the columns {reader.fieldnames}, expected {list(columns)}: move it away, or give --work "
                "another folder."
            )
        return [{name: row[name] or "" for name in columns} for row in reader]


@dataclass
class Budget:
    """
    The time of a stage.

    :param seconds: from now on
    """

    seconds: float

    def __post_init__(self) -> None:
        self._end = time.monotonic() + self.seconds

    @property
    def left(self) -> float:
        """Seconds, never less than 0."""
        return max(self._end - time.monotonic(), 0.0)

    def allows(self, seconds: float) -> bool:
        """:return: whether something that takes so long may begin"""
        return self.left >= seconds
