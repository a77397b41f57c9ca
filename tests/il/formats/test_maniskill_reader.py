"""Files that ManiSkill's RecordEpisode wrote (tests/il/formats/data/README.md)."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces

from difftori_gym.il import read_maniskill

h5py = pytest.importorskip("h5py")

DATA = Path(__file__).parent / "data"


@pytest.fixture
def copy(tmp_path) -> Path:
    for path in DATA.glob("push_cube_state.*"):
        shutil.copy(path, tmp_path)
    return tmp_path / "push_cube_state.h5"


def test_states():
    demonstrations = read_maniskill(DATA / "push_cube_state.h5")
    assert demonstrations.env_id == "maniskill/PushCube"
    assert demonstrations.control_mode == "pd_ee_delta_pos"
    assert demonstrations.seeds == (3, 4)
    assert demonstrations.action_space == spaces.Box(-1, 1, (4,), np.float32)
    assert demonstrations.observation_space.shape == (35,)
    for episode in demonstrations.episodes:
        assert len(episode) == 6
        assert episode.success is False
        assert (episode.terminated, episode.truncated) == (False, True)  # cut by who recorded
    # The observation begins with the robot's joints, which the recorded simulation state holds too: root pose (7),
    # root velocity (6), joint positions (9), joint velocities (9).
    with h5py.File(DATA / "push_cube_state.h5") as file:
        joints = file["traj_1/env_states/articulations/panda"][:, 13:22]
    np.testing.assert_array_equal(demonstrations.episodes[1].observations[:, :9], joints)
    assert len(demonstrations.windows(n_obs_steps=2, horizon=4, n_action_steps=2)) == 8


def test_a_solved_episode_of_joint_positions_needs_its_action_space():
    path = DATA / "push_cube_planned.h5"
    with pytest.raises(ValueError, match=r"push_cube_planned.h5, traj_0: expected actions in \[-1, 1\].*action_space"):
        read_maniskill(path)
    space = spaces.Box(-4, 4, (8,), np.float32)
    demonstrations = read_maniskill(path, action_space=space, only_successful=True)
    assert demonstrations.action_space == space
    (episode,) = demonstrations.episodes
    assert episode.success is True
    assert episode.successes[-1]
    assert episode.terminated
    assert len(episode) == 71
    with pytest.raises(ValueError, match="expected at least one episode, got none"):
        read_maniskill(DATA / "push_cube_state.h5", only_successful=True)


def test_nested_observations_become_one_level(tmp_path):
    path = DATA / "push_cube_rgb.h5"
    demonstrations = read_maniskill(path, memory_map=tmp_path)
    image = "sensor_data/base_camera/rgb"
    assert demonstrations.observation_space[image] == spaces.Box(0, 255, (32, 32, 3), np.uint8)
    assert {"agent/qpos", "agent/qvel", "extra/tcp_pose", image} < set(demonstrations.observation_space)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(
            demonstrations.episodes[0].observations[image], file["traj_0/obs/sensor_data/base_camera/rgb"]
        )
    chosen = read_maniskill(path, obs_keys=["agent/qpos", image])
    assert list(chosen.episodes[0].observations) == ["agent/qpos", image]
    batch = chosen.windows(n_obs_steps=2, horizon=2, n_action_steps=1).batch(np.array([0]))
    assert batch.observations[image].shape == (1, 2, 32, 32, 3)
    with pytest.raises(ValueError, match=r"traj_0: expected observations \['agent/depth'\], got"):
        read_maniskill(path, obs_keys=["agent/depth"])


def described(path: Path, **changes) -> None:
    """Change the first episode's description, or with ``env_info`` the environment's."""
    file = path.with_suffix(".json")
    description = json.loads(file.read_text(encoding="utf-8-sig"))
    if "env_info" in changes:
        description["env_info"] = changes.pop("env_info")
    description["episodes"][0] |= changes
    file.write_text(json.dumps(description), encoding="utf-8-sig")  # with a byte-order mark


def test_files_of_maniskill_2(copy):
    """Success and nothing else of an end; seeds and success in other places of a json with a byte-order mark."""
    with h5py.File(copy, "a") as file:
        for name in ("terminated", "truncated"):
            del file["traj_0"][name]
        file["traj_0/success"][2] = True
    described(copy, env_info=None, episode_seed=None, reset_kwargs={"seed": 11}, info={"success": False}, success=None)
    demonstrations = read_maniskill(copy)
    episode = demonstrations.episodes[0]
    assert (episode.terminated, episode.truncated, episode.success, episode.seed) == (False, True, True, 11)
    assert demonstrations.env_id == ""
    described(copy, env_info={"env_id": "PushCube-v0"})
    assert read_maniskill(copy).env_id == ""  # make_env knows no such task


def test_only_episodes_of_which_a_step_was_a_success(copy):
    with h5py.File(copy, "a") as file:
        file["traj_1/success"][2] = True  # and not in the end, which the json tells
        expected = file["traj_1/actions"][()]
    (episode,) = read_maniskill(copy, only_successful=True).episodes
    np.testing.assert_array_equal(episode.actions, expected)
    with h5py.File(copy, "a") as file:
        for name in ("traj_0", "traj_1"):
            del file[name]["success"]
    described(copy, success=True)
    assert len(read_maniskill(copy, only_successful=True)) == 1
    described(copy, success=None)
    with pytest.raises(
        ValueError, match=r"traj_0: expected success to be told, found nothing. Read it without only_successful"
    ):
        read_maniskill(copy, only_successful=True)


def test_what_cannot_be_read_is_left_out_by_the_name_that_the_error_gives(copy):
    with h5py.File(copy, "a") as file:
        kept = file["traj_1/actions"][()]
        del file["traj_0/actions"], file["traj_0/rewards"]
        file["traj_0/actions"] = np.zeros((0, 4), np.float32)
        file["traj_0/rewards"] = np.zeros(0)
    message = r"state.h5, traj_0: expected at least one action.*read_maniskill\(..., leave_out=\['traj_0'\]\) reads"
    with pytest.raises(ValueError, match=message):
        read_maniskill(copy)
    (episode,) = read_maniskill(copy, leave_out=["traj_0"]).episodes
    np.testing.assert_array_equal(episode.actions, kept)
    with h5py.File(copy, "a") as file:
        file["traj_1/actions"][2] = np.nan
    with pytest.raises(
        ValueError, match=r"state.h5, traj_1: expected actions that are finite"
    ):  # the first that is read
        read_maniskill(copy, leave_out=["traj_0"])
    with pytest.raises(ValueError, match=r"in leave_out, such as \['traj_0'\], got \['episode_0'\]"):
        read_maniskill(copy, leave_out=["episode_0"])
    with pytest.raises(ValueError, match="expected num_episodes >= 1"):
        read_maniskill(copy, num_episodes=-1)


def test_actions_of_several_agents_and_observations_that_are_no_numbers(copy):
    with h5py.File(copy, "a") as file:
        file["traj_0/obs_text"] = np.array([b"push"] * 7)
        file["traj_0"].move("obs", "state")
        file["traj_0/obs/state"], file["traj_0/obs/text"] = file["traj_0/state"][()], file["traj_0/obs_text"][()]
    with pytest.raises(ValueError, match=r"traj_0: expected observations under key 'text' of numbers, got .*obs_keys"):
        read_maniskill(copy)
    assert len(read_maniskill(copy, obs_keys=["state"], num_episodes=1)) == 1
    with h5py.File(copy, "a") as file:
        del file["traj_0/actions"]
        file["traj_0/actions/left"] = file["traj_0/actions/right"] = np.zeros((6, 4), np.float32)
    with pytest.raises(ValueError, match="traj_0: expected one array of actions, got those of left, right"):
        read_maniskill(copy)


def test_a_file_that_does_not_open_is_told_from_a_damaged_one(copy):
    with h5py.File(copy, "a"), pytest.raises(ValueError, match="A program has it open to write: wait"):
        read_in_another_process(copy)
    copy.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"state.h5: expected a whole HDF5 file.*run git lfs pull"):
        read_maniskill(copy)


def read_in_another_process(path: Path) -> None:
    script = f"from difftori_gym.il import read_maniskill\nread_maniskill({str(path)!r})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    raise ValueError(done.stderr)


def test_files_that_are_not_whole(copy):
    with pytest.raises(ValueError, match="expected at least 3 episodes, got 2"):
        read_maniskill(copy, num_episodes=3)
    with h5py.File(copy, "a") as file:
        file["traj_1/actions"][2] = np.nan
    with pytest.raises(ValueError, match=r"push_cube_state.h5, traj_1: expected actions that are finite"):
        read_maniskill(copy)
    with h5py.File(copy, "a") as file:
        del file["traj_1/obs"]
    with pytest.raises(ValueError, match=r"push_cube_state.h5, traj_1: expected observations.*replay_trajectory"):
        read_maniskill(copy)
    with h5py.File(copy, "a") as file:
        del file["traj_1"]
    with pytest.raises(ValueError, match=r"push_cube_state.h5, traj_1: expected a group with actions, found none"):
        read_maniskill(copy)
    assert len(read_maniskill(copy, num_episodes=1)) == 1

    os.truncate(copy, copy.stat().st_size - 2000)
    with pytest.raises(ValueError, match=r"push_cube_state.h5: expected a whole HDF5 file"):
        read_maniskill(copy)
    copy.with_suffix(".json").write_text(json.dumps({"env_info": {}}), encoding="utf-8")
    copy.write_bytes((DATA / "push_cube_state.h5").read_bytes())
    with pytest.raises(ValueError, match=r"push_cube_state.json: expected a list of episodes"):
        read_maniskill(copy)
    copy.with_suffix(".json").unlink()
    with pytest.raises(ValueError, match=r"push_cube_state.json: expected ManiSkill's description"):
        read_maniskill(copy)
    with pytest.raises(ValueError, match=r"missing.h5: expected a file, found none"):
        read_maniskill(copy.with_name("missing.h5"))


def test_an_episode_is_a_success_if_it_was_one_at_any_step(copy):
    with h5py.File(copy, "a") as file:
        file["traj_0/success"][2] = True
    assert [episode.success for episode in read_maniskill(copy).episodes] == [True, False]
