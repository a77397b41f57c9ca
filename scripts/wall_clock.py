"""
When a planner pays: processor seconds to a share of the best return, by task and method, from rows of studies.

    python scripts/wall_clock.py fifteen norm_obs norm_obs_cheap

Prints a table. The best return of a task is the highest evaluation of any method and seed in these rows; the time is
that of the first evaluation which reaches the share, averaged over the seeds that do, and is left empty where one does
not. What several of the studies have is taken from the last one. Tasks that not all methods have are left out.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

from difftori_gym.baselines.methods import METHODS

DATA = Path(__file__).resolve().parents[1] / "docs" / "data"
SHARES = (0.5, 0.8, 0.95)
Curve = list[tuple[float, float]]  # return, processor seconds


def curves_of(studies: list[str]) -> dict[tuple[str, str], dict[int, Curve]]:
    """:return: curves by seed, of task and method, in the order of the studies"""
    found: dict[tuple[str, str], dict[int, Curve]] = {}
    for study in studies:
        with (DATA / f"{study}.csv").open(encoding="utf-8", newline="") as file:
            mine: dict[tuple[str, str], dict[int, Curve]] = {}
            for row in csv.DictReader(file):
                curve = mine.setdefault((row["task"], row["method"]), {}).setdefault(int(row["seed"]), [])
                curve.append((float(row["episode_return"]), float(row["cpu_s"])))
        found |= mine
    return found


def seconds_to(target: float, seeds: dict[int, Curve]) -> float | None:
    """:return: mean over seeds of the processor seconds to a return, None if a seed never has it"""
    times = [next((cpu_s for value, cpu_s in curve if value >= target), None) for curve in seeds.values()]
    reached = [each for each in times if each is not None]
    return sum(reached) / len(reached) if len(reached) == len(times) else None


def main(arguments: list[str]) -> int:
    """:return: exit code"""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="+", help="tables in docs/data")
    curves = curves_of(parser.parse_args(arguments).studies)
    methods = [name for name in METHODS["rl"] if any(method == name for _, method in curves)]
    labels = [METHODS["rl"][name].label for name in methods]
    print(f"| task | best return | {' | '.join(f'{label}: 50, 80, 95 %, s' for label in labels)} |")
    print(f"|---|---|{'---|' * len(methods)}")
    for task in dict.fromkeys(task for task, _ in curves):
        mine = {method: curves[task, method] for method in methods if (task, method) in curves}
        if len(mine) < len(methods):
            continue
        best = max(value for seeds in mine.values() for curve in seeds.values() for value, _ in curve)
        cells = []
        for method in methods:
            times = [seconds_to(share * best, mine[method]) for share in SHARES] if method in mine else []
            cells.append(", ".join("-" if time is None else f"{time:.0f}" for time in times))
        print(f"| {task} | {best:.0f} | {' | '.join(cells)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
