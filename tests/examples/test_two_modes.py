"""The two-mode task: its demonstrations show both sides, and nothing passes through the obstacle."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env


@pytest.fixture(scope="module")
def two_modes():
    path = Path(__file__).resolve().parents[2] / "examples" / "two_modes.py"
    spec = importlib.util.spec_from_file_location("two_modes", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["two_modes"] = module  # records look up their own module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["two_modes"]


def test_environment(two_modes):
    check_env(two_modes.TwoModes(), skip_render_check=True)
    env = two_modes.TwoModes()
    env.reset(seed=0)
    for _ in range(20):  # straight up, through the obstacle
        _, reward, terminated, _, info = env.step(np.array([0.0, 1.0], np.float32))
        if terminated:
            break
    assert info["hit"]
    assert not info["is_success"]
    assert reward == 0.0


def test_demonstrations_show_both_sides(two_modes):
    demonstrations = two_modes.demonstrate(10, seed=0)
    sides = [np.sign(episode.observations[:, 0].sum()) for episode in demonstrations.episodes]
    assert sides == [-1, 1] * 5
    for episode in demonstrations.episodes:
        assert np.linalg.norm(episode.observations, axis=1).min() > two_modes.RADIUS
        assert np.linalg.norm(episode.observations[-1] - two_modes.GOAL) < two_modes.REACHED


def test_rollouts_count_sides_and_successes(two_modes):
    class OneSided:
        def __init__(self, side):
            self.side = side

        def predict(self, observation, state, start, deterministic):
            return np.array([two_modes.planned_velocity(each, self.side) for each in observation], np.float32), None

    for side in (-1, 1):
        rollouts = two_modes.roll_out(OneSided(side), 4, 0, True)
        assert (rollouts.sides == side).all()
        assert rollouts.successes.all()
    through = two_modes.roll_out(OneSided(0), 4, 0, True)  # it aims at a point inside the obstacle
    assert not through.successes.any()
    assert (through.sides == 0).all()
