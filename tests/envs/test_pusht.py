"""Push-T from positions and from images."""

import sys

import numpy as np
import pytest
from stable_baselines3.common.env_checker import check_env

from difftori_gym.envs import make_env, make_vec_env, parse_task

pytest.importorskip("gym_pusht")


@pytest.mark.parametrize(
    "arguments",
    [{}, {"obs": "pixels"}, {"obs": "pixels", "obs_kwargs": {"size": (36, 48), "state": "agent"}}],
    ids=["state", "pixels", "pixels and agent"],
)
def test_it_passes_sb3_own_checks_and_repeats(arguments):
    env = make_env("pusht/PushT", seed=0, **arguments)
    check_env(env, warn=False)
    other = make_env("pusht/PushT", seed=0, **arguments)
    env = make_env("pusht/PushT", seed=0, **arguments)
    np.testing.assert_equal(env.reset()[0], other.reset()[0])
    for action in ([100.0, 400.0], [300.0, 200.0]):
        one, again = env.step(np.array(action, np.float32)), other.step(np.array(action, np.float32))
        np.testing.assert_equal(one[0], again[0])
        assert one[1] == again[1]
    assert one[4]["frames"] == 1


def test_images_show_the_scene():
    env = make_env("pusht/PushT", seed=3, obs="pixels", obs_kwargs={"state": "agent"})
    observation, _ = env.reset()
    assert observation["pixels"].shape == (3, 96, 96)
    state = env.unwrapped.agent.position
    np.testing.assert_allclose(observation["state"], state)
    # The disc is blue where the state says it is.
    column, row = (np.array(state) * 96 / 512).astype(int)
    red, _, blue = observation["pixels"][:, row, column].astype(int)
    assert blue > red + 50
    assert make_env("pusht/PushT", obs="pixels", obs_kwargs={"size": 84}).observation_space.shape == (3, 84, 84)


def test_success_ends_the_episode_and_the_time_limit_cuts_it():
    env = make_env("pusht/PushT", seed=0)
    env.reset()
    goal = env.unwrapped.goal_pose
    env.reset(options={"reset_to_state": [50.0, 50.0, *goal]})
    env.unwrapped.block.position, env.unwrapped.block.angle = list(goal[:2]), goal[2]
    *_, terminated, truncated, info = env.step(np.array([50.0, 50.0], np.float32))
    assert (terminated, truncated, bool(info["is_success"])) == (True, False, True)

    vec_env = make_vec_env("pusht/PushT", 2, seed=0)
    vec_env.reset()
    for _ in range(300):
        _, _, dones, infos = vec_env.step(np.full((2, 2), 256.0))
    assert dones.all()
    assert all(info["TimeLimit.truncated"] and not info["is_success"] for info in infos)


def test_names_and_wrong_ones(monkeypatch):
    assert {str(parse_task(f"pusht/{name}")) for name in ("PushT", "PushT-v0", "push-t")} == {"pusht/PushT"}
    with pytest.raises(ValueError, match=r"Unknown task 'PullT' of pusht\. Choices: PushT"):
        make_env("pusht/PullT")
    with pytest.raises(ValueError, match=r"pusht does not offer obs='pointcloud'\. Choices: state, pixels\.$"):
        make_env("pusht/PushT", obs="pointcloud")
    with pytest.raises(ValueError, match=r"Unknown obs_kwargs 'camera' of obs='pixels'\. Choices: size, state"):
        make_env("pusht/PushT", obs="pixels", obs_kwargs={"camera": 0})
    with pytest.raises(ValueError, match=r"Unknown state 'all' of Push-T's pixels\. Choices: none, agent"):
        make_env("pusht/PushT", obs="pixels", obs_kwargs={"state": "all"})
    with pytest.raises(ValueError, match="at least 1 pixel, got 0"):
        make_env("pusht/PushT", obs="pixels", obs_kwargs={"size": 0})
    assert make_env("pusht/PushT", obs="pixels", obs_kwargs={"size": [32, 48]}).observation_space.shape == (3, 32, 48)
    monkeypatch.setitem(sys.modules, "gym_pusht", None)
    with pytest.raises(ImportError, match=r'Run: pip install "difftori-gym\[pusht\]"'):
        make_env("pusht/PushT")
