"""
How long a policy takes to act from an ONNX file, beside torch's own predict.

    python benchmarks/deploy.py --out results/benchmarks

One thread, one observation at a time, 10 iterations. The median, the 99th percentile and the worst of all calls, on the
clock and of processor time: a robot's loop breaks on the worst, and on a busy machine the clock tells about the others.
Prints a table and saves it as ``deploy.md`` and ``deploy.csv``.
"""

from __future__ import annotations

import argparse
import platform
import runpy
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from gymnasium import spaces
from tables import save_table

from difftori_gym import DiffTORIPolicy
from difftori_gym.baselines.methods import get_method
from difftori_gym.exports import export_onnx
from difftori_gym.rl.planning import Planner
from difftori_gym.trajopt import TrajectoryOptimizer

DEPLOY = Path(__file__).resolve().parents[1] / "examples" / "deploy.py"
PAPER = dict(horizon=5, policy_kwargs=dict(net_arch={name: [512, 512] for name in ("pi", "qf", "dynamics", "reward")}))
LM = Planner(TrajectoryOptimizer(solver="lm", max_iterations=10))
MPPI = Planner(TrajectoryOptimizer(solver="mppi", min_std=0.05), init="warm", num_prior_samples=25)
#: Name -> the preset's task, None for the paper's sizes; observations, actions, planner.
CASES: dict[str, tuple[str | None, int, int, Planner]] = {
    "cart-pole": ("dm_control/cartpole-swingup", 5, 1, LM),
    "walker": ("dm_control/walker-walk", 24, 6, LM),
    "paper size": (None, 24, 6, LM),
    "TD-MPC, cart-pole": ("dm_control/cartpole-swingup", 5, 1, MPPI),
}
HEADINGS = {
    "case": "preset",
    "nodes": "operations",
    "mb": "MB",
    "cpu_10": "processor ms, 10th",
    "cpu_50": "50th",
    "cpu_99": "99th",
    "cpu_worst": "worst",
    "clock_10": "clock ms, 10th",
    "clock_50": "50th",
    "clock_99": "99th",
    "clock_worst": "worst",
    "torch_cpu_50": "torch, processor ms, 50th",
    "torch_clock_50": "clock ms, 50th",
}


def policy_of(case: str) -> DiffTORIPolicy:
    """A policy with random weights."""
    task, observations, actions, planner = CASES[case]
    found = PAPER if task is None else get_method("difftori").hyperparameters(task)
    torch.manual_seed(0)
    policy = DiffTORIPolicy(
        spaces.Box(-np.inf, np.inf, (observations,)),
        spaces.Box(-1.0, 1.0, (actions,)),
        lambda _: 1e-3,
        net_arch=found["policy_kwargs"]["net_arch"],
        horizon=found["horizon"],
        planner=planner,
    )
    with torch.no_grad():
        for parameter in policy.parameters():  # heads start at zero
            parameter.add_(0.02 * torch.randn_like(parameter))
    return policy


def durations(act: Callable[[np.ndarray], object], size: int, calls: int) -> tuple[np.ndarray, np.ndarray]:
    """Milliseconds of each call ``[calls]``: of processor time, on the clock."""
    rng = np.random.default_rng(0)
    observations = rng.standard_normal((64, size)).astype(np.float32)
    for observation in observations[:20]:
        act(observation)
    found = np.zeros((2, calls))
    for index in range(calls):
        observation = observations[index % len(observations)]
        processor, clock = time.process_time(), time.perf_counter()
        act(observation)
        found[:, index] = time.process_time() - processor, time.perf_counter() - clock
    return found[0] * 1e3, found[1] * 1e3


def measure(case: str, calls: int, torch_calls: int) -> dict[str, object]:
    """Row of one preset."""
    import onnx

    policy = policy_of(case)
    size = CASES[case][1]
    with tempfile.TemporaryDirectory() as folder:
        file = export_onnx(policy, Path(folder) / "policy.onnx")
        deployed = runpy.run_path(str(DEPLOY))["OnnxPolicy"](file)
        row: dict[str, object] = {"case": case, "nodes": len(onnx.load(file).graph.node)}
        row["mb"] = file.stat().st_size / 1e6
    few = max(1, calls // 10) if CASES[case][3] is MPPI else calls
    for name, times in zip(("cpu", "clock"), durations(deployed.predict, size, few), strict=True):
        row |= {
            f"{name}_10": float(np.quantile(times, 0.1)),
            f"{name}_50": float(np.median(times)),
            f"{name}_99": float(np.quantile(times, 0.99)),
            f"{name}_worst": float(times.max()),
        }
    processor, clock = durations(lambda o: policy.predict(o, deterministic=True), size, torch_calls)
    return row | {"torch_cpu_50": float(np.median(processor)), "torch_clock_50": float(np.median(clock))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"), help="folder for deploy.md and .csv")
    parser.add_argument("--calls", type=int, default=10_000, help="of a file; a tenth of it where planning samples")
    parser.add_argument("--torch-calls", type=int, default=300)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    args = parser.parse_args()

    torch.set_num_threads(1)
    versions = f"onnxruntime {version('onnxruntime')}, torch {torch.__version__}"
    notes = [f"{args.calls} calls; one thread, {platform.machine()}; {versions}."]
    rows, table = [], ""
    for case in args.cases:
        rows.append(measure(case, args.calls, args.torch_calls))
        table = save_table(rows, HEADINGS, notes, args.out, "deploy")
    print(table)


if __name__ == "__main__":
    main()
