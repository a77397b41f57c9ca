"""robosuite behind ``make_env``, as robomimic runs it."""

import sys

import numpy as np
import pytest

from difftori_gym.envs import SUITES, make_env, parse_task
from difftori_gym.envs.rendering import select_gl_backend

select_gl_backend()  # before the first import of MuJoCo

from difftori_gym.envs.robosuite import TASKS  # noqa: E402

try:
    SUITES["robosuite"].require()
except ImportError as error:
    pytest.skip(str(error), allow_module_level=True)


@pytest.mark.parametrize(
    ("id", "task"),
    [
        ("robosuite/Square", "Square"),
        ("robosuite/NutAssemblySquare", "Square"),
        ("robosuite/can", "Can"),
        ("robosuite/PickPlaceCan", "Can"),
        ("robosuite/tool_hang", "ToolHang"),
        ("robosuite/TwoArmTransport", "Transport"),
    ],
)
def test_a_task_may_be_written_in_several_ways(id, task):
    assert parse_task(id).task == task


def test_unknown_tasks_are_told():
    with pytest.raises(ValueError, match=r"^Unknown task 'Lft' of robosuite\. Choices: Lift, Can, Square, ToolHang"):
        make_env("robosuite/Lft")


def test_without_the_package_the_install_command_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "robosuite", None)
    with pytest.raises(ImportError, match=r'Run: pip install "difftori-gym\[robosuite\]"'):
        make_env("robosuite/Lift")


# Sizes of robomimic's low-dimensional observations: arms and objects.
@pytest.mark.parametrize(("task", "observed", "controlled"), [("Lift", 19, 7), ("Transport", 59, 14)])
def test_observations_and_actions_are_robomimics(task, observed, controlled):
    env = make_env(f"robosuite/{task}", seed=0)
    observation, _ = env.reset()
    assert observation.shape == env.observation_space.shape == (observed,)
    assert env.action_space.shape == (controlled,)
    assert (env.action_space.low == -1.0).all()
    assert (env.action_space.high == 1.0).all()
    assert env.get_wrapper_attr("agent_position")().shape == (9 * TASKS[task].robots,)
    source = env.unwrapped._source
    assert source.control_freq == 20
    assert not source.hard_reset
    for robot in source.robots:
        controller = robot.part_controllers["right"]
        assert (controller.name, controller.input_ref_frame, controller.input_type) == ("OSC_POSE", "world", "delta")
        np.testing.assert_allclose(controller.output_max, [0.05] * 3 + [0.5] * 3)
        np.testing.assert_allclose(controller.kp, 150)
    env.close()


@pytest.fixture(scope="module")
def lift():
    env = make_env("robosuite/Lift", seed=0)
    yield env
    env.close()


def test_an_action_moves_the_gripper_along_the_worlds_axes(lift):
    start = lift.reset(seed=0)[0][:3]
    for _ in range(10):
        observation = lift.step(np.array([1, 0, 0, 0, 0, 0, -1], np.float32))[0]
    moved = observation[:3] - start
    assert moved[0] > 0.1
    assert np.abs(moved[1:]).max() < 0.03


def test_cameras_show_the_model_that_a_hard_reset_builds():
    env = make_env("robosuite/Lift", obs="pixels", seed=0, hard_reset=True, obs_kwargs={"camera": "agentview"})
    first = env.reset()[0]
    for _ in range(10):
        moved = env.step(np.array([1, 1, 1, 0, 0, 0, 0], np.float32))[0]
    model, data = env.get_wrapper_attr("cameras")._simulation()
    source = env.unwrapped._source
    assert (model, data) == (source.sim.model._model, source.sim.data._data)
    assert np.abs(moved.astype(int) - first).sum() > 10_000
    env.close()


def test_success_is_kept_while_the_cube_falls_back(lift):
    lift.reset(seed=0)
    source = lift.unwrapped._source
    nothing = np.zeros(7, np.float32)
    assert not lift.step(nothing)[-1]["is_success"]
    joint = source.cube.joints[0]
    source.sim.data.set_joint_qpos(joint, np.array([0.2, 0.2, 0.95, 1.0, 0.0, 0.0, 0.0]))
    infos = [lift.step(nothing)[-1] for _ in range(10)]
    assert infos[0]["success"]
    assert not infos[-1]["success"]
    assert all(info["is_success"] for info in infos)
    lift.reset(seed=0)
    assert not lift.step(nothing)[-1]["is_success"]


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="max_episode_steps >= 1, got 0"):
        make_env("robosuite/Lift", max_episode_steps=0)
    with pytest.raises(ValueError, match="render_mode='rgb_array' only, got 'human'"):
        make_env("robosuite/Lift", render_mode="human")
