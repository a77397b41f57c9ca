"""A planned path is the path the simulation then takes, and asking for it changes nothing."""

import numpy as np
import pytest

from difftori_gym.envs import make_env
from difftori_gym.envs.planned_path import PlannedPath
from difftori_gym.envs.rendering import gl_backend_works, select_gl_backend

select_gl_backend()  # before the first import of MuJoCo
pytest.importorskip("dm_control")

TASKS = [
    "dm_control/cartpole-swingup",
    "dm_control/cheetah-run",
    "dm_control/cup-catch",
    "dm_control/finger-spin",
    "dm_control/hopper-stand",
    "dm_control/pendulum-swingup",
    "dm_control/quadruped-walk",
    "dm_control/reacher-easy",
    "dm_control/walker-walk",
    "metaworld/reach",
    "metaworld/hammer",
]


def actions_of(env, number):
    rng = np.random.default_rng(0)
    return rng.uniform(-1, 1, (number, *env.action_space.shape)).astype(np.float32)


def path_of(env):
    """What ``planned_pixels`` calls, with the repeated actions of one environment frame each."""
    while not isinstance(vars(env).get("planned_pixels"), PlannedPath):
        env = env.env
    return vars(env)["planned_pixels"]


@pytest.mark.parametrize("id", TASKS)
def test_the_path_is_the_one_the_simulation_takes(id):
    if id.startswith("metaworld"):
        pytest.importorskip("metaworld")
    env = make_env(id, seed=0, render_mode="rgb_array")
    env.reset()
    actions = actions_of(env, 14)
    for action in actions[:10]:
        env.step(action)
    repeats = env.get_wrapper_attr("num_repeats")
    assert env.get_wrapper_attr("planned_pixels")(actions[10:]).shape == (1 + 4 * repeats, 2)
    path = path_of(env)
    planned = path.positions(np.repeat(actions[10:], repeats, axis=0))
    assert np.abs(planned[-1] - planned[0]).max() > 1e-4
    for number, action in enumerate(actions[10:], start=1):
        env.step(action)
        np.testing.assert_allclose(planned[number * repeats], path.positions(actions[:0])[0], atol=1e-9)
    env.close()


def test_asking_changes_nothing():
    episodes = []
    for asks in (False, True):
        env = make_env("dm_control/walker-walk", seed=0, render_mode="rgb_array")
        observations = [env.reset()[0]]
        for action in actions_of(env, 20):
            if asks:
                env.get_wrapper_attr("planned_pixels")(actions_of(env, 3))
            observations.append(env.step(action)[0])
        episodes.append(np.array(observations))
        env.close()
    np.testing.assert_array_equal(*episodes)


def test_the_pixels_are_where_the_point_is_drawn():
    if not (gl_backend_works("egl") or gl_backend_works("osmesa")):
        pytest.skip("MuJoCo cannot draw on this machine")
    env = make_env("dm_control/reacher-easy", seed=1, render_mode="rgb_array", width=200, height=160)
    env.reset()
    (column, row), *_ = env.get_wrapper_attr("planned_pixels")(actions_of(env, 0))
    image = env.render().astype(float)
    env.close()
    # The finger is a yellow ball on a dark blue ground.
    around = image[round(row) - 2 : round(row) + 3, round(column) - 2 : round(column) + 3].mean((0, 1))
    assert around[0] > around[2] + 50
    far = image[round(row) - 2 : round(row) + 3, (round(column) + 60) % 200]
    assert (far[:, 0] < far[:, 2] + 50).all()


def test_a_domain_without_a_point_to_follow_says_so():
    env = make_env("dm_control/lqr-lqr-2-1", seed=0, render_mode="rgb_array")
    assert not env.has_wrapper_attr("planned_pixels")
    env.close()
