"""Rows of a question, on the disk as soon as they are measured; those that are there are not measured again."""

from __future__ import annotations

import csv
from pathlib import Path

Cell = str | int | float
Row = dict[str, Cell]


class Table:
    """
    A csv file that grows.

    :param path: of the file; what it holds is read
    :param keys: columns that tell what was measured
    :param values: columns of what came out
    :raises ValueError: if the file has other columns
    """

    def __init__(self, path: Path, keys: tuple[str, ...], values: tuple[str, ...]) -> None:
        self.path, self.keys, self.columns = path, keys, (*keys, *values)
        self.rows: list[dict[str, str]] = []
        if path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                reader = csv.DictReader(file)
                self.rows = list(reader)
                if tuple(reader.fieldnames or ()) != self.columns:
                    raise ValueError(
                        f"{path} has the columns {reader.fieldnames}, expected {self.columns}: move it away."
                    )

    def of(self, **key: Cell) -> list[dict[str, str]]:
        """:return: rows with these cells"""
        return [row for row in self.rows if all(row[name] == _text(value) for name, value in key.items())]

    def replace(self, rows: list[Row], **key: Cell) -> None:
        """
        Put rows in the place of those with these cells, and print them.

        :param rows: what was measured, without ``key``
        """
        old = self.of(**key)
        new_rows = [{name: _text({**key, **row}[name]) for name in self.columns} for row in rows]
        self.rows = [row for row in self.rows if row not in old] + new_rows
        for row in new_rows:
            if row not in old:
                print(f"{self.path.stem}: " + ", ".join(f"{name} {text}" for name, text in row.items()), flush=True)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_suffix(".new")
        with new.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)
        new.replace(self.path)


def _text(value: Cell) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)
