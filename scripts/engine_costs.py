"""
How long engines take to start and follow runs that do nothing.

    python scripts/engine_costs.py --engines local ray
    sh scripts/slurm_trial.sh python python scripts/engine_costs.py --engines slurm

A run is a Python program that ends at once, four side by side where the engine may choose. Seconds include what the
engine needs to start: of Ray, a cluster on this machine. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from difftori_gym.comparison.engines import ENGINES, EngineOptions, Job, make_engine

SLURM = {"partition": "trial", "time": "10", "mem": "100MB"}


def seconds(name: str, count: int, out: Path) -> tuple[float, float]:
    """:return: until the first run has ended, and until all have"""
    options = EngineOptions(
        jobs=4,
        out=out,
        cpus_per_run=0.5 if name == "ray" else None,
        slurm=SLURM if name == "slurm" else {},
    )
    waiting = []
    for number in range(count):
        folder = out / "runs" / f"empty-{number}"
        folder.mkdir(parents=True)
        waiting.append(Job(folder.name, folder, (sys.executable, "-ISc", "")))
    begun, first, ended, active = time.monotonic(), 0.0, 0, 0
    with make_engine(name, options) as engine:
        while ended < count:
            while waiting and (engine.slots is None or active < engine.slots):
                engine.submit(waiting.pop())
                active += 1
            for event in engine.watch(1.0):
                if event.kind == "ended":
                    assert event.exit_code == 0, event
                    active, ended = active - 1, ended + 1
                    first = first or time.monotonic() - begun
        return first, time.monotonic() - begun


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=["local", "ray"])
    parser.add_argument("--counts", nargs="+", type=int, default=[10, 100, 1000])
    values = parser.parse_args()
    print("| engine | empty runs | first ended, s | all ended, s | ms a run |\n|---|---|---|---|---|", flush=True)
    for name in values.engines:
        for count in values.counts:
            with tempfile.TemporaryDirectory(prefix="engine-costs-") as out:
                first, total = seconds(name, count, Path(out))
            each = 1000 * (total - first) / max(count - 1, 1)
            print(f"| {name} | {count} | {first:.1f} | {total:.1f} | {each:.0f} |", flush=True)


if __name__ == "__main__":
    main()
