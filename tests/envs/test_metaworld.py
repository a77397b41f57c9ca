"""MetaWorld behind ``make_env``."""

import sys

import numpy as np
import pytest

from difftori_gym.envs import SUITES, make_env, make_vec_env, parse_task, parse_tasks
from difftori_gym.envs.registry import _check_reward
from difftori_gym.envs.rendering import select_gl_backend
from difftori_gym.envs.suite import TaskId

select_gl_backend()  # before the first import of MuJoCo
pytest.importorskip("metaworld")

from difftori_gym.envs.metaworld import CORNER2_POSITION, scripted_expert  # noqa: E402


@pytest.mark.parametrize("id", ["metaworld/sweep-into", "metaworld/sweep-into-v3", "metaworld/sweep_into"])
def test_a_task_may_be_written_in_several_ways(id):
    assert str(parse_task(id)) == "metaworld/sweep-into"


def test_unknown_tasks_are_told_with_the_closest_first():
    with pytest.raises(ValueError, match=r"^Unknown task 'reech' of metaworld\. Choices: reach, "):
        make_env("metaworld/reech")
    with pytest.raises(ValueError, match=r"^Unknown task 'reech' of metaworld\. Choices: reach, "):
        scripted_expert("reech")


def test_the_papers_22_tasks_exist():
    tasks = [task.task for task in parse_tasks(["metaworld/paper"])]
    assert len(tasks) == len(set(tasks)) == 22
    assert set(tasks) <= set(SUITES["metaworld"].tasks())
    assert len(SUITES["metaworld"].tasks()) == 50


def test_without_the_package_the_install_command_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "metaworld", None)
    with pytest.raises(ImportError, match=r'Run: pip install "difftori-gym\[metaworld\]"'):
        make_env("metaworld/reach")


def test_an_episode_with_the_expert_and_its_success_is_kept():
    env = make_env("metaworld/button-press", seed=0)
    expert = scripted_expert("metaworld/button-press-v3")
    observation, _ = env.reset()
    assert observation.shape == (39,)
    assert observation.dtype == env.observation_space.dtype == env.action_space.dtype == np.float32
    steps = []
    while not steps or not steps[-1][3]:
        # Once the button is in, the hand goes up again and success of the frame ends.
        succeeded = bool(steps) and steps[-1][-1]["is_success"]
        action = np.array([0.0, -1.0, 1.0, 0.0], np.float32) if succeeded else expert(observation)
        assert env.action_space.contains(action)
        observation, *rest = env.step(action)
        assert env.observation_space.contains(observation)
        steps.append((observation, *rest))
    now = [bool(step[-1]["success"]) for step in steps]
    kept = [step[-1]["is_success"] for step in steps]
    assert len(steps) == 500
    assert not any(step[2] for step in steps)
    assert any(now)
    assert not all(now[now.index(True) :])
    assert kept == [any(now[: k + 1]) for k in range(500)]
    env.reset()
    assert not env.step(action)[-1]["is_success"]  # the next episode starts without it


def test_the_time_limit_may_be_shorter():
    env = make_env("metaworld/reach", seed=0, max_episode_steps=3)
    env.reset()
    assert [env.step(env.action_space.sample())[3] for _ in range(3)] == [False, False, True]
    with pytest.raises(ValueError, match="1 <= max_episode_steps <= 500, got 501"):
        make_env("metaworld/reach", max_episode_steps=501)


def test_success_alone_may_be_the_reward():
    env = make_env("metaworld/button-press", seed=0, reward="success", action_repeat=2, max_episode_steps=200)
    expert = scripted_expert("metaworld/button-press")
    env.reset()
    steps = []
    while not steps or not steps[-1][3]:
        steps.append(env.step(expert(env.get_wrapper_attr("state"))))
    assert len(steps) == 100
    assert [step[1] for step in steps] == [float(step[-1]["success"]) for step in steps]
    assert {step[1] for step in steps} == {0.0, 1.0}
    vec_env = make_vec_env("metaworld/reach", 1, reward="success")
    vec_env.reset()
    assert vec_env.step(np.zeros((1, 4)))[1][0] == 0.0
    with pytest.raises(ValueError, match=r"Unknown reward 'sparse'. Choices: environment, success"):
        make_env("metaworld/reach", reward="sparse")
    with pytest.raises(ValueError, match=r"ManiSkill has reward_mode='sparse' of its own"):
        _check_reward("success", TaskId("maniskill", "PickCube"))


def test_goals_come_from_the_seed_and_change_with_every_episode():
    env = make_env("metaworld/reach", seed=5)
    goals = [env.reset()[0][-3:] for _ in range(3)]
    again = make_env("metaworld/reach", seed=5)
    np.testing.assert_array_equal(goals, [again.reset()[0][-3:] for _ in range(3)])
    assert len({tuple(goal) for goal in goals}) == 3
    np.testing.assert_array_equal(again.reset(seed=5)[0][-3:], goals[0])
    # without reset(seed=...), the seed given at construction counts
    bare = SUITES["metaworld"].make("reach", seed=5, render_mode=None)
    np.testing.assert_array_equal(bare.reset()[0][-3:], goals[0])


def test_the_expert_reads_the_state_beside_any_observation():
    env = make_env("metaworld/reach", seed=1, max_episode_steps=200)
    expert = scripted_expert("reach")
    env.reset()
    success = False
    for _ in range(100):
        success = env.step(expert(env.get_wrapper_attr("state")))[-1]["is_success"]
    assert success
    assert env.get_wrapper_attr("agent_position")().shape == (9,)


def test_the_papers_camera_is_upright():
    """The hand, raised above the table, is drawn in the upper half of the image."""
    env = make_env("metaworld/reach", seed=1, render_mode="rgb_array", width=64, height=48)
    env.reset()
    image = env.render()
    assert image.shape == (48, 64, 3)
    assert image.dtype == np.uint8
    pose = env.get_wrapper_attr("cameras").pose("corner2")
    np.testing.assert_allclose(pose.position, CORNER2_POSITION)
    assert pose.rotation[2, 1] > 0.5  # the image's upward axis points up in the world
    env.close()


def test_cameras_that_do_not_exist_are_told():
    with pytest.raises(ValueError, match=r"^Unknown camera 'corner9'\. Choices: topview, corner, corner2, "):
        make_env("metaworld/reach", camera="corner9")
