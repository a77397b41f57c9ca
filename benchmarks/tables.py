"""Medians of jobs that take turns, and tables of them."""

from __future__ import annotations

import csv
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path


def timed(job: Callable[[], object]) -> float:
    """:return: milliseconds of processor time that one call takes"""
    begin = time.process_time()
    job()
    return 1000.0 * (time.process_time() - begin)


def medians(jobs: Mapping[str, Callable[[], object]], seconds: float, max_rounds: int) -> tuple[dict[str, float], int]:
    """
    :param jobs: what to time, by name
    :param seconds: measuring time, about
    :param max_rounds: greatest number of rounds; there are at least three
    :return: median milliseconds of processor time by name, and the number of rounds
    """
    for job in jobs.values():
        job()
    times = {name: [timed(job)] for name, job in jobs.items()}
    round_ms = sum(first for (first,) in times.values())
    rounds = max(3, min(max_rounds, int(1000.0 * seconds / max(round_ms, 1e-3))))
    for _ in range(rounds - 1):
        for name, job in jobs.items():
            times[name].append(timed(job))
    return {name: statistics.median(values) for name, values in times.items()}, rounds


def save_table(
    rows: list[dict[str, object]], headings: dict[str, str], notes: list[str], folder: Path, name: str
) -> str:
    """
    :param rows: cells by column
    :param headings: printed heading by column, in order
    :param notes: lines above the table
    :param folder: where ``name.csv`` and ``name.md`` go
    :param name: of the table
    :return: the table as Markdown
    """

    def cell(value: object) -> str:
        return "" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)

    lines = [*notes, "", f"| {' | '.join(headings.values())} |", "|" + "---|" * len(headings)]
    lines += [f"| {' | '.join(cell(row.get(column)) for column in headings)} |" for row in rows]
    text = "\n".join(lines) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(headings))
        writer.writeheader()
        writer.writerows(rows)
    (folder / f"{name}.md").write_text(text, encoding="utf-8")
    return text
