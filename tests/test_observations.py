"""Observations: functions of arrays and of dictionaries of arrays."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from difftori_gym.observations import batch_size_of, entries, from_entries, map_obs, space_from_entries

ARRAY = np.arange(6.0).reshape(3, 2)


def test_a_function_is_applied_to_an_array():
    assert map_obs(lambda value: value[0], ARRAY).tolist() == [0.0, 1.0]
    assert torch.equal(map_obs(torch.add, torch.ones(2), torch.ones(2)), torch.full((2,), 2.0))


def test_a_function_is_applied_to_each_entry_in_the_order_of_the_first():
    first, second = {"b": 1, "a": 2}, {"a": 20, "b": 10}
    assert list(map_obs(lambda x, y: x + y, first, second).items()) == [("b", 11), ("a", 22)]


def test_a_space_stands_beside_what_it_describes():
    space = spaces.Dict(x=spaces.Box(0, 1, (2,)), y=spaces.Discrete(3))
    shapes = map_obs(lambda value, entry: (value, entry.shape), {"x": 1, "y": 2}, space)
    assert shapes == {"x": (1, (2,)), "y": (2, ())}
    assert map_obs(lambda value, entry: (value, entry.shape), 1, space["x"]) == (1, (2,))


@pytest.mark.parametrize("other", [{"a": 1}, {"a": 1, "c": 1}, {"a": 1, "b": 1, "c": 1}, ARRAY, spaces.Dict()])
def test_different_keys_are_refused(other):
    with pytest.raises(ValueError, match=r"Expected observations with the keys \['a', 'b'\], got"):
        map_obs(lambda x, y: x, {"a": 1, "b": 1}, other)


def test_an_array_beside_a_dictionary_is_refused():
    with pytest.raises(ValueError, match=r"Expected observations with the keys \[None\], got \['a'\]"):
        map_obs(lambda x, y: x, ARRAY, {"a": ARRAY})


@pytest.mark.parametrize("observation", [ARRAY, {"b": ARRAY, "a": 2 * ARRAY}])
def test_entries_and_back(observation):
    assert from_entries(entries(observation)) is observation or from_entries(entries(observation)) == observation
    assert batch_size_of(observation) == 3


@pytest.mark.parametrize("space", [spaces.Box(0, 1, (2,)), spaces.Dict(a=spaces.Box(0, 1, (2,)))])
def test_spaces_and_back(space):
    assert space_from_entries(entries(space)) == space
