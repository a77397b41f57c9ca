"""Stage e: updates from images of 84 x 84, and training from them as far as time goes."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from typing import Any

from difftori_gym import DiffTORI
from gpu_stages.planning import measured_updates
from gpu_stages.stage import ROOT, WALKER, Noise, Stage, filled, heads

TASKS = ("dm_control/finger-spin", "dm_control/cartpole-swingup")


def run(stage: Stage) -> None:
    """:param stage: what is measured with"""
    table = stage.table(
        "e_updates",
        ("size", "batch", "width", "horizon", "way"),
        ("updates_per_s", "ms", "waits_per_update", "waits_at", "peak_mib"),
    )
    size, batch, width = stage.choose((84, 256, 512), (36, 4, 16))
    for horizon in stage.choose((3, 5), (2,)):
        for manner in ("graph", "eager"):
            key = dict(size=size, batch=batch, width=width, horizon=horizon, way=manner)
            stage.row(table, lambda key=key: _update(stage, **key), 45.0, **key)
    if not stage.smoke:
        _train(stage)


def _update(stage: Stage, *, size: int, batch: int, width: int, horizon: int, way: str) -> dict[str, Any]:
    env = Noise(*WALKER, image=(9, size, size))
    arch = dict(net_arch=heads(width))
    steps = stage.choose(1500, 20)
    model = filled(DiffTORI, env, stage, steps, "CnnPolicy", policy_kwargs=arch, horizon=horizon)
    found = measured_updates(stage, model, batch, way)
    return {name: found[name] for name in ("updates_per_s", "ms", "waits_per_update", "waits_at", "peak_mib")}


def _train(stage: Stage) -> None:
    """Both tasks side by side by examples/compare.py, which goes on where it was."""
    seconds = stage.budget.left - 60.0  # to write checkpoints
    if seconds < 60.0:
        print("e_training: no time", flush=True)
        return
    out = stage.work / "pixels"
    command = [sys.executable, str(ROOT / "examples" / "compare.py"), "--methods", "difftori", "--tasks", *TASKS]
    command += ["--seeds", "0", "--obs", "pixels", "--frames", "500000", "--eval-freq", "20000", "--eval-episodes", "3"]
    command += ["--device", str(stage.device), "--jobs", "2", "--no-video", "--out", str(out)]
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=50.0)
        except subprocess.TimeoutExpired:
            process.kill()
    for name in ("results.csv", "report.md"):
        if (out / name).exists():
            shutil.copyfile(out / name, stage.out / f"e_training_{name}")
