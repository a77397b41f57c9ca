"""
Run examples/compare.py through every suite and kind of observation, a few steps each.

    python scripts/check_suites.py

Every row is one call of compare.py: training, two evaluations of one episode, checkpoint, table, report. Prints a
Markdown table and exits with 1 if a run died. Suites that are not installed are left out and said so.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from difftori_gym.envs import parse_task, task_action_repeat

COMPARE = Path(__file__).resolve().parents[1] / "examples" / "compare.py"
ALL = ("difftori", "difftori_nopg", "tdmpc", "sac", "td3", "ppo")
FEW = ("difftori", "sac")
#: small updates and quick plans: what is checked is that everything fits together
QUICK: dict[str, tuple[str, ...]] = {
    "difftori": ("learning_starts=20", "batch_size=8", "horizon=2", "planner_kwargs.max_iterations=2"),
    "difftori_nopg": ("learning_starts=20", "batch_size=8", "horizon=2", "planner_kwargs.max_iterations=2"),
    "tdmpc": (
        "learning_starts=20",
        "batch_size=8",
        "horizon=2",
        'planner_kwargs={"max_iterations": 1, "num_samples": 8, "num_elites": 4}',
    ),
    "drqv2": ("learning_starts=20", "batch_size=8"),
    "sac": ("learning_starts=20", "batch_size=8"),
    "td3": ("learning_starts=20", "batch_size=8"),
    "ppo": ("n_steps=32", "batch_size=16", "n_epochs=1"),
}


@dataclass(frozen=True)
class Row:
    """
    One call of compare.py.

    :param task: environment id
    :param obs: kind of observation
    :param methods: names of methods
    :param n_envs: training environments side by side
    """

    task: str
    obs: str
    methods: tuple[str, ...]
    n_envs: int = 1


ROWS = (
    Row("dm_control/cartpole-swingup", "state", ALL),
    Row("dm_control/cartpole-swingup", "pixels", (*ALL, "drqv2")),
    Row("dm_control/cartpole-swingup", "pointcloud", ALL),
    Row("metaworld/reach", "state", FEW),
    Row("metaworld/reach", "pixels", (*FEW, "drqv2")),
    Row("metaworld/reach", "pointcloud", FEW),
    Row("robosuite/Lift", "state", FEW),
    Row("robosuite/Lift", "pixels", (*FEW, "drqv2")),
    Row("robosuite/Lift", "pointcloud", FEW),
    Row("maniskill/PickCube", "state", FEW),
    Row("maniskill/PickCube", "pixels", FEW),
    Row("maniskill/PickCube", "pointcloud", FEW),
    Row("playground/CartpoleSwingup", "state", FEW, n_envs=8),
    Row("pusht/PushT", "state", FEW),
    Row("pusht/PushT", "pixels", (*FEW, "drqv2")),
    Row("Pendulum-v1", "state", ALL),
    Row("Pendulum-v1", "pixels", (*FEW, "drqv2")),
)


def compare(row: Row, steps: int, jobs: int, out: Path) -> subprocess.CompletedProcess[str]:
    """Run one row, ``steps`` agent steps of training, ``jobs`` methods side by side."""
    frames = steps * task_action_repeat(parse_task(row.task))
    quick = [f"{method}.{setting}" for method in row.methods for setting in QUICK[method]]
    command = [sys.executable, str(COMPARE), "--tasks", row.task, "--obs", row.obs, "--methods", *row.methods]
    command += ["--n-envs", str(row.n_envs), "--frames", str(frames), "--eval-freq", str(frames)]
    command += ["--eval-episodes", "1", "--no-video", "--jobs", str(jobs), "--out", str(out), "--set", *quick]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def evaluated(out: Path) -> dict[str, list[int]]:
    """Frames at which each method was evaluated."""
    frames: dict[str, list[int]] = {}
    if (out / "results.csv").exists():
        with (out / "results.csv").open(newline="") as file:
            for record in csv.DictReader(file):
                frames.setdefault(record["method"], []).append(int(record["frames"]))
    return frames


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=48, help="agent steps of training, default: 48")
    parser.add_argument("--jobs", type=int, default=1, help="methods side by side, default: 1")
    parser.add_argument("--only", default="", help="rows whose task or kind of observation contains this")
    parser.add_argument("--methods", nargs="+", choices=list(QUICK), default=list(QUICK), help="of those of a row")
    args = parser.parse_args()

    failed = False
    print("| task | `--obs` | `--n-envs` | trained, saved and evaluated | frames | seconds |")
    print("|---|---|---|---|---|---|", flush=True)
    for asked in ROWS:
        row = replace(asked, methods=tuple(method for method in asked.methods if method in args.methods))
        if not row.methods or args.only not in f"{row.task} {row.obs}":
            continue
        try:
            parse_task(row.task)
        except ImportError as error:
            print(f"left out {row.task}: {error}", file=sys.stderr)
            continue
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            done = compare(row, args.steps, args.jobs, Path(folder))
            frames = evaluated(Path(folder))
            whole = [method for method in row.methods if len(frames.get(method, [])) == 2]
            saved = [method for method in whole if list(Path(folder).glob(f"runs/{method}-*/checkpoint-*/model.zip"))]
            last = max((max(values) for values in frames.values()), default=0)
            seconds = time.perf_counter() - started
        cells = [row.task, row.obs, row.n_envs, ", ".join(saved), last, f"{seconds:.0f}"]
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)
        if done.returncode or len(saved) < len(row.methods):
            failed = True
            print(f"{row.task} from {row.obs} failed:\n{done.stderr[-3000:]}", file=sys.stderr, flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
