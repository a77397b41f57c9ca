"""A run is a command; what cannot start is told before, or dies by name; what both kinds of learning share."""

import json
import signal
import subprocess
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from difftori_gym.comparison import ComparisonSettings, Run, plan, plan_runs
from difftori_gym.comparison.compare import command_of
from difftori_gym.comparison.records import Results
from difftori_gym.comparison.report import write_report
from difftori_gym.comparison.results import Row, read_rows
from difftori_gym.comparison.training import do_run, plan_ms

SAC = dict(learning_starts=50, batch_size=16, policy_kwargs=dict(net_arch=[16]))
RL = dict(suite="gymnasium", task="Pendulum-v1", obs="state", demos=0, base="", variant="", steps=100, wall_s=1.0)
RL |= dict(cpu_s=1.0, episodes=4, dead_starts=0, plan_ms=None, n_action_steps=1)


def a_run(**changes):
    fields = dict(kind="rl", suite="gymnasium", task="Pendulum-v1", obs="state", method="sac", amount=2000)
    environment = dict(env_kwargs=dict(action_repeat=1, obs_kwargs={}), eval_freq=500, device="cpu", video=False)
    return Run(**{**fields, **environment, "hyperparameters": SAC, **changes})


def prepared(out, run):
    folder = out / "runs" / run.name
    run.write(folder)
    return folder


def scores(folder):
    return [(row.frames, row.episode_return) for row in read_rows(folder / "results.csv")]


@pytest.mark.slow
def test_a_run_that_is_interrupted_goes_on_as_if_it_had_not_been(tmp_path):
    run = a_run()
    whole, pieces = (prepared(tmp_path / name, run) for name in ("whole", "pieces"))
    process = subprocess.Popen(command_of(pieces))
    deadline = time.time() + 240
    while not list(pieces.glob("checkpoint-*/state.json")) and time.time() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=240) == 130
    assert json.loads((pieces / "progress.json").read_text())["stage"] in ("train", "evaluate")
    for folder in (whole, pieces):
        assert subprocess.run(command_of(folder), timeout=240).returncode == 0
    assert scores(whole) == scores(pieces)
    assert [frames for frames, _ in scores(whole)] == [0, 500, 1000, 1500, 2000]
    assert json.loads((whole / "progress.json").read_text())["evaluations"] == 5


@pytest.mark.slow
def test_a_run_that_dies_leaves_a_traceback(tmp_path):
    folder = prepared(tmp_path, a_run(hyperparameters={**SAC, "batch_size": -3}))
    assert subprocess.run(command_of(folder), timeout=240, capture_output=True).returncode == 1
    assert "negative dimensions are not allowed" in (folder / "traceback.txt").read_text()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"version": 7}, "is of version 7 of comparisons, expected 1. Use another --out."),
        ({"command": "", "sessions": []}, "is of version 0 of comparisons, expected 1. Use another --out."),
        ({"version": 1, "settings": {"frames": 3}}, "does not hold the settings of a run"),
        (None, "No such file"),
    ],
)
def test_what_is_no_run_of_this_version_is_one_line(tmp_path, content, message):
    folder = tmp_path / "runs" / "some"
    folder.mkdir(parents=True)
    if content is not None:
        (folder / "run.json").write_text(json.dumps(content))
    done = subprocess.run([*command_of(folder)], capture_output=True, text=True, timeout=240)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    if content is not None:
        with pytest.raises(ValueError, match=message):
            plan_runs(asked(tmp_path))


def asked(out, **changes):
    fields = dict(methods=("sac",), tasks=("Pendulum-v1",), seeds=(0,), frames=100, out=out)
    return ComparisonSettings(**{**fields, **changes})


def test_state_and_pixels_share_a_folder(tmp_path):
    pytest.importorskip("dm_control")
    names = [run.name for obs in ("state", "pixels") for run in plan_runs(asked(tmp_path, obs=obs))]
    assert names == ["sac-Pendulum-v1-state-seed0", "sac-Pendulum-v1-pixels-seed0"]


def test_many_tasks_are_planned_without_building_all_of_them(tmp_path, monkeypatch):
    pytest.importorskip("dm_control")
    built, make_env = [], plan.make_env
    monkeypatch.setattr(plan, "make_env", lambda id, **keywords: built.append(id) or make_env(id, **keywords))
    runs = plan_runs(asked(tmp_path, methods=("difftori", "tdmpc", "sac", "ppo"), tasks=("dm_control/paper",)))
    assert len(runs) == 4 * 15
    assert len(built) == 1


def test_a_run_that_cannot_start_says_why(tmp_path):
    pytest.importorskip("dm_control")
    first, second = plan_runs(asked(tmp_path, tasks=("dm_control/cartpole-swingup", "dm_control/lqr-lqr_2_1")))
    assert first.task == "cartpole-swingup"
    with pytest.raises(ValueError, match="lqr-lqr-2-1 expected finite action bounds"):
        do_run(second, prepared(tmp_path, second), lambda progress: None, pytest.fail)


def test_environments_of_imitation_are_checked_as_they_are_evaluated(tmp_path):
    pytest.importorskip("metaworld")
    settings = dict(frames=None, demos=1, methods=("bc",), tasks=("metaworld/reach",), obs="pixels")
    with pytest.raises(ValueError, match="Unknown obs_kwargs 'colour'"):
        plan_runs(asked(tmp_path, **settings, env_kwargs={"obs_kwargs": {"colour": True}}))


def test_plans_are_timed_by_the_processor_in_both_kinds():
    class Slow:
        device = SimpleNamespace(type="cpu")

        def predict(self, observation, **keywords):
            time.sleep(0.02)
            return observation, None

    env = SimpleNamespace(reset=lambda: np.zeros((1, 2)))
    assert all(plan_ms(Slow(), env, carry=carry, repeats=3) < 10.0 for carry in (True, False))


def test_reinforcement_learning_has_paired_differences_and_wilsons_interval(tmp_path):
    rows = []
    for task, shift in (("reach", 0.0), ("push", 100.0)):
        for seed in (0, 1):
            for method, gain in (("difftori", 30.0), ("sac", 0.0)):
                own = dict(task=task, seed=seed, method=method, suite="metaworld", successes=1 + seed)
                rows.append(Row(**{**RL, **own}, frames=200, episode_return=shift + 10 * seed + gain))
                # The one that went further is compared where the other is, too.
                if method == "sac":
                    rows.append(replace(rows[-1], frames=400, episode_return=9999.0))
    write_report(Results(tmp_path, rows, published=False))
    text = (tmp_path / "report.md").read_text()
    assert "| DiffTORI | SAC | 2 | 4 | 30.0 [30.0, 30.0] | return in metaworld |" in text
    assert text.count("| DiffTORI | SAC | 1 | 2 | 30.0 [30.0, 30.0] | return in metaworld |") == 2
    assert "| 37.5 [13.7, 69.4] |" in text  # 3 of 8 episodes
