"""Records refuse what cannot be learned from, naming file and episode."""

import dataclasses

import numpy as np
import pytest
from gymnasium import spaces

from difftori_gym.il import Demonstrations


def change(numbered: Demonstrations, index: int, **fields) -> Demonstrations:
    episodes = list(numbered.episodes)
    episodes[index] = dataclasses.replace(episodes[index], **fields)
    return dataclasses.replace(numbered, episodes=tuple(episodes))


def test_numbers_of_a_set(numbered):
    assert len(numbered) == 3
    assert numbered.num_steps == 16
    assert numbered.seeds == (0, 100, 200)
    assert numbered.take(2).episodes == numbered.episodes[:2]
    assert numbered.take(2).source == "numbers.hdf5"


@pytest.mark.parametrize("count", [0, -1, 4])
def test_take_refuses_what_is_not_there(numbered, count):
    with pytest.raises(ValueError, match=rf"numbers.hdf5: expected a number of episodes in \[1, 3\], got {count}"):
        numbered.take(count)


def test_no_episode(numbered):
    with pytest.raises(ValueError, match=r"numbers.hdf5: expected at least one episode, got none"):
        dataclasses.replace(numbered, episodes=())


def test_an_episode_checks_its_lengths(numbered):
    episode = numbered.episodes[0]
    with pytest.raises(ValueError, match="expected 6 observations beside 5 actions, the closing one counted, got 5"):
        dataclasses.replace(episode, observations=episode.observations[:-1])
    with pytest.raises(ValueError, match=r"expected rewards of shape \(5,\) beside 5 actions, got \(4,\)"):
        dataclasses.replace(episode, rewards=episode.rewards[:-1])
    with pytest.raises(ValueError, match="expected at least one action, got none"):
        dataclasses.replace(episode, actions=episode.actions[:0])
    with pytest.raises(ValueError, match="expected 6 observations under key 'image'"):
        dataclasses.replace(episode, observations={"image": np.zeros((2, 3))})


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite(numbered, value):
    episode = numbered.episodes[1]
    broken = episode.actions.copy()
    broken[2] = value
    with pytest.raises(ValueError, match=rf"numbers.hdf5, episode 1: expected actions that are finite, got {value} at"):
        change(numbered, 1, actions=broken)
    broken = episode.observations.copy()
    broken[3, 1] = value
    with pytest.raises(ValueError, match=r"episode 1: expected observations that are finite, got \w+ at step 3"):
        change(numbered, 1, observations=broken)
    with pytest.raises(ValueError, match="episode 1: expected finite rewards"):
        change(numbered, 1, rewards=np.full(4, value))


def test_actions_outside_the_box(numbered):
    broken = numbered.episodes[2].actions.copy()
    broken[4] = 1.01
    with pytest.raises(
        ValueError, match=r"episode 2: expected actions inside the box \[-1.0, 1.0\], got 1.0\d+ at step 4"
    ):
        change(numbered, 2, actions=broken)
    broken[4] = 1 + 1e-6  # rounding
    assert change(numbered, 2, actions=broken).num_steps == 16


def test_observations_of_another_space(numbered):
    with pytest.raises(ValueError, match=r"episode 0: expected observations of shape \(3,\), got \(2,\)"):
        dataclasses.replace(numbered, observation_space=spaces.Box(-1, 1, (3,)))
    with pytest.raises(ValueError, match=r"episode 0: expected observations with keys \['state'\], got \[None\]"):
        dataclasses.replace(numbered, observation_space=spaces.Dict(state=numbered.observation_space))
    with pytest.raises(ValueError, match=r"episode 0: expected observations of type uint8, got float32"):
        dataclasses.replace(numbered, observation_space=spaces.Box(0, 255, (2,), np.uint8))
    with pytest.raises(ValueError, match=r"numbers.hdf5: imitation learns continuous actions: expected a Box"):
        dataclasses.replace(numbered, action_space=spaces.Discrete(2))
    with pytest.raises(ValueError, match=r"numbers.hdf5: expected observations from a Box or one level of Dict"):
        dataclasses.replace(numbered, observation_space=spaces.Tuple([numbered.observation_space]))
