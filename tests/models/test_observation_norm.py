"""Observations of one scale: statistics, which entries have them, a policy that learns, saves and exports them."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from difftori_gym import DiffTORI
from difftori_gym.exports import export, load_export
from difftori_gym.models.observation_norm import CLIP, ObservationNorm, RunningNorm


def test_mean_and_variance_are_those_of_all_that_was_observed() -> None:
    data = torch.tensor([3.0, -200.0, 0.0]) + torch.randn(50, 64, 3) * torch.tensor([0.5, 30.0, 0.0])
    norm = RunningNorm((3,))
    for batch in data:
        norm.observe(batch)
    rows = data.flatten(0, 1)
    torch.testing.assert_close(norm.running_mean, rows.mean(0), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(norm.running_var, rows.var(0), rtol=0.05, atol=1e-3)
    scaled = norm(rows)
    torch.testing.assert_close(scaled.std(0), torch.tensor([1.0, 1.0, 0.0]), rtol=0.05, atol=1e-3)
    assert norm(torch.full((1, 3), 1e9)).max() == CLIP


def test_nothing_observed_changes_nothing() -> None:
    values = torch.randn(4, 3)
    torch.testing.assert_close(RunningNorm((3,))(values), values)


def test_images_clouds_and_whole_numbers_stay_as_they_are() -> None:
    space = spaces.Dict(
        {
            "image": spaces.Box(0, 255, (3, 36, 36), np.uint8),
            "cloud": spaces.Box(-1.0, 1.0, (64, 3)),
            "a.b": spaces.Box(-np.inf, np.inf, (2,)),
            "count": spaces.Box(0, 9, (1,), np.int64),
        }
    )
    norm = ObservationNorm(space)
    assert list(norm.names) == ["a.b"]
    batch = {key: torch.rand(8, *entry.shape) for key, entry in space.spaces.items()}
    norm.observe(batch)
    scaled = norm(batch)
    for key, value in batch.items():
        assert torch.equal(scaled[key], value) == (key != "a.b")


@pytest.fixture(scope="module")
def model() -> DiffTORI:
    settings = dict(learning_starts=40, batch_size=16, horizon=3, planner_kwargs=dict(max_iterations=2), seed=0)
    networks = dict(net_arch=[8], latent_dim=4, norm_obs=True)
    return DiffTORI("MlpPolicy", "Pendulum-v1", policy_kwargs=networks, device="cpu", **settings).learn(120)


def test_a_policy_learns_its_statistics_from_replay(model: DiffTORI) -> None:
    (norm,) = model.policy.observation_norm.norms.values()
    stored = model.replay_buffer.observations[:120, 0]
    np.testing.assert_allclose(norm.running_var.sqrt(), stored.std(axis=0), rtol=0.3)
    assert norm.running_batches == 80


def test_saved_and_exported_policies_act_alike(model: DiffTORI, tmp_path) -> None:
    observations = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    expected, _ = model.predict(observations, deterministic=True)
    model.save(tmp_path / "model")
    export(model, tmp_path / "policy.safetensors")
    for policy in (DiffTORI.load(tmp_path / "model"), load_export(tmp_path / "policy.safetensors")):
        actual, _ = policy.predict(observations, deterministic=True)
        np.testing.assert_allclose(actual, expected, atol=1e-6)
