"""CUDA asked for and not there."""

import warnings

import pytest
import torch

from difftori_gym import DiffTORI
from difftori_gym.learning import devices

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


def test_a_learner_says_once_that_it_runs_on_the_cpu(monkeypatch):
    monkeypatch.setattr(devices, "_told", set())
    with pytest.warns(UserWarning, match=r"device='cuda' was asked for, but torch .*: everything runs on the CPU"):
        model = DiffTORI("MlpPolicy", "Pendulum-v1", device="cuda", buffer_size=100)
    assert model.device.type == "cpu"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        DiffTORI("MlpPolicy", "Pendulum-v1", device="cuda:0", buffer_size=100)
        DiffTORI("MlpPolicy", "Pendulum-v1", device="auto", buffer_size=100)
