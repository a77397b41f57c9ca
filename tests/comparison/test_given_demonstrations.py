"""Imitation from a file of other programs: bounds of actions that it does not hold, episodes that are left out."""

import contextlib
import importlib.util
import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces

h5py = pytest.importorskip("h5py")

from difftori_gym.comparison import ComparisonSettings, plan_runs  # noqa: E402
from difftori_gym.comparison.demonstrations import read_demonstrations  # noqa: E402
from difftori_gym.comparison.results import read_rows  # noqa: E402
from difftori_gym.comparison.training import do_run  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
TASK = "gymnasium/Pendulum-v1"
TORQUES = spaces.Box(-2.0, 2.0, (1,), np.float32)


@pytest.fixture
def recording(tmp_path):
    """Three episodes of a pendulum in ManiSkill's layout; the second one's actions are lost."""
    path, numbers = tmp_path / "recording.h5", np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for index in range(3):
            group = file.create_group(f"traj_{index}")
            group["obs"] = numbers.uniform(-1, 1, (9, 3)).astype(np.float32)
            if index != 1:
                group["actions"] = np.linspace(-2, 2, 8, dtype=np.float32)[:, None]
    path.with_suffix(".json").write_text(json.dumps({"episodes": [{"episode_id": index} for index in range(3)]}))
    return path


def planned(tmp_path, path, **changes):
    asked = dict(methods=("bc",), tasks=(TASK,), seeds=(0,), out=tmp_path, demos=None, demos_from=path, steps=2)
    asked |= dict(size="small", eval_episodes=1, episode_steps=5, video=False, leave_out=("traj_1",))
    (run,) = plan_runs(ComparisonSettings(**{**asked, **changes}))
    return run


def test_a_policy_learns_from_the_episodes_that_are_left_in_the_bounds_of_the_environment(tmp_path, recording):
    run = planned(tmp_path, recording)
    demonstrations = read_demonstrations(run, tmp_path, TORQUES)
    assert [episode.name for episode in demonstrations.episodes] == ["traj_0", "traj_2"]
    assert demonstrations.action_space == TORQUES
    folder = tmp_path / "runs" / run.name
    do_run(run, folder, lambda progress: None, contextlib.nullcontext())
    (row,) = read_rows(folder / "results.csv")
    assert (row.demos, row.steps) == (2, 2)


@pytest.mark.parametrize(
    ("changes", "bounds", "message"),
    [
        (dict(leave_out=()), 2.0, r"recording.h5, traj_1: .*leave_out=\['traj_1'\]"),
        (dict(leave_out=("traj_7",)), 2.0, r"expected names of its episodes in leave_out, .* got \['traj_7'\]"),
        (dict(demos=3), 2.0, r"expected a number of episodes in \[1, 2\], got 3"),
        (dict(), 1.5, r"recording.h5, traj_0: .*action"),
    ],
)
def test_what_does_not_fit_the_file_names_it(tmp_path, recording, changes, bounds, message):
    run = planned(tmp_path, recording, **changes)
    with pytest.raises(ValueError, match=message):
        read_demonstrations(run, tmp_path, spaces.Box(-bounds, bounds, (1,), np.float32))


def test_the_program_passes_the_names_on_and_the_run_tells_how_it_is_repeated(tmp_path, recording, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    spec = importlib.util.spec_from_file_location("compare_example", ROOT / "examples" / "compare.py")
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    run = planned(tmp_path, recording, leave_out=("traj_1", "traj_2"))
    _, _, *arguments = shlex.split(run.command())
    values = vars(program.parse_arguments(arguments))
    assert values["leave_out"] == ["traj_1", "traj_2"]
    assert values["demos_from"] == recording
