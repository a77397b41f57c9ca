"""Running means of the training log."""

import torch

from difftori_gym.learning.running_means import RunningMeans


def test_means_are_taken_since_the_last_time():
    means = RunningMeans()
    means.add("loss", torch.tensor(1.0))
    means.add("loss", torch.tensor(2.0))
    means.add("norm", torch.tensor(5.0))
    assert means.pop() == {"loss": 1.5, "norm": 5.0}
    assert means.pop() == {}


def test_sums_can_be_carried_to_another():
    means, other = RunningMeans(), RunningMeans()
    means.add("loss", torch.tensor(1.0))
    other.sums = dict(means.sums)
    other.add("loss", torch.tensor(3.0))
    assert other.pop() == {"loss": 2.0}
    assert means.pop() == {"loss": 1.0}
