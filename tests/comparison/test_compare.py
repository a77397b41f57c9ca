"""``examples/compare.py`` from the command line to the files, with real learners in real processes."""

import csv
import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stable_baselines3 import SAC

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "compare.py"
PENDULUM = ["--tasks", "Pendulum-v1", "--eval-episodes", "2"]
QUICK_SAC = ["--set", "sac.learning_starts=50", "sac.batch_size=16", 'sac.policy_kwargs={"net_arch": [16]}']
COLUMNS = ["suite", "task", "obs", "demos", "method", "base", "variant", "seed", "frames", "steps", "wall_s", "cpu_s"]
COLUMNS += ["episodes", "episode_return", "successes", "dead_starts", "plan_ms", "n_action_steps"]


@pytest.fixture(scope="module")
def main():
    spec = importlib.util.spec_from_file_location("compare_example", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def rows(out):
    with (out / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def frames_of(out, method, seed):
    return [int(row["frames"]) for row in rows(out) if row["method"] == method and row["seed"] == str(seed)]


@pytest.mark.slow
def test_a_comparison_leaves_table_figure_report_and_continues(main, tmp_path, capsys):
    out = tmp_path / "demo"
    quick_ppo = ["ppo.n_steps=100", "ppo.batch_size=50"]
    command = ["--methods", "sac", "ppo", *PENDULUM, "--seeds", "0", "1", "--jobs", "2", "--out", str(out)]
    command += [*QUICK_SAC, *quick_ppo]

    assert main([*command, "--frames", "200", "--eval-freq", "100"]) == 0
    table = rows(out)
    assert list(table[0]) == COLUMNS
    for method in ("sac", "ppo"):
        for seed in (0, 1):
            assert frames_of(out, method, seed) == [0, 100, 200]
    for row in table:
        assert row["steps"] == row["frames"]  # no action repeat here
        assert -2000 < float(row["episode_return"]) < 0
        assert row["successes"] == ""
        assert (float(row["wall_s"]) > 0) == (row["frames"] != "0")
    assert (out / "curves.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    report = (out / "report.md").read_text()
    for text in (
        "gymnasium/Pendulum-v1",
        "| SAC | 2 | 200 |",
        "| PPO | 2 | 200 |",
        "IQM",
        "plan ms",
        "stable-baselines3 ",
    ):
        assert text in report
    assert "python examples/compare.py --methods sac ppo" in report
    first = (out / "results.csv").read_bytes()

    # The same command again does nothing.
    started = time.time()
    assert main([*command, "--frames", "200", "--no-video"]) == 0
    assert "already there" in capsys.readouterr().err
    assert (out / "results.csv").read_bytes() == first
    assert max(path.stat().st_mtime for path in out.glob("runs/*/*/*")) < started

    # More frames continue one of the runs: what was there stays, to the digit.
    one = ["--methods", "sac", *PENDULUM, "--seeds", "0", "--out", str(out), *QUICK_SAC]
    assert main([*one, "--frames", "300", "--no-video"]) == 0
    longer = rows(out)
    assert [row for row in longer if int(row["frames"]) <= 200] == table
    assert frames_of(out, "sac", 0) == [0, 100, 200, 300]
    walls = [float(row["wall_s"]) for row in longer if row["method"] == "sac" and row["seed"] == "0"]
    assert walls == sorted(walls)

    # Other settings are refused.
    assert main([*command, "--frames", "300", "--no-video", "--set", "sac.gamma=0.5"]) == 2
    assert "gamma was None, now 0.5" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_that_dies_is_reported_and_the_others_finish(main, tmp_path, capsys):
    out = tmp_path / "dying"
    command = ["--methods", "sac", "ppo", *PENDULUM, "--frames", "60", "--no-video", "--out", str(out)]
    assert main([*command, "--set", "sac.learning_starts=10", "sac.batch_size=-3"]) == 1
    said = capsys.readouterr().err
    assert "sac-Pendulum-v1-state-seed0 died" in said
    assert "negative dimensions are not allowed" in said
    assert frames_of(out, "ppo", 0)[-1] == 60
    trace = (out / "runs" / "sac-Pendulum-v1-state-seed0" / "traceback.txt").read_text()
    assert "Traceback (most recent call last)" in trace
    assert "### sac-Pendulum-v1-state-seed0" in (out / "report.md").read_text()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "killpg"), reason="process groups")
def test_a_killed_comparison_leaves_readable_files_and_goes_on(main, tmp_path):
    out = tmp_path / "killed"
    arguments = [
        "--methods",
        "sac",
        *PENDULUM,
        "--frames",
        "2000",
        "--eval-freq",
        "100",
        "--no-video",
        "--out",
        str(out),
    ]
    arguments += QUICK_SAC
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), *arguments],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    run = out / "runs" / "sac-Pendulum-v1-state-seed0"
    deadline = time.time() + 120
    while not list(run.glob("checkpoint-*/state.json")) and time.time() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()

    (checkpoint,) = [path.parent for path in run.glob("checkpoint-*/state.json")]
    assert SAC.load(checkpoint / "model.zip", device="cpu").num_timesteps == int(checkpoint.name[-9:])
    with (run / "results.csv").open(newline="") as file:
        before = list(csv.DictReader(file))
    kept = [row for row in before if int(row["frames"]) <= int(checkpoint.name[-9:])]
    assert len(kept) >= 2

    assert main([*arguments, "--frames", str(int(checkpoint.name[-9:]) + 100)]) == 0
    after = rows(out)
    assert after[: len(kept)] == kept
    assert int(after[-1]["frames"]) == int(checkpoint.name[-9:]) + 100


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="children of a process in /proc")
def test_a_killed_run_is_named_and_the_same_command_goes_on(main, tmp_path):
    out = tmp_path / "killed-run"
    arguments = ["--methods", "sac", *PENDULUM, "--eval-freq", "100", "--no-video", "--out", str(out), *QUICK_SAC]
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), *arguments, "--frames", "100000"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    run = out / "runs" / "sac-Pendulum-v1-state-seed0"
    deadline = time.time() + 300
    while not list(run.glob("checkpoint-*/state.json")) and time.time() < deadline:
        time.sleep(0.05)
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert b"difftori_gym.comparison.run" in Path(f"/proc/{child}/cmdline").read_bytes()
    os.kill(int(child), signal.SIGKILL)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 1
    assert "sac-Pendulum-v1-state-seed0 died" in said
    assert "The process of sac-Pendulum-v1-state-seed0 (gymnasium/Pendulum-v1) was killed by SIGKILL" in said
    assert "was killed by SIGKILL" in (out / "report.md").read_text()

    (checkpoint,) = [path.parent for path in run.glob("checkpoint-*/state.json")]
    frames = int(checkpoint.name[-9:])
    kept = [row for row in rows(out) if int(row["frames"]) <= frames]
    assert SAC.load(checkpoint / "model.zip", device="cpu").num_timesteps == frames
    assert main([*arguments, "--frames", str(frames + 100)]) == 0
    assert rows(out)[: len(kept)] == kept
    assert int(rows(out)[-1]["frames"]) == frames + 100
    assert not (run / "traceback.txt").exists()


# imageio's reader leaves the pipes of its process to the garbage collector.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <_io.FileIO:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
def test_films_show_the_final_policies(main, tmp_path):
    pytest.importorskip("dm_control")
    iio = pytest.importorskip("imageio.v3")
    from difftori_gym.envs.rendering import gl_backend_works

    if not (gl_backend_works("egl") or gl_backend_works("osmesa")):
        pytest.skip("MuJoCo cannot draw on this machine")
    out = tmp_path / "films"
    command = ["--methods", "ppo", "--tasks", "dm_control/cartpole-swingup", "--frames", "400", "--eval-freq", "400"]
    assert main([*command, "--action-repeat", "8", "--eval-episodes", "1", "--out", str(out)]) == 0
    assert frames_of(out, "ppo", 0) == [0, 400]
    assert rows(out)[-1]["steps"] == "50"
    frames = list(iio.imiter(out / "videos" / "ppo-cartpole-swingup-state-seed0.mp4"))
    assert len(frames) == 126  # one image before each agent step, and one of the end
    report = (out / "report.md").read_text()
    assert "videos/ppo-cartpole-swingup-state-seed0.mp4" in report
    assert "Action repeat differs from the task's preset: 8." in report


@pytest.mark.slow
def test_our_own_learners_run_side_by_side(main, tmp_path):
    pytest.importorskip("dm_control")
    out = tmp_path / "ours"
    methods = ["difftori", "difftori_nopg", "tdmpc"]
    small = ["learning_starts=40", "batch_size=8", "horizon=2", "planner_kwargs.max_iterations=2"]
    small = [f"{method}.{value}" for method in methods for value in small] + ["tdmpc.planner_kwargs.num_samples=16"]
    common = ["--tasks", "dm_control/cartpole-swingup", "--eval-freq", "320", "--eval-episodes", "1", "--no-video"]
    command = ["--methods", *methods, *common, "--out", str(out), "--set", *small, "tdmpc.planner_kwargs.num_elites=4"]
    assert main([*command, "--frames", "320"]) == 0
    for method in methods:
        assert frames_of(out, method, 0) == [0, 320]
    report = (out / "report.md").read_text()
    for label in ("| DiffTORI |", "| DiffTORI, no policy gradient |", "| TD-MPC |"):
        assert label in report
    # A checkpoint of ours continues: sequence replay, priorities and optimisers come back.
    command = ["--methods", "difftori", *common, "--out", str(out), "--set", *small[:4]]
    assert main([*command, "--frames", "400"]) == 0
    assert frames_of(out, "difftori", 0) == [0, 320, 400]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--methods", "sax"],
            "compare: Unknown method 'sax'. Methods: difftori, difftori_nopg, tdmpc, tdmpc2, drqv2, sac, td3, tqc, "
            "crossq, ppo.\n",
        ),
        (
            ["--tasks", "CartPole-v1"],
            "compare: A comparison on gymnasium/CartPole-v1 expected a Box action space, got Discrete(2)",
        ),
        (["--set", "sac.learning_rate"], "compare: --set needs METHOD.KEY=VALUE"),
        (["--frames", "0"], "compare: --frames must be at least 1, got 0.\n"),
    ],
)
def test_a_request_that_cannot_be_carried_out_is_one_line(main, tmp_path, capsys, arguments, message):
    given = ["--methods", "sac", "--tasks", "Pendulum-v1", "--frames", "100", "--out", str(tmp_path / "out")]
    assert main([*given, *arguments]) == 2
    said = capsys.readouterr().err
    assert said.startswith(message)
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "message"), [('{"size":', "Expecting value"), ("[1]", r"got \[1\]"), ("size=3", "Expecting value")]
)
def test_settings_of_observations_must_be_a_json_object(main, tmp_path, capsys, text, message):
    command = ["--methods", "sac", *PENDULUM, "--frames", "100", "--out", str(tmp_path / "out"), "--obs-kwargs", text]
    with pytest.raises(SystemExit) as stopped:
        main(command)
    assert stopped.value.code == 2
    assert re.search(f"argument --obs-kwargs: expected a json object such as .*{message}", capsys.readouterr().err)


def test_without_opengl_pixels_are_refused_in_one_line(tmp_path):
    pytest.importorskip("dm_control")
    command = ["--methods", "drqv2", "--obs", "pixels", "--tasks", "dm_control/cartpole-swingup", "--frames", "100"]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *command, "--out", str(tmp_path / "out")],
        env={**os.environ, "MUJOCO_GL": "disabled"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("compare: MuJoCo cannot draw on this machine")
    assert "libegl1" in done.stderr
    assert "environment variable MUJOCO_GL" in done.stderr
    assert done.stderr.count("\n") == 1
