"""ManiSkill on the CPU: state, images and point clouds through the code that a GPU batch takes."""

import importlib.util
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.vec_env import DummyVecEnv

from difftori_gym.envs import make_env, make_vec_env, parse_task
from difftori_gym.envs.maniskill import TASKS
from difftori_gym.envs.rendering import VULKAN_REMEDY, is_vulkan_error, vulkan_works
from difftori_gym.wrappers import TensorVecEnv

# Not imported here: it imports MuJoCo, whose way of drawing make_env settles first.
if importlib.util.find_spec("mani_skill") is None:
    pytest.skip("mani_skill is not installed", allow_module_level=True)
pytestmark = [
    # Of ManiSkill and what it imports.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:mani_skill"),
    pytest.mark.filterwarnings("ignore::UserWarning:pytorch_kinematics"),
]
needs_vulkan = pytest.mark.skipif(not vulkan_works("cpu"), reason=f"no Vulkan device on this machine. {VULKAN_REMEDY}")
TASK = "maniskill/PickCube"
CROP = {"crop_low": (-0.3, -0.3, 0.002), "crop_high": (0.3, 0.3, 0.4)}


def test_names_with_and_without_version():
    assert str(parse_task("maniskill/PickCube-v1")) == TASK
    assert str(parse_task("maniskill/PickSingleYCB")) == "maniskill/PickSingleYCB"  # found, though not downloaded
    with pytest.raises(ValueError, match=r"Unknown task 'PickCub' of maniskill\. Choices: PickCube, "):
        make_env("maniskill/PickCub")
    assert {"PickCube", "StackCube", "PushT", "MS-CartpoleBalance"} <= set(TASKS)


def test_a_task_without_its_assets_names_the_download():
    with pytest.raises(ValueError, match=r"Run: python -m mani_skill\.utils\.download_asset ycb"):
        make_env("maniskill/PickSingleYCB")


def test_a_suite_that_is_not_installed_names_its_install_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "mani_skill", None)
    with pytest.raises(ImportError, match=r'Run: pip install "difftori-gym\[maniskill\]"'):
        make_env(TASK)


def test_without_a_vulkan_device_the_remedy_is_told():
    code = (
        "from difftori_gym.envs import make_env\n"
        "try:\n"
        "    make_env('maniskill/PickCube')\n"
        "except RuntimeError as error:\n"
        "    print(error)\n"
    )
    nowhere = {"VK_DRIVER_FILES": "/nonexistent.json", "VK_ICD_FILENAMES": "/nonexistent.json"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, env={**os.environ, **nowhere}
    )
    for part in ("maniskill/PickCube found no Vulkan device", "mesa-vulkan-drivers", "VK_DRIVER_FILES"):
        assert part in done.stdout, done.stderr[-2000:]
    assert not is_vulkan_error(ValueError("Unknown robot"))


def test_wrong_settings_list_the_choices():
    with pytest.raises(ValueError, match=r"Unknown obs 'depth'\. Choices: state, pixels, pointcloud"):
        make_env(TASK, obs="depth")
    with pytest.raises(ValueError, match=r"Unknown obs_kwargs 'colour' of obs='pointcloud'\. Choices: num_points"):
        make_env(TASK, obs="pointcloud", obs_kwargs={"colour": True})
    with pytest.raises(ValueError, match="Unknown state 'all'"):
        make_env(TASK, obs="pixels", obs_kwargs={"state": "all"})
    with pytest.raises(ValueError, match="at least 1 pixel, got 0"):
        make_env(TASK, obs="pixels", obs_kwargs={"size": 0})
    with pytest.raises(ValueError, match="num_points >= 1, got 0"):
        make_env(TASK, obs="pointcloud", obs_kwargs={"num_points": 0})
    with pytest.raises(ValueError, match="crop_low < crop_high"):
        make_env(TASK, obs="pointcloud", obs_kwargs={"crop_low": (1, 0, 0), "crop_high": (0, 1, 1)})


@needs_vulkan
@pytest.mark.parametrize("setting", [{"control_mode": "telepathy"}, {"reward_mode": "praise"}])
def test_settings_that_maniskill_refuses_are_named(setting):
    with pytest.raises(ValueError, match="ManiSkill refuses to build .*" + next(iter(setting.values()))):
        make_env(TASK, **setting)


@needs_vulkan
def test_states_in_one_batch_are_seeded_and_end_at_the_limit():
    vec_env = make_vec_env(TASK, seed=3, max_episode_steps=4)
    assert isinstance(vec_env, TensorVecEnv)
    first = vec_env.reset()
    assert first.shape == (1, 42)
    trace = [vec_env.step(np.full((1, 8), 0.3))[:2] for _ in range(4)]
    _, _, dones, infos = vec_env.step(np.zeros((1, 8)))
    assert not dones[0]
    vec_env.seed(3)
    np.testing.assert_array_equal(vec_env.reset(), first)
    for step in range(4):
        observations, rewards, dones, infos = vec_env.step(np.full((1, 8), 0.3))
        np.testing.assert_allclose(rewards, trace[step][1], atol=1e-5)
        if step < 3:  # after the last step a new episode starts, wherever
            np.testing.assert_allclose(observations, trace[step][0], atol=1e-5)
    assert dones[0]
    assert infos[0]["TimeLimit.truncated"]
    assert infos[0]["episode"]["l"] == 4
    assert infos[0]["is_success"] is False
    assert not np.allclose(infos[0]["terminal_observation"], observations[0])
    vec_env.close()
    with pytest.raises(ValueError, match="action_repeat >= 1, got 0"):
        make_env(TASK, action_repeat=0)


@needs_vulkan
def test_success_ends_an_episode_and_is_told():
    vec_env = make_vec_env(TASK, seed=0)
    vec_env.reset()
    simulation = vec_env.batch.source.unwrapped
    simulation.goal_site.set_pose(simulation.cube.pose)
    seen = []
    # Success needs the cube at the goal and a robot at rest.
    for _ in range(10):
        _, _, dones, infos = vec_env.step(np.zeros((1, 8)))
        seen.append(infos[0]["is_success"])
        if dones[0]:
            break
    assert seen[-1] is True
    assert not infos[0]["TimeLimit.truncated"]
    assert not vec_env.step(np.zeros((1, 8)))[3][0]["is_success"]
    vec_env.close()


@needs_vulkan
def test_actions_are_repeated_until_the_episode_ends():
    env = make_env(TASK, seed=1, action_repeat=3, max_episode_steps=4)
    bare = make_env(TASK, seed=1, max_episode_steps=4)
    env.reset(), bare.reset()
    action = np.full(8, 0.2, np.float32)
    rewards = [bare.step(action)[1] for _ in range(4)]
    _, reward, _, truncated, info = env.step(action)
    assert reward == pytest.approx(sum(rewards[:3]), abs=1e-5)
    assert (truncated, info["frames"]) == (False, 3)
    _, reward, _, truncated, info = env.step(action)
    assert reward == pytest.approx(rewards[3], abs=1e-5)
    assert (truncated, info["frames"]) == (True, 1)
    env.close(), bare.close()


@needs_vulkan
@pytest.mark.parametrize(
    ("obs", "obs_kwargs"),
    [("state", {}), ("pixels", {"state": "agent", "size": (36, 48)}), ("pointcloud", {"num_points": 64, **CROP})],
)
def test_each_kind_of_observation_passes_sb3_own_checks(obs, obs_kwargs):
    env = make_env(TASK, obs=obs, obs_kwargs=obs_kwargs, seed=0, render_mode="rgb_array")
    check_env(env, warn=False)
    if obs == "pixels":
        assert env.observation_space["pixels"].shape == (3, 36, 48)
        assert env.observation_space["state"].shape[0] < 42  # without the poses of objects
        assert env.reset()[0]["pixels"].std() > 10
    env.close()


@needs_vulkan
def test_points_lie_on_the_cube_where_the_simulation_has_it():
    vec_env = make_vec_env(TASK, obs="pointcloud", obs_kwargs={"num_points": 2048, "color": True, **CROP}, seed=0)
    cloud = vec_env.reset()["point_cloud"][0]
    pose = vec_env.batch.source.unwrapped.cube.pose
    rotation = pose.to_transformation_matrix()[0, :3, :3].numpy()
    local = (cloud[:, :3] - pose.p[0].numpy()) @ rotation  # in the cube's own axes
    red = (cloud[:, 3] > 0.4) & (cloud[:, 4] < 0.25) & (cloud[:, 5] < 0.25)
    on_cube = red & (np.abs(local).max(axis=1) < 0.04)
    assert on_cube.sum() >= 5
    # Its half size is 0.02 m: the farthest coordinate of a surface point is that, within 5 mm.
    np.testing.assert_allclose(np.abs(local[on_cube]).max(axis=1), 0.02, atol=0.005)
    low, high = np.array(CROP["crop_low"]), np.array(CROP["crop_high"])
    assert ((cloud[:, :3] >= low) & (cloud[:, :3] <= high)).all()
    vec_env.close()


@needs_vulkan
def test_an_empty_crop_box_is_padded_with_a_warning():
    empty = {"num_points": 16, "crop_low": (5.0, 5.0, 5.0), "crop_high": (6.0, 6.0, 7.0), "color": True}
    with pytest.warns(UserWarning, match="see no point between"):
        env = make_env(TASK, obs="pointcloud", obs_kwargs=empty, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cloud = env.reset()[0]["point_cloud"]
    np.testing.assert_array_equal(cloud, np.tile([5.5, 5.5, 6.0, 0.0, 0.0, 0.0], (16, 1)))
    env.close()


@needs_vulkan
def test_several_on_a_cpu_are_simulated_one_by_one():
    vec_env = make_vec_env(TASK, 2, seed=0)
    assert isinstance(vec_env, DummyVecEnv)
    observations = vec_env.reset()
    assert not np.array_equal(observations[0], observations[1])
    assert torch.isfinite(torch.as_tensor(vec_env.step(np.zeros((2, 8)))[1])).all()
    vec_env.close()
    with pytest.raises(ValueError, match=r"needs one robot with a Box action space"):
        make_env("maniskill/TwoRobotPickCube")
