"""
Files in robomimic's layout by other writers, laid out by hand.

Each test names whose habit it is. Files of robomimic itself: tests/collection/test_robomimic.py.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces

from difftori_gym.il import read_env_args, read_robomimic

h5py = pytest.importorskip("h5py")

STATE = {"robot0_eef_pos": 3, "robot0_eef_quat": 4, "robot0_gripper_qpos": 2, "object": 10}
ENV_ARGS = {"env_name": "Lift", "type": 1, "env_kwargs": {"robots": ["Panda"]}}


def write(path: Path, names=("demo_0", "demo_1"), env_args=ENV_ARGS, keys=STATE, left_out=(), scale=0.5) -> Path:
    """Demonstrations of 4, 5, ... steps, whose actions are their number times ``scale``."""
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        if env_args is not None:
            data.attrs["env_args"] = env_args if isinstance(env_args, str) else json.dumps(env_args)
        for number, name in enumerate(names):
            length = 4 + number
            group = data.create_group(name)
            arrays = dict(actions=np.full((length, 7), number * scale), rewards=np.arange(length) == length - 1)
            for key, array in {**arrays, "dones": np.zeros(length, np.int64)}.items():
                if key not in left_out:
                    group[key] = array
            for key, size in keys.items():
                group[f"obs/{key}"] = np.arange(length * size, dtype=np.float64).reshape(length, size)
    return path


def test_actions_in_absolute_units_need_their_bounds(tmp_path):
    """Some of Diffusion Policy's files hold absolute poses."""
    path = write(tmp_path / "abs.hdf5", scale=3.0)
    message = r"abs.hdf5, demo_1: expected actions in \[-1, 1\], got 3.0.*Pass action_space to read_robomimic"
    with pytest.raises(ValueError, match=message):
        read_robomimic(path)
    space = spaces.Box(-4, 4, (7,), np.float32)
    assert read_robomimic(path, action_space=space).action_space == space


def test_generated_files_have_no_rewards_and_tell_no_success(tmp_path):
    """MimicGen's."""
    demonstrations = read_robomimic(write(tmp_path / "generated.hdf5", left_out=("rewards", "dones")))
    for episode in demonstrations.episodes:
        assert episode.success is None
        np.testing.assert_array_equal(episode.rewards, np.zeros(len(episode)))


def test_other_simulators_and_attributes_that_tell_success(tmp_path):
    """Isaac Lab's: environments of type 2, no rewards, attributes success and seed, groups of states, truth values."""
    keys = {"joint_pos": 9, "eef_pos": 3}
    env_args = {"env_name": "Isaac-Stack-Cube-v0", "type": 2}
    path = write(tmp_path / "isaac.hdf5", env_args=env_args, keys=keys, left_out=("rewards", "dones"))
    with h5py.File(path, "a") as file:
        for name, success in (("demo_0", np.True_), ("demo_1", np.False_)):
            group = file["data"][name]
            group.attrs["success"], group.attrs["seed"] = success, 7
            group["initial_state/articulation/robot/joint_position"] = np.zeros((1, 9))
            group["obs/datagen_info/grasped"] = np.zeros(len(group["actions"]), bool)
    demonstrations = read_robomimic(path, obs_keys=["joint_pos", "datagen_info/grasped"])
    assert demonstrations.env_id == ""
    assert demonstrations.observation_space["datagen_info/grasped"].shape == (1,)
    assert [episode.success for episode in demonstrations.episodes] == [True, False]
    assert [episode.rewards.sum() for episode in demonstrations.episodes] == [1.0, 0.0]
    assert demonstrations.seeds == (7, 7)
    with pytest.raises(ValueError, match=r"isaac.hdf5: expected an environment of robosuite \(type 1\), got type 2"):
        read_env_args(path)
    with pytest.raises(
        ValueError, match=r"isaac.hdf5, demo_0: expected robosuite's observations .*Pass .* as obs_keys"
    ):
        read_robomimic(path)


@pytest.mark.parametrize("env_args", [None, "", "{}", "[]", '{"type": "raw_camera_stream"}', "no json"])
def test_env_args_of_no_use_are_needed_for_the_environment_only(tmp_path, env_args):
    path = write(tmp_path / "other.hdf5", env_args=env_args)
    assert read_robomimic(path).env_id == ""
    with pytest.raises(ValueError, match=r"other.hdf5: expected env_args of group 'data' in JSON with env_name"):
        read_env_args(path)


def test_names_of_observations_and_demonstrations(tmp_path):
    """Raw robosuite's name of the object; groups that are no demo_N; a dataset beside the demonstrations."""
    keys = {**dict(list(STATE.items())[:3]), "object-state": 10}
    path = write(tmp_path / "names.hdf5", names=("demo_10", "demo_2", "extra"), keys=keys)
    with h5py.File(path, "a") as file:
        file["data/camera"] = np.eye(4)
    demonstrations = read_robomimic(path)
    assert [episode.name for episode in demonstrations.episodes] == ["demo_2", "demo_10", "extra"]
    assert demonstrations.observation_space.shape == (19,)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(
            demonstrations.episodes[0].observations[:-1, 9:], file["data/demo_2/obs/object-state"]
        )


def test_a_demonstration_that_cannot_be_read_is_left_out_by_name(tmp_path):
    path = write(tmp_path / "three.hdf5", names=("demo_0", "demo_1", "demo_2"))
    with h5py.File(path, "a") as file:
        del file["data/demo_1/actions"]
    message = r"three.hdf5, demo_1: expected a demonstration with actions.*leave_out=\['demo_1'\]"
    with pytest.raises(ValueError, match=message):
        read_robomimic(path)
    assert [episode.name for episode in read_robomimic(path, leave_out=["demo_1"]).episodes] == ["demo_0", "demo_2"]
    with h5py.File(path, "a") as file:
        del file["data/demo_2/obs/object"]
        file["data/demo_2/obs/object"] = np.zeros((9, 10))  # more than there are actions
    with pytest.raises(ValueError, match=r"three.hdf5, demo_2: .*leave_out=\['demo_2'\]\) reads the others"):
        read_robomimic(path, leave_out=["demo_1"])
    with pytest.raises(ValueError, match=r"three.hdf5, demo_2: expected 7 observations under key 'object'.* got 10"):
        read_robomimic(path, leave_out=["demo_1"], obs_keys=["object"])


def test_compressed_pictures_are_no_numbers(tmp_path):
    path = write(tmp_path / "jpeg.hdf5")
    with h5py.File(path, "a") as file:
        for group in file["data"].values():
            rows = group.create_dataset("obs/image_jpeg", (len(group["actions"]),), dtype=h5py.vlen_dtype(np.uint8))
            rows[:] = [np.zeros(3 + index, np.uint8) for index in range(len(rows))]
    message = "jpeg.hdf5, demo_0: expected observations under key 'image_jpeg' of numbers, got object. Choose other"
    with pytest.raises(ValueError, match=message):
        read_robomimic(path, obs_keys=["object", "image_jpeg"])
