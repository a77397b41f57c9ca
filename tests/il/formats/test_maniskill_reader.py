"""Files that ManiSkill's RecordEpisode wrote (tests/il/formats/data/README.md)."""

import json
import os
import shutil
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
    with pytest.raises(
        ValueError, match=r"push_cube_planned.h5, episode 0: expected actions in \[-1, 1\].*action_space"
    ):
        read_maniskill(path)
    space = spaces.Box(-4, 4, (8,), np.float32)
    demonstrations = read_maniskill(path, action_space=space, only_successful=True)
    assert demonstrations.action_space == space
    (episode,) = demonstrations.episodes
    assert episode.success is True
    assert episode.terminated
    assert len(episode) == 71
    with pytest.raises(ValueError, match="expected at least 1 episodes, got 0"):
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


def test_files_that_are_not_whole(copy):
    with pytest.raises(ValueError, match="expected at least 3 episodes, got 2"):
        read_maniskill(copy, num_episodes=3)
    with h5py.File(copy, "a") as file:
        file["traj_1/actions"][2] = np.nan
    with pytest.raises(ValueError, match=r"push_cube_state.h5, episode 1: expected actions that are finite"):
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
