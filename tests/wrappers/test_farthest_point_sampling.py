"""Farthest-point sampling against the definition."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from difftori_gym.wrappers import farthest_point_sampling


def cloud(batch, number, seed=0):
    return torch.rand(batch, number, 3, generator=torch.Generator().manual_seed(seed))


def naive(points, num_points):
    """Point by point, from the definition."""
    chosen = [int((points - points.mean(dim=0)).square().sum(dim=-1).argmax())]
    while len(chosen) < min(num_points, len(points)):
        nearest = torch.stack([(points - points[index]).square().sum(dim=-1) for index in chosen]).amin(dim=0)
        chosen.append(int(nearest.argmax()))
    return [chosen[index % len(chosen)] for index in range(num_points)]


@given(st.integers(1, 60), st.integers(1, 40), st.integers(0, 1000))
def test_it_is_the_definition(number, num_points, seed):
    points = cloud(1, number, seed)
    assert farthest_point_sampling(points, num_points)[0].tolist() == naive(points[0], num_points)


def test_a_batch_equals_its_clouds_alone():
    points = cloud(4, 50)
    together = farthest_point_sampling(points, 20)
    for index in range(4):
        assert together[index].tolist() == farthest_point_sampling(points[index : index + 1], 20)[0].tolist()


def test_points_that_are_not_valid_are_as_good_as_absent():
    points = cloud(3, 40)
    valid = torch.rand(3, 40, generator=torch.Generator().manual_seed(1)) < torch.tensor([[0.8], [0.3], [0.0]])
    points[~valid] = torch.nan
    indices = farthest_point_sampling(points, 15, valid=valid)
    for index in range(2):
        kept = valid[index].nonzero()[:, 0]
        assert indices[index].tolist() == kept[naive(points[index, kept], 15)].tolist()
    assert indices[2].tolist() == [0] * 15


def test_few_points_are_repeated_in_turn():
    indices = farthest_point_sampling(cloud(1, 3), 8)[0].tolist()
    assert sorted(indices[:3]) == [0, 1, 2]
    assert indices == [indices[index % 3] for index in range(8)]


def test_it_covers_a_cloud_better_than_chance():
    points = cloud(1, 2000)
    chosen = points[0, farthest_point_sampling(points, 64)[0]]
    chance = points[0, torch.randperm(2000, generator=torch.Generator().manual_seed(0))[:64]]
    reach = torch.cdist(points[0], chosen).amin(dim=1).max()
    assert reach < 0.7 * torch.cdist(points[0], chance).amin(dim=1).max()


@pytest.mark.parametrize(
    ("shape", "num_points", "message"),
    [((5, 3), 1, r"points \[B, N, D\]"), ((1, 0, 3), 1, r"N >= 1, got \[1, 0, 3\]"), ((1, 5, 3), 0, "num_points >= 1")],
)
def test_bad_input_is_refused(shape, num_points, message):
    with pytest.raises(ValueError, match=message):
        farthest_point_sampling(torch.zeros(shape), num_points)


def test_valid_must_fit():
    with pytest.raises(ValueError, match=r"valid of shape \[1, 5\], got \[1, 4\]"):
        farthest_point_sampling(torch.zeros(1, 5, 3), 2, valid=torch.ones(1, 4, dtype=torch.bool))
