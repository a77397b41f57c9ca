"""
robomimic's format, on a file with a real simulation of robosuite's Lift, solved by the scripted expert.

robomimic itself cannot be installed beside current libraries. The file is written here as its documentation
(docs/datasets/overview.md) and its writer (robomimic/scripts/dataset_states_to_obs.py, env_robosuite.py) lay it out:
attributes, groups and names of observations are theirs, and so is the controller's description, in the form of
robosuite 1.2 to 1.4 that the published data sets have.
"""

import json
import os
import warnings

import numpy as np
import pytest

from difftori_gym.collection import make_robomimic_env
from difftori_gym.envs import make_env
from difftori_gym.envs.robosuite_experts import scripted_expert
from difftori_gym.il import read_robomimic

h5py = pytest.importorskip("h5py")
pytest.importorskip("robosuite")

OBS_KEYS = ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos", "robot0_joint_pos", "object-state")
CONTROLLER = {
    "type": "OSC_POSE",
    "input_max": 1,
    "input_min": -1,
    "output_max": [0.05, 0.05, 0.05, 0.5, 0.5, 0.5],
    "output_min": [-0.05, -0.05, -0.05, -0.5, -0.5, -0.5],
    "kp": 150,
    "damping": 1,
    "impedance_mode": "fixed",
    "kp_limits": [0, 300],
    "damping_limits": [0, 10],
    "position_limits": None,
    "orientation_limits": None,
    "uncouple_pos_ori": True,
    "control_delta": True,
    "interpolation": None,
    "ramp_ratio": 0.2,
}
ENV_KWARGS = {
    "has_renderer": False,
    "has_offscreen_renderer": False,
    "ignore_done": True,
    "use_object_obs": True,
    "use_camera_obs": False,
    "control_freq": 20,
    "controller_configs": CONTROLLER,
    "robots": ["Panda"],
    "camera_depths": False,
    "camera_heights": 84,
    "camera_widths": 84,
    "reward_shaping": False,
}


def observed(source) -> dict[str, np.ndarray]:
    found = source._get_observations(force_update=True)
    return {key.removesuffix("-state"): np.array(found[key]) for key in OBS_KEYS}


def write_demo(group, env, seed: int) -> None:
    """One demonstration, from the reset to three frames after success."""
    source = env.unwrapped._source
    expert = scripted_expert("Lift")
    state, _ = env.reset(seed=seed)
    steps: dict[str, list] = {name: [] for name in ("states", "actions", "rewards", "dones", "obs", "next_obs")}
    solved = 0
    while solved < 3:
        steps["states"].append(source.sim.get_state().flatten())
        steps["obs"].append(observed(source))
        steps["actions"].append(expert(state).astype(np.float64))
        state, reward, _, truncated, info = env.step(steps["actions"][-1])
        assert not truncated
        steps["next_obs"].append(observed(source))
        steps["rewards"].append(reward)
        solved += bool(info["success"])
        steps["dones"].append(int(solved > 0))
    for name in ("states", "actions", "rewards", "dones"):
        group[name] = np.array(steps[name])
    for name in ("obs", "next_obs"):
        for key in steps[name][0]:
            group[f"{name}/{key}"] = np.array([each[key] for each in steps[name]])
    with warnings.catch_warnings():  # robosuite leaves the temporary file of its XML open
        warnings.simplefilter("ignore", ResourceWarning)
        group.attrs["model_file"] = source.sim.model.get_xml()
    group.attrs["num_samples"] = len(steps["actions"])


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    path = tmp_path_factory.mktemp("robomimic") / "low_dim.hdf5"
    env = make_env("robosuite/Lift")
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        for name, seed in (("demo_10", 1), ("demo_2", 0)):
            write_demo(data.create_group(name), env, seed)
        data.attrs["total"] = sum(data[name].attrs["num_samples"] for name in data)
        data.attrs["env_args"] = json.dumps({"env_name": "Lift", "type": 1, "env_kwargs": ENV_KWARGS}, indent=4)
        file["mask/train"] = np.array(["demo_10"], dtype="S")
    env.close()
    return path


@pytest.fixture
def copy(recorded, tmp_path):
    path = tmp_path / "low_dim.hdf5"
    path.write_bytes(recorded.read_bytes())
    return path


def test_demonstrations_are_those_of_the_file(recorded):
    demonstrations = read_robomimic(recorded)
    assert (demonstrations.env_id, demonstrations.obs, len(demonstrations)) == ("robosuite/Lift", "state", 2)
    with h5py.File(recorded) as file:
        for episode, name in zip(demonstrations.episodes, ("demo_2", "demo_10"), strict=True):  # by number
            demo = file["data"][name]
            np.testing.assert_array_equal(episode.actions, demo["actions"])
            np.testing.assert_array_equal(episode.observations[:-1, :3], np.float32(demo["obs/robot0_eef_pos"]))
            np.testing.assert_array_equal(episode.observations[-1, 9:], np.float32(demo["next_obs/object"][-1]))
            assert episode.success is True
            assert episode.truncated
    (only,) = read_robomimic(recorded, filter_key="train").episodes
    np.testing.assert_array_equal(only.actions, demonstrations.episodes[1].actions)
    keyed = read_robomimic(recorded, obs_keys=["robot0_joint_pos", "object"], num_episodes=1)
    assert {key: space.shape for key, space in keyed.observation_space.items()} == {
        "object": (10,),
        "robot0_joint_pos": (7,),
    }


def test_the_environment_of_the_file_does_the_same_again(recorded):
    demonstrations = read_robomimic(recorded)
    env = make_robomimic_env(recorded)
    assert env.observation_space.shape == demonstrations.observation_space.shape
    assert env.action_space == demonstrations.action_space
    with h5py.File(recorded) as file:
        states = file["data/demo_2/states"][()]
    episode = demonstrations.episodes[0]
    env.reset(seed=0)
    simulation = env.unwrapped._source.sim
    simulation.set_state_from_flattened(states[0])
    simulation.forward()
    for t, action in enumerate(episode.actions):
        observation, _, _, _, info = env.step(action.astype(np.float32))
        np.testing.assert_allclose(observation[:3], episode.observations[t + 1, :3], atol=2e-3)  # metres
    assert info["is_success"]
    env.close()


def test_files_that_are_not_whole(copy):
    with pytest.raises(ValueError, match="expected filter key 'valid', got train"):
        read_robomimic(copy, filter_key="valid")
    with pytest.raises(ValueError, match="expected at least 3 episodes, got 2"):
        read_robomimic(copy, num_episodes=3)
    with pytest.raises(ValueError, match=r"low_dim.hdf5, demo_2: expected a dataset 'obs/agentview_image', got object"):
        read_robomimic(copy, obs_keys=["agentview_image"])
    with h5py.File(copy, "a") as file:
        del file["data/demo_10/next_obs"]
    last = read_robomimic(copy).episodes[1].observations
    np.testing.assert_array_equal(last[-1], last[-2])
    with h5py.File(copy, "a") as file:
        file["data/demo_10/actions"][3] = 1.5
    with pytest.raises(ValueError, match=r"low_dim.hdf5, demo_10: expected actions in \[-1, 1\], got 1.5"):
        read_robomimic(copy)
    with h5py.File(copy, "a") as file:
        del file["data/demo_10/obs"]
    with pytest.raises(ValueError, match=r"low_dim.hdf5, demo_10: expected observations.*dataset_states_to_obs.py"):
        read_robomimic(copy)
    assert len(read_robomimic(copy, num_episodes=1)) == 1
    with h5py.File(copy, "a") as file:
        file["data"].attrs["env_args"] = json.dumps({"env_name": "Hopper-v2", "type": 2, "env_kwargs": {}})
    with pytest.raises(ValueError, match=r"low_dim.hdf5: expected an environment of robosuite \(type 1\), got type 2"):
        make_robomimic_env(copy)
    assert read_robomimic(copy, num_episodes=1).env_id == ""
    with h5py.File(copy, "a") as file:
        del file["data"]
    with pytest.raises(ValueError, match=r"low_dim.hdf5: expected robomimic's group 'data'"):
        read_robomimic(copy)
    os.truncate(copy, copy.stat().st_size // 2)
    with pytest.raises(ValueError, match=r"low_dim.hdf5: expected a whole HDF5 file"):
        read_robomimic(copy)
