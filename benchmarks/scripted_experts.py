"""
How often the scripted experts succeed, within the length of a demonstration.

    python benchmarks/scripted_experts.py --episodes 10
    python benchmarks/scripted_experts.py --tasks robosuite/Lift robosuite/Can --episodes 10
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from pathlib import Path

from difftori_gym.collection import CollectionReport, CollectionSettings, collect, make_expert
from difftori_gym.envs import SUITES, parse_task


def success(task: str, episodes: int, steps: int | None) -> CollectionReport:
    """
    :param task: name for ``make_env``
    :param episodes: attempts, from seeds 0, 1, ...
    :param steps: steps of an episode; None: the collector's preset
    :return: how it went
    """
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        settings = CollectionSettings(
            task, Path(folder) / "set", episodes, keep_failures=True, max_steps=steps, steps_after_success=0
        )
        return collect(settings, make_expert(parse_task(task)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    paper = [f"metaworld/{task}" for task in SUITES["metaworld"].paper_tasks]
    parser.add_argument("--tasks", nargs="+", default=paper, help="default: the paper's 22 tasks of MetaWorld")
    parser.add_argument("--episodes", type=int, default=10, help="attempts per task, default: 10")
    parser.add_argument("--max-steps", type=int, default=None, help="default: 200 in MetaWorld")
    values = parser.parse_args()
    print("| task | solved |\n|---|---:|", flush=True)
    for task in values.tasks:
        report = success(task, values.episodes, values.max_steps)
        print(f"| {task} | {report.successes} of {report.attempts} |", flush=True)


if __name__ == "__main__":
    main()
