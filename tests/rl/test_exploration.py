"""Schedules of the planning horizon and of exploration, and correlated noise."""

from __future__ import annotations

import numpy as np
import pytest

from difftori_gym.rl.exploration import CorrelatedNoise, PlanningSchedule


def test_schedules_are_linear_and_end() -> None:
    schedule = PlanningSchedule(1, 5, 0.5, 0.05, 25_000)
    assert schedule.at(0) == (1, 0.5)
    assert schedule.at(6_249)[0] == 1
    assert schedule.at(6_250)[0] == 2
    assert schedule.at(12_500)[1] == pytest.approx(0.275)
    assert schedule.at(24_999)[0] == 4
    for late in (25_000, 10**9):
        horizon, std = schedule.at(late)
        assert horizon == 5
        assert std == pytest.approx(0.05)


def test_no_steps_means_the_end_at_once() -> None:
    assert PlanningSchedule(1, 3, 0.5, 0.1, 0).at(0) == (3, pytest.approx(0.1))


@pytest.mark.parametrize("correlation", [0.0, 0.6, 0.95])
def test_noise_has_unit_variance_and_the_correlation(correlation: float) -> None:
    np.random.seed(0)
    noise = CorrelatedNoise(correlation)
    draws = np.stack([noise((200, 2)) for _ in range(400)]).reshape(400, -1)
    assert draws.dtype == np.float32
    assert draws.var() == pytest.approx(1.0, abs=0.08)
    assert (draws[1:] * draws[:-1]).mean() == pytest.approx(correlation, abs=0.05)


def test_noise_of_another_shape_starts_anew() -> None:
    noise = CorrelatedNoise(0.9)
    noise((2, 1))
    assert noise((3, 1)).shape == (3, 1)


@pytest.mark.parametrize("correlation", [-0.1, 1.0, float("nan")])
def test_noise_refuses_correlations_outside_its_range(correlation: float) -> None:
    with pytest.raises(ValueError, match="0 <= correlation < 1"):
        CorrelatedNoise(correlation)
