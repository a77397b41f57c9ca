"""The same seed on the same machine: the same table, in this process or another, in one piece or several."""

import contextlib
import csv
import importlib.util
import json
import os
import shlex
import signal
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch

from difftori_gym.baselines import BC
from difftori_gym.checkpointing import TrainingInterrupted
from difftori_gym.comparison import Run, plan_runs
from difftori_gym.comparison.provenance import git_commit
from difftori_gym.comparison.training import do_run
from difftori_gym.il import Demonstrations, DiffTORIImitation, Episode

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["learning_starts=20", "batch_size=8", "horizon=2", "planner_kwargs.max_iterations=2", "buffer_size=1000"]
SMALL += ['policy_kwargs={"net_arch": [16]}']
METHODS = {
    "difftori": [*SMALL, "pg_batch_size=4"],
    "tdmpc": [*SMALL, "planner_kwargs.num_samples=16", "planner_kwargs.num_elites=4"],
}


@pytest.fixture(scope="module")
def compare():
    spec = importlib.util.spec_from_file_location("compare_example", ROOT / "examples" / "compare.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def arguments(method, out, frames, n_envs):
    common = ["--tasks", "dm_control/cartpole-swingup", "--eval-freq", "160", "--eval-episodes", "1", "--no-video"]
    changed = [f"{method}.{value}" for value in METHODS[method]]
    return ["--methods", method, *common, "--frames", str(frames), "--n-envs", str(n_envs), "--out", str(out),
            "--seeds", "3", "--device", "cpu", "--set", *changed]  # fmt: skip


def planned(compare, words):
    return compare.plan(compare.parse_arguments(words), plan_runs)[1]


def here(compare, method, out, *, frames=480, n_envs=1, report=lambda progress: None):
    """The run in this process; its table without times."""
    (run,) = planned(compare, arguments(method, out, frames, n_envs))
    directory = out / "runs" / run.name
    do_run(run, directory, report, contextlib.nullcontext())
    return rows(directory / "results.csv")


def rows(path):
    with path.open(newline="") as file:
        return [{key: row[key] for key in row if key not in ("wall_s", "cpu_s")} for row in csv.DictReader(file)]


@pytest.mark.parametrize("method", list(METHODS))
def test_one_environment_in_another_process(compare, method, tmp_path):
    assert compare.main(arguments(method, tmp_path / "other", 480, 1)) == 0
    np.random.seed(7)  # what came before in this process has no effect
    torch.manual_seed(7)
    table = here(compare, method, tmp_path / "here")
    assert rows(tmp_path / "other" / "results.csv") == table
    assert [int(row["frames"]) for row in table] == [0, 160, 320, 480]
    assert len({row["episode_return"] for row in table}) > 1  # it learned something that could differ


@pytest.mark.parametrize("method", list(METHODS))
def test_several_environments_in_one_piece_or_two(compare, method, tmp_path):
    whole = here(compare, method, tmp_path / "whole", n_envs=2)
    here(compare, method, tmp_path / "pieces", n_envs=2, frames=320)
    pieces = here(compare, method, tmp_path / "pieces", n_envs=2, frames=480)
    assert pieces == whole
    (record,) = tmp_path.glob("pieces/runs/*/sessions.json")
    sessions = json.loads(record.read_text())["sessions"]
    assert [(session["from_step"], session["begins_anew"]) for session in sessions] == [(0, ""), (80, "")]


@pytest.mark.parametrize("method", list(METHODS))
def test_sigterm_between_two_evaluations_leaves_a_checkpoint_and_no_trace_in_the_table(compare, method, tmp_path):
    whole = here(compare, method, tmp_path / "whole")

    def end(progress):
        if progress.done == 400:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(TrainingInterrupted, match=r"SIGTERM ended .* after 400 frames"):
        here(compare, method, tmp_path / "ended", report=end)
    assert [path.name for path in tmp_path.glob("ended/runs/*/checkpoint-*")] == ["checkpoint-000000100"]
    assert here(compare, method, tmp_path / "ended") == whole


def test_a_run_says_where_it_came_from_and_how_it_is_repeated(compare, tmp_path):
    here(compare, "difftori", tmp_path, frames=40)
    (record,) = tmp_path.glob("runs/*/run.json")
    content = json.loads(record.read_text())
    (session,) = json.loads((record.parent / "sessions.json").read_text())["sessions"]
    assert {"python", "torch", "stable-baselines3", "numpy"} <= set(session["versions"])
    assert "cores" in session["machine"]
    assert session["commit"] == git_commit()
    program, script, *words = shlex.split(content["command"])
    assert (program, script) == ("python", "examples/compare.py")
    (repeated,) = planned(compare, words)
    assert repeated == Run.read(record)


def test_the_commit_is_that_of_the_repository():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    assert len(git_commit().removesuffix("+changes")) == 40


def test_an_imitation_learner_ends_in_the_same_weights():
    env = gym.make("Pendulum-v1", max_episode_steps=20)
    env.action_space.seed(0)
    observations, actions = [env.reset(seed=0)[0]], [env.action_space.sample() for _ in range(20)]
    observations += [env.step(action)[0] for action in actions]
    episode = Episode(np.array(observations), np.array(actions), np.zeros(20), False, True, seed=0)
    data = Demonstrations((episode,), env.observation_space, env.action_space, "Pendulum-v1")

    def trained(seed):
        common = dict(policy_kwargs=dict(net_arch=[16]), device="cpu", seed=seed)
        base = BC("MlpPolicy", None, data, **common).learn(20)
        model = DiffTORIImitation(
            "MlpPolicy", None, data, base_policy=base, planner_kwargs=dict(max_iterations=2), **common
        ).learn(20)
        return model.policy.state_dict()

    first, second, other = trained(3), trained(3), trained(4)
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert any(not torch.equal(value, other[name]) for name, value in first.items())
