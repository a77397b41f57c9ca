"""
Sixty small runs on a Ray cluster of three nodes on this machine, of which one is killed in the middle.

    python scripts/ray_trial.py --out results/ray-trial

The runs go through examples/compare.py, first with the local engine, then with Ray's. Exit code 0 if all runs are done,
both tables are equal row by row but for the seconds, some runs were started twice, and none of them trained more than
one interval between checkpoints twice. The node dies when half of the rows are there.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from ray.cluster_utils import Cluster

ROOT = Path(__file__).resolve().parents[1]
SECONDS = ("wall_s", "cpu_s", "plan_ms")


def command(values: argparse.Namespace, out: Path, *engine: str) -> list[str]:
    """:return: command line of a comparison"""
    seeds = [str(seed) for seed in range(values.runs // 2)]
    program = [sys.executable, str(ROOT / "examples/compare.py"), "--methods", "sac", "ppo", "--tasks", "Pendulum-v1"]
    small = ["--frames", str(values.frames), "--eval-freq", str(values.eval_freq), "--eval-episodes", "1", "--no-video"]
    return [*program, "--seeds", *seeds, *small, "--device", "cpu", "--out", str(out), *engine]


def rows_of(out: Path) -> list[dict[str, str]]:
    """:return: rows of the table without what a clock says"""
    with (out / "results.csv").open(newline="") as file:
        rows = [{key: text for key, text in row.items() if key not in SECONDS} for row in csv.DictReader(file)]
    return sorted(rows, key=lambda row: (row["method"], int(row["seed"]), int(row["frames"])))


def ports() -> dict[str, int]:
    """Ports for the agents of a node: it does not wait for them to choose, which takes too long on a busy machine."""
    names = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port", "runtime_env_agent_port")
    sockets = [socket.create_server(("", 0)) for _ in names]
    found = {name: each.getsockname()[1] for name, each in zip(names, sockets, strict=True)}
    for each in sockets:
        each.close()
    return found


def sessions(out: Path) -> dict[str, list[int]]:
    """:return: per run, the agent steps at which each of its processes began"""
    found = {}
    for path in out.glob("runs/*/sessions.json"):
        begun = json.loads(path.read_text(encoding="utf-8"))["sessions"]
        found[path.parent.name] = [session["from_step"] for session in begun]
    return found


def reached(out: Path) -> dict[str, int]:
    """:return: per run, the agent steps that it has told of"""
    return {
        path.parent.name: json.loads(path.read_text(encoding="utf-8"))["done"]
        for path in out.glob("runs/*/progress.json")
    }


def main() -> int:
    """:return: exit code"""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--frames", type=int, default=600)
    parser.add_argument("--eval-freq", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=2, help="of the local engine")
    parser.add_argument("--out", type=Path, default=Path("results/ray-trial"))
    values = parser.parse_args()
    out = values.out.resolve()
    begun = time.monotonic()
    subprocess.run(command(values, out / "local", "--jobs", str(values.jobs)), check=True)
    local_s = time.monotonic() - begun
    cluster = Cluster(initialize_head=True, head_node_args=dict(num_cpus=1, **ports()))
    mortal = [cluster.add_node(num_cpus=1, **ports()) for _ in range(2)]
    begun = time.monotonic()
    running = subprocess.Popen(
        command(values, out / "ray", "--engine", "ray", "--address", cluster.address), env=os.environ
    )
    here = rows_of(out / "local")
    while len(rows_of(out / "ray") if (out / "ray/results.csv").exists() else []) < len(here) // 2:
        assert running.poll() is None, "the comparison ended before a node could be killed"
        time.sleep(1.0)
    print("killing a node", flush=True)
    before = reached(out / "ray")
    cluster.remove_node(mortal[0], allow_graceful=False)
    code = running.wait()
    ray_s = time.monotonic() - begun
    cluster.shutdown()
    there = rows_of(out / "ray")
    begins = sessions(out / "ray")
    again = {name: steps for name, steps in begins.items() if len(steps) > 1}
    equal = "equal" if here == there else "DIFFERENT"
    print(f"{len(begins)} runs; local {local_s:.0f} s, ray {ray_s:.0f} s; {len(here)} and {len(there)} rows: {equal}")
    lost = {name: before.get(name, 0) - steps[-1] for name, steps in again.items()}
    print(f"began again, at these steps: {again}; steps trained twice: {lost}")
    whole = code == 0 and here == there and len(begins) == values.runs
    return 0 if whole and again and max(lost.values()) <= values.eval_freq else 1


if __name__ == "__main__":
    sys.exit(main())
