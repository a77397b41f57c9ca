"""The tree of partial sums, against plain arrays."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from difftori_gym.rl.sum_tree import SumTree

WEIGHTS = st.lists(st.floats(0.0, 1e6), min_size=1, max_size=40)


@given(WEIGHTS, st.randoms(use_true_random=False))
def test_keeps_weights_and_their_sum(weights, random):
    tree = SumTree(len(weights))
    order = list(range(len(weights)))
    random.shuffle(order)
    for part in np.array_split(np.array(order), 3):
        tree.set(part, np.array(weights)[part])
    np.testing.assert_array_equal(tree.get(np.arange(len(weights))), weights)
    assert tree.total == pytest.approx(sum(weights), rel=1e-12)


@given(WEIGHTS.filter(lambda weights: sum(weights) > 0), st.integers(1, 64))
def test_draws_only_what_has_weight_and_names_its_probability(weights, count):
    tree = SumTree(len(weights))
    tree.set(np.arange(len(weights)), np.array(weights))
    indices, probabilities = tree.sample(count)
    assert indices.shape == probabilities.shape == (count,)
    assert (indices >= 0).all()
    assert (indices < len(weights)).all()
    chosen = np.array(weights)[indices]
    assert (chosen > 0).all()
    np.testing.assert_allclose(probabilities, chosen / sum(weights), rtol=1e-9)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 33])
def test_draws_in_proportion(size):
    np.random.seed(size)
    weights = np.random.exponential(size=size)
    tree = SumTree(size)
    tree.set(np.arange(size), weights)
    rounds, count = 400, 50
    drawn = np.bincount(np.concatenate([tree.sample(count)[0] for _ in range(rounds)]), minlength=size)
    expected = rounds * count * weights / weights.sum()
    # Stratified draws vary less than independent ones, whose chi-square is at most this in 999 of 1000 cases.
    statistic = ((drawn - expected) ** 2 / expected).sum()
    assert statistic < size - 1 + 4 * np.sqrt(2 * max(size - 1, 1)) + 6


def test_each_stratum_is_drawn_from_once():
    tree = SumTree(4)
    tree.set(np.arange(4), np.ones(4))
    for _ in range(20):
        assert sorted(tree.sample(4)[0]) == [0, 1, 2, 3]


def test_a_part_of_a_draw_is_as_random_as_the_whole():
    np.random.seed(0)
    tree = SumTree(1000)
    tree.set(np.arange(1000), np.ones(1000))
    drawn = np.stack([tree.sample(64)[0] for _ in range(200)])  # slots are told apart by their numbers
    # Uniform numbers up to 1000 have the mean 499.5; each column's mean of 200 deviates by 20.4.
    assert np.abs(drawn.mean(axis=0) - 499.5).max() < 5 * 20.4
    places = np.arange(64) - 31.5
    correlation = (drawn - 499.5) @ places / (places**2).sum()
    assert abs(correlation.mean()) < 0.5  # in slot order it is 1000 / 64 a place


def test_a_weight_can_be_taken_away():
    tree = SumTree(3)
    tree.set(np.arange(3), np.array([5.0, 1.0, 5.0]))
    tree.set(np.array([0, 2]), np.zeros(2))
    assert set(tree.sample(100)[0]) == {1}


def test_the_last_of_repeated_indices_counts():
    tree = SumTree(5)
    tree.set(np.array([3, 1, 3]), np.array([9.0, 2.0, 4.0]))
    assert tree.total == 6.0


def test_refuses_to_draw_from_nothing():
    with pytest.raises(ValueError, match="at least one positive weight"):
        SumTree(4).sample(2)
