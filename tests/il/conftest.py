"""Small demonstrations whose every number tells where it is from."""

import numpy as np
import pytest
from gymnasium import spaces

from difftori_gym.il import Demonstrations, Episode


def numbered_episode(length: int, start: int, **fields) -> Episode:
    """Observation t holds start + t; action t holds (start + t) / 1000."""
    numbers = np.arange(start, start + length + 1, dtype=np.float32)
    settings = dict(terminated=False, truncated=True, success=True, seed=start) | fields
    return Episode(
        observations=np.stack([numbers, -numbers], axis=1),
        actions=(numbers[:-1] / 1000)[:, None],
        rewards=numbers[:-1].astype(np.float64),
        **settings,
    )


@pytest.fixture(scope="session")
def make_numbered_episode():
    return numbered_episode


@pytest.fixture
def numbered() -> Demonstrations:
    """Episodes of 5, 4 and 7 actions."""
    return Demonstrations(
        episodes=(numbered_episode(5, 0), numbered_episode(4, 100), numbered_episode(7, 200)),
        observation_space=spaces.Box(-np.inf, np.inf, (2,), np.float32),
        action_space=spaces.Box(-1, 1, (1,), np.float32),
        env_id="numbers",
        source="numbers.hdf5",
    )
