"""A small comparison of reinforcement learning, with a run of each state, films and names that look like markup."""

import json
from pathlib import Path

import numpy as np
import pytest

from difftori_gym.comparison.page import write_page
from difftori_gym.comparison.records import Results, Standing, read_records
from difftori_gym.comparison.results import Row, write_rows
from difftori_gym.comparison.run_record import Run

HOSTILE = "x</script><img src=x onerror=alert(1)>{{data}}&amp;"


def _evaluation(task="cheetah-run", method="sac", seed=0, frames=1000, score=100.0, **settings):
    base = dict(suite="dm_control", obs="state", demos=0, base="", variant="", steps=frames, episodes=10)
    times = dict(wall_s=frames / 100, cpu_s=frames / 200, dead_starts=0, plan_ms=None, n_action_steps=1)
    values = {**base, **times, "successes": None, **settings}
    return Row(task=task, method=method, seed=seed, frames=frames, episode_return=score, **values)


@pytest.fixture
def evaluation():
    """Makes a row."""
    return _evaluation


@pytest.fixture
def hostile():
    return HOSTILE


@pytest.fixture
def write(out):
    """Writes the page of some evaluations."""

    def write_them(rows, running=(), waiting=(), commands=(), **settings):
        return write_page(Results(out, rows, read_records(out, Standing(running, waiting)), commands), **settings)

    return write_them


@pytest.fixture
def rows():
    """Evaluations of three methods on three tasks with two seeds."""
    stream = np.random.default_rng(0)
    return [
        _evaluation(task, method, seed, frames, level * frames / 2000 + 50 * stream.random())
        for task in ("cheetah-run", "hopper-stand", HOSTILE)
        for method, level in (("difftori", 700), ("tdmpc", 500), ("sac", 300))
        for seed in (0, 1)
        for frames in (0, 1000, 2000)
    ]


def write_run(out: Path, row: Row, **files) -> None:
    """Its name is METHOD-cheetah-run-state-seedSEED."""
    settings = dict(suite=row.suite, task=row.task, obs=row.obs, method=row.method, seed=row.seed)
    run = Run(kind="rl", amount=2000, hyperparameters={"note": HOSTILE}, video=False, **settings)
    folder = out / "runs" / run.name
    run.write(folder)
    write_rows(folder / "results.csv", [row])
    session = {"started": "2026-11-27", "machine": "a machine", "commit": "abc", "versions": {"torch": "2.13.0"}}
    for file, content in {"sessions.json": {"sessions": [session]}, **files}.items():
        (folder / file).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


@pytest.fixture
def out(tmp_path, rows):
    """Runs on cheetah-run: SAC's and DiffTORI's are done, one of TD-MPC's is going on, the other died."""
    done = {"finished.json": {"amount": 2000, "plan_ms": 1.5, "update_ms": None, "film_error": None}}
    files = {
        ("tdmpc", 0): {"progress.json": {"stage": "train", "done": 1500, "evaluations": 2, "score": 1.0}},
        ("tdmpc", 1): {"traceback.txt": f"Traceback (most recent call last):\nRuntimeError: {HOSTILE}"},
    }
    for row in rows:
        if row.task == "cheetah-run" and row.frames == 2000:
            write_run(tmp_path, row, **files.get((row.method, row.seed), done))
    return tmp_path
