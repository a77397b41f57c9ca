"""Normalisers carry the training set to [-1, 1] and are saved with their module."""

import dataclasses

import numpy as np
import pytest
import torch
from gymnasium import spaces

from difftori_gym.il import Demonstrations, Episode, ObservationNormalizer


@pytest.fixture
def mixed() -> Demonstrations:
    """A vector with a constant entry, an image, a cloud."""
    generator = np.random.default_rng(0)
    episodes = tuple(
        Episode(
            observations={
                "agent.pos": np.stack([generator.normal(5, 2, 9), np.full(9, 7.0)], axis=1).astype(np.float32),
                "image": generator.integers(0, 256, (9, 4, 4, 3), dtype=np.uint8),
                "point_cloud": generator.normal([0, 1, 2], [1, 2, 3], (9, 16, 3)).astype(np.float32),
            },
            actions=generator.uniform(-1, 1, (8, 2)).astype(np.float32),
            rewards=np.zeros(8),
            terminated=False,
            truncated=True,
        )
        for _ in range(2)
    )
    space = spaces.Dict(
        {
            "agent.pos": spaces.Box(-np.inf, np.inf, (2,)),
            "image": spaces.Box(0, 255, (4, 4, 3), np.uint8),
            "point_cloud": spaces.Box(-np.inf, np.inf, (16, 3)),
        }
    )
    return Demonstrations(episodes, space, spaces.Box(-1, 1, (2,)))


def training_observations(mixed: Demonstrations) -> dict[str, torch.Tensor]:
    keys = mixed.episodes[0].observations
    return {
        key: torch.as_tensor(np.concatenate([each.observations[key][:-1] for each in mixed.episodes])) for key in keys
    }


def test_ranges_of_the_training_set(mixed):
    normalizer = ObservationNormalizer(mixed.observation_space)
    normalizer.fit(mixed)
    raw = training_observations(mixed)
    scaled = normalizer(raw)
    vector = scaled["agent.pos"]
    torch.testing.assert_close(vector.amin(0), torch.tensor([-1.0, 0.0]))
    torch.testing.assert_close(vector.amax(0), torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(scaled["image"], raw["image"] / 255.0)
    torch.testing.assert_close(scaled["point_cloud"].amin((0, 1)), -torch.ones(3))
    torch.testing.assert_close(scaled["point_cloud"].amax((0, 1)), torch.ones(3))
    with pytest.raises(ValueError, match="Unknown clouds 'box'"):
        ObservationNormalizer(mixed.observation_space, clouds="box")


def test_any_leading_axes(mixed):
    normalizer = ObservationNormalizer(mixed.observation_space)
    normalizer.fit(mixed)
    windows = mixed.windows(n_obs_steps=3, horizon=2, n_action_steps=1).batch(np.arange(4))
    scaled = normalizer({key: torch.as_tensor(value) for key, value in windows.observations.items()})
    single = normalizer({key: torch.as_tensor(value[2, 1]) for key, value in windows.observations.items()})
    for key, value in scaled.items():
        torch.testing.assert_close(value[2, 1], single[key])


def test_clouds_may_stay_as_they_are(mixed):
    normalizer = ObservationNormalizer(mixed.observation_space, clouds="none")
    normalizer.fit(mixed)
    raw = training_observations(mixed)
    torch.testing.assert_close(normalizer(raw)["point_cloud"], raw["point_cloud"])


def test_a_lone_array(numbered):
    normalizer = ObservationNormalizer(numbered.observation_space)
    normalizer.fit(numbered)
    # The closing observation, 207, is beyond the largest at which something is done, 206.
    expected = torch.tensor([-1.0, 1.0]), torch.tensor([1.0, -1.0])
    torch.testing.assert_close(normalizer(torch.tensor([0.0, 0.0])), expected[0])
    torch.testing.assert_close(normalizer(torch.tensor([206.0, -206.0])), expected[1])


def test_state_is_float_and_restores(mixed):
    fitted, fresh = (ObservationNormalizer(mixed.observation_space) for _ in range(2))
    fitted.fit(mixed)
    state = fitted.state_dict()
    assert state
    assert all(value.is_floating_point() and value.numel() for value in state.values())
    fresh.load_state_dict(state)
    raw = training_observations(mixed)
    for key, value in fitted(raw).items():
        torch.testing.assert_close(fresh(raw)[key], value, rtol=0, atol=0)


def test_fitting_again_forgets(numbered):
    normalizer = ObservationNormalizer(numbered.observation_space)
    normalizer.fit(numbered)
    first = {key: value.clone() for key, value in normalizer.state_dict().items()}
    normalizer.fit(dataclasses.replace(numbered, episodes=numbered.episodes[:1]))
    normalizer.fit(numbered)
    for key, value in normalizer.state_dict().items():
        torch.testing.assert_close(value, first[key], rtol=0, atol=0)
