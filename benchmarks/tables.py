"""Medians of jobs that take turns, their peak memory, and tables of them."""

from __future__ import annotations

import csv
import ctypes
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

Job = Callable[[], object]


def timed(job: Job, device: torch.device | None = None) -> float:
    """
    :param job: what to time
    :param device: where it runs, the CPU if None
    :return: milliseconds of one call: of processor time on a CPU, which on an idle machine is the time on the clock and
        on a busy one leaves out the waiting; on the clock elsewhere
    """
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
        begin = time.perf_counter()
        job()
        torch.cuda.synchronize(device)
        return 1000.0 * (time.perf_counter() - begin)
    begin = time.process_time()
    job()
    return 1000.0 * (time.process_time() - begin)


def medians(
    jobs: Mapping[str, Job], seconds: float, max_rounds: int, device: torch.device | None = None, min_rounds: int = 3
) -> tuple[dict[str, float], int]:
    """
    :param jobs: what to time, by name
    :param seconds: measuring time, about
    :param max_rounds: greatest number of rounds
    :param device: where they run, the CPU if None
    :param min_rounds: least number of rounds
    :return: median milliseconds by name, and the number of rounds
    """
    for job in jobs.values():
        job()
    times = {name: [timed(job, device)] for name, job in jobs.items()}
    round_ms = sum(first for (first,) in times.values())
    rounds = max(min_rounds, min(max_rounds, int(1000.0 * seconds / max(round_ms, 1e-3))))
    for _ in range(rounds - 1):
        for name, job in jobs.items():
            times[name].append(timed(job, device))
    return {name: statistics.median(values) for name, values in times.items()}, rounds


def peak_memory(job: Job, device: torch.device) -> float | None:
    """
    :param job: what to run once
    :param device: where it runs
    :return: MiB that it needed at most beyond what was there before: of resident memory on a CPU (Linux), of allocated
        memory on a GPU; None where that cannot be told
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        job()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # what earlier jobs left behind would hide what this one needs
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # sets the peak back
        before = _status("VmRSS")
        job()
        return (_status("VmHWM") - before) / 1024
    except OSError:
        return None


def _status(field: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(f"{field}:")))  # in KiB


def machine(device: torch.device) -> str:
    """:return: one line that names device and versions"""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()}, one thread"
    versions = [f"torch {torch.__version__}"]
    with suppress(PackageNotFoundError):
        versions.append(f"theseus-ai {version('theseus-ai')}")
    return f"{name}; {', '.join(versions)}."


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
        return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)

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
