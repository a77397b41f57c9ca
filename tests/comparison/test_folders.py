"""Whole comparisons in one folder: held by one process, cut where an environment never ends, over without OpenGL."""

import json
import os
import platform
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from difftori_gym.comparison import ComparisonSettings, plan_runs
from difftori_gym.comparison.folder_lock import FolderHeldError, FolderLock
from difftori_gym.comparison.records import is_finished, read_finished
from difftori_gym.comparison.results import read_rows
from difftori_gym.comparison.training import do_run

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "compare.py"
QUICK = ["--set", "sac.learning_starts=50", "sac.batch_size=16", 'sac.policy_kwargs={"net_arch": [16]}']
SMALL = {"sac": dict(learning_starts=10, batch_size=4, policy_kwargs=dict(net_arch=[4]))}


class Endless(gym.Env):
    """Neither terminates nor is it truncated."""

    metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": 50}
    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        return np.zeros(2, np.float32), 1.0, False, False, {}

    def render(self):
        return np.full((16, 16, 3), 200, np.uint8)


if "Endless-v0" not in gym.registry:
    gym.register("Endless-v0", Endless)


def asked(out, **changes):
    fields = dict(
        methods=("sac",), tasks=("Endless-v0",), seeds=(0,), frames=20, out=out, eval_episodes=2, overrides=SMALL
    )
    return plan_runs(ComparisonSettings(**{**fields, **changes}))[0]


def test_an_environment_without_an_end_has_a_limit_that_is_said(tmp_path, caplog):
    pytest.importorskip("imageio")
    assert asked(tmp_path).env_kwargs["max_episode_steps"] == 1000
    assert (
        "gymnasium/Endless-v0 has no time limit: its episodes are cut after 1000 steps (--episode-steps)" in caplog.text
    )
    caplog.clear()
    run = asked(tmp_path, episode_steps=7)
    assert caplog.text == ""
    do_run(run, tmp_path / "runs" / run.name, lambda progress: None, nullcontext())
    assert [row.episode_return for row in read_rows(tmp_path / "runs" / run.name / "results.csv")][-1] == 7.0
    assert [path.name for path in (tmp_path / "videos").iterdir()] == [f"{run.name}.mp4"]
    assert "max_episode_steps" not in asked(tmp_path / "other", tasks=("Pendulum-v1",)).env_kwargs


def test_a_run_that_could_not_be_filmed_is_over(tmp_path, monkeypatch):
    def no_opengl(*arguments, **keywords):
        raise ValueError("no OpenGL here")

    monkeypatch.setattr("difftori_gym.comparison.training.record_video", no_opengl)
    run = asked(tmp_path, episode_steps=5)
    do_run(run, tmp_path / "runs" / run.name, lambda progress: None, nullcontext())
    finished = read_finished(tmp_path / "runs" / run.name)
    assert finished.film_error == "no OpenGL here"
    assert is_finished(run, tmp_path)
    assert not is_finished(replace(run, amount=40), tmp_path)
    # Nor is what was measured once measured again, which would train.
    monkeypatch.setattr("difftori_gym.comparison.training.update_ms", pytest.fail)
    do_run(run, tmp_path / "runs" / run.name, lambda progress: None, nullcontext())
    assert read_finished(tmp_path / "runs" / run.name) == finished


def test_a_folder_is_held_once_and_given_back(tmp_path):
    with FolderLock(tmp_path), pytest.raises(FolderHeldError, match=f"in use by process {os.getpid()} on .* since 20"):
        FolderLock(tmp_path).__enter__()
    with FolderLock(tmp_path):
        pass


@pytest.mark.parametrize(("age", "held"), [(5, True), (600, False)])
def test_a_holder_on_another_machine_is_believed_while_it_shows_that_it_lives(tmp_path, age, held):
    path = tmp_path / "comparison.lock"
    path.write_text(json.dumps({"process": 7, "machine": platform.node() + "-2", "since": "2026-11-27 12:00:00"}))
    os.utime(path, (time.time() - age, time.time() - age))
    if held:
        with pytest.raises(FolderHeldError, match=r"by process 7 on .*-2 since 2026-11-27 12:00:00: wait for it"):
            FolderLock(tmp_path).__enter__()
    else:
        with FolderLock(tmp_path):
            assert json.loads(path.read_text())["process"] == os.getpid()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "killpg"), reason="process groups")
def test_the_second_command_on_a_folder_says_who_holds_it_until_the_first_is_gone(tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, str(SCRIPT), "--methods", "sac", "--tasks", "Pendulum-v1", "--eval-episodes", "1"]
    command += ["--eval-freq", "100", "--no-video", "--out", str(out), *QUICK]
    first = subprocess.Popen(
        [*command, "--frames", "100000"], start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.time() + 240
    while not list(out.glob("runs/*/checkpoint-*/state.json")) and time.time() < deadline:
        time.sleep(0.1)
    second = subprocess.run([*command, "--frames", "100000"], capture_output=True, text=True, timeout=120)
    assert second.returncode == 2
    said = second.stderr.strip()
    assert said.startswith(f"compare: {out} is in use by process {first.pid} on {platform.node()} since ")
    assert "\n" not in said
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    steps = max(int(path.name[-9:]) for path in out.glob("runs/*/checkpoint-*"))
    assert subprocess.run([*command, "--frames", str(steps + 100)], capture_output=True, timeout=240).returncode == 0
