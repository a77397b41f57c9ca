"""What holds for every suite and every kind of observation behind ``make_env``."""

import importlib.util

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env as gymnasium_check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from stable_baselines3.common.vec_env import DummyVecEnv

from difftori_gym.envs import SUITES, make_env, make_vec_env, parse_task
from difftori_gym.envs.observations import adjusted
from difftori_gym.envs.rendering import select_gl_backend

select_gl_backend()  # before the first import of MuJoCo

# id -> arguments that make its episodes short, and their length in agent steps
TASKS = {
    "dm_control/cartpole-swingup": ({"action_repeat": 200}, 5),
    "metaworld/reach": ({"max_episode_steps": 4}, 4),
    "robosuite/Lift": ({"max_episode_steps": 4}, 4),
    "Pendulum-v1": ({"action_repeat": 60}, 4),
}
KINDS = ("state", "pixels", "pointcloud")
CASES = [(id, obs) for id in TASKS for obs in KINDS if (id, obs) != ("Pendulum-v1", "pointcloud")]
NEEDS = {"Pendulum-v1": ("pygame",)}


def require(id):
    packages = NEEDS[id] if id in NEEDS else SUITES[id.partition("/")[0]].packages
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{id} needs {package}")


@pytest.fixture(scope="module", params=CASES, ids=[f"{id}-{obs}" for id, obs in CASES])
def case(request):
    id, obs = request.param
    require(id)
    arguments, length = TASKS[id]
    small = {"num_points": 128} if obs == "pointcloud" else None
    env = make_env(id, obs=obs, obs_kwargs=small, seed=3, **arguments)
    yield id, obs, env, length
    env.close()


# The checker knows bare environments only, and remarks on what a policy's feature extractor takes care of.
@pytest.mark.filterwarnings("ignore:.*The environment .* is different from the unwrapped version:UserWarning")
@pytest.mark.filterwarnings("ignore:.*A Box observation space (minimum|maximum) value is.*infinity:UserWarning")
@pytest.mark.filterwarnings("ignore:.*we recommend using a symmetric and normalized space:UserWarning")
@pytest.mark.filterwarnings("ignore:.*Not able to test alternative render modes:UserWarning")
def test_gymnasiums_checker_passes(case):
    gymnasium_check_env(case[2], skip_render_check=True)


def test_stable_baselines_checker_passes(case):
    sb3_check_env(case[2], warn=False)


def equal(first, second):
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(equal(first[key], second[key]) for key in first)
    return np.array_equal(first, second)


def episode(env, seed):
    """Observations, rewards and ends of one episode with actions of the seed."""
    env.action_space.seed(seed)
    rows = [(env.reset(seed=seed)[0], 0.0, False, False)]
    while not (rows[-1][2] or rows[-1][3]):
        rows.append(env.step(env.action_space.sample())[:4])
    return rows


def test_an_episode_repeats_with_its_seed_and_is_truncated_in_time(case):
    _, _, env, length = case
    first, other, again = episode(env, 7), episode(env, 8), episode(env, 7)
    assert len(first) == length + 1
    assert [row[3] for row in first] == [False] * length + [True]
    assert not any(row[2] for row in first)
    assert all(equal(a[0], b[0]) and a[1:] == b[1:] for a, b in zip(first, again, strict=True))
    assert not equal(first[-1][0], other[-1][0])


def test_spaces_hold_what_is_observed_in_the_right_precision(case):
    _, obs, env, _ = case
    rows = episode(env, 1)
    assert all(env.observation_space.contains(row[0]) for row in rows)
    assert env.action_space.dtype == np.float32
    assert np.isfinite([env.action_space.low, env.action_space.high]).all()
    space = env.observation_space
    if obs == "state":
        assert isinstance(space, spaces.Box)
        assert space.dtype == np.float32
        assert len(space.shape) == 1
    elif obs == "pixels":
        assert space.dtype == np.uint8
        assert space.shape[0] % 3 == 0
        assert space.shape[1:] == (84, 84)
        assert rows[-1][0].std() > 5  # not an empty picture
    else:
        assert set(space) == {"point_cloud", "agent_pos"}
        assert all(entry.dtype == np.float32 for entry in space.values())
        cloud = rows[-1][0]["point_cloud"]
        assert len(np.unique(cloud, axis=0)) > 50
        assert np.isfinite(cloud).all()


def test_frames_are_counted(case):
    _, _, env, _ = case
    env.reset(seed=0)
    info = env.step(env.action_space.sample())[-1]
    assert info["frames"] >= 1


@pytest.mark.parametrize("id", TASKS)
def test_unknown_kinds_of_observation_are_told(id):
    require(id)
    with pytest.raises(ValueError, match=r"^Unknown obs 'rgb'\. Choices: state, pixels, pointcloud\.$"):
        make_env(id, obs="rgb")
    with pytest.raises(ValueError, match=r"^Unknown obs 'rgb'\. Choices: state, pixels, pointcloud\.$"):
        make_vec_env(id, 2, obs="rgb")


def test_a_kind_that_a_suite_does_not_offer_is_told():
    with pytest.raises(ValueError, match=r"^gymnasium does not offer obs='pointcloud'\. Choices: state, pixels\.$"):
        make_env("Pendulum-v1", obs="pointcloud")


@pytest.mark.parametrize("id", [id for id in TASKS if "/" in id])
def test_unknown_cameras_are_told(id):
    require(id)
    with pytest.raises(ValueError, match=r"^Unknown camera 'moon'\. Choices: "):
        make_env(id, obs="pixels", obs_kwargs={"camera": "moon"})
    with pytest.raises(ValueError, match=r"^Unknown camera 99\. Choices: "):
        make_env(id, obs="pointcloud", obs_kwargs={"cameras": (99,)})


def test_bad_settings_of_observations_are_told():
    with pytest.raises(
        ValueError, match=r"^Unknown obs_kwargs 'colour' of obs='pixels'\. Choices: camera, size, state"
    ):
        make_env("Pendulum-v1", obs="pixels", obs_kwargs={"colour": True})
    with pytest.raises(ValueError, match=r"^Unknown obs_kwargs 'size' of obs='state'\. Choices: noise, pendulums"):
        make_env("Pendulum-v1", obs_kwargs={"size": 64})
    with pytest.raises(ValueError, match="frame_stack >= 1, got 0"):
        make_env("Pendulum-v1", obs="pixels", frame_stack=0)
    with pytest.raises(ValueError, match="at least 1 pixel, got 0"):
        make_env("Pendulum-v1", obs="pixels", obs_kwargs={"size": 0})


def test_clouds_are_not_stacked():
    require("dm_control/cartpole-swingup")
    preset = SUITES["dm_control"].preset("cartpole-swingup", "pointcloud")
    with pytest.raises(ValueError, match=r"^Point clouds are not stacked, got frame_stack=2"):
        adjusted(preset, 2, None, "pointcloud")


def test_frames_are_stacked_with_the_newest_last():
    env = make_env("Pendulum-v1", obs="pixels", seed=0, obs_kwargs={"size": 32})
    first = env.reset()[0]
    assert first.shape == (9, 32, 32)
    np.testing.assert_array_equal(first[:3], first[6:])  # the first image is repeated
    second = env.step(np.ones(1, np.float32))[0]
    third = env.step(np.ones(1, np.float32))[0]
    np.testing.assert_array_equal(second[:6], first[3:])
    np.testing.assert_array_equal(third[:6], second[3:])
    assert not np.array_equal(third[6:], third[3:6])


def test_states_are_stacked_too():
    env = make_env("Pendulum-v1", seed=0, frame_stack=2)
    first = env.reset()[0]
    assert first.shape == env.observation_space.shape == (6,)
    np.testing.assert_array_equal(env.step(np.ones(1, np.float32))[0][:3], first[3:])


@pytest.mark.parametrize("obs", ["pixels", "pointcloud"])
def test_several_environments_in_one_process_draw_their_own_pictures(obs):
    require("dm_control/cartpole-swingup")
    vec_env = make_vec_env("dm_control/cartpole-swingup", 2, obs=obs, seed=0)
    assert isinstance(vec_env, DummyVecEnv)
    observations = vec_env.reset()
    alone = make_env("dm_control/cartpole-swingup", obs=obs, seed=1).reset()[0]
    second = {key: value[1] for key, value in observations.items()} if obs == "pointcloud" else observations[1]
    assert equal(second, alone)
    vec_env.close()


def test_ids_lead_to_their_suites():
    assert {parse_task(id).suite for id in TASKS} == {"dm_control", "metaworld", "robosuite", "gymnasium"}
    assert isinstance(make_env("Pendulum-v1"), gym.Env)
