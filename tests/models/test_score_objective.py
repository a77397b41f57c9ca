"""The objectives of imitation: values, hand-written gradients, independent samples, derivatives through a solver."""

import pytest
import torch
from torch import nn

from difftori_gym.models import ChunkObjective, ChunkScore, GaussianPosterior, LatentScore, LatentScoreObjective
from difftori_gym.trajopt import TrajectoryOptimizer

CONDITION, HORIZON, ACTION = 5, 3, 2


def make(kind, activation=nn.ELU, dtype=torch.float64):
    torch.manual_seed(0)
    if kind == "chunk":
        score = ChunkScore(CONDITION, HORIZON, ACTION, (16, 12), activation).to(dtype)
        return score, ChunkObjective
    return LatentScore(CONDITION, ACTION, 4, (16, 12), activation, discount=0.9).to(dtype), LatentScoreObjective


def batch(n=4, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    condition = torch.randn(n, CONDITION, dtype=dtype, generator=generator)
    return condition, 2.0 * torch.rand(n, HORIZON, ACTION, dtype=dtype, generator=generator) - 1.0


@pytest.mark.parametrize("activation", [nn.ELU, nn.ReLU, nn.Tanh, nn.Mish])
@pytest.mark.parametrize("kind", ["chunk", "latent"])
@pytest.mark.parametrize("samples", [4, 400])
def test_value_and_gradient_are_those_of_autograd(kind, activation, samples):
    score, objective = make(kind, activation)
    condition, actions = batch(samples)
    point = actions.clone().requires_grad_()
    expected = score(condition, point)
    (gradient,) = torch.autograd.grad(expected.sum(), point)
    made = objective(score, condition)
    for _ in range(2):  # also when called again
        value, fast = made.value_and_gradient(actions)
        torch.testing.assert_close(value, expected.detach())
        torch.testing.assert_close(fast, gradient)
        assert not value.requires_grad
        assert not fast.requires_grad
    torch.testing.assert_close(made(actions), expected)


@pytest.mark.parametrize("kind", ["chunk", "latent"])
def test_calls_do_not_disturb_each_other(kind):
    score, objective = make(kind)
    condition, actions = batch()
    made = objective(score, condition)
    value, gradient = made.value_and_gradient(actions)
    kept = value.clone(), gradient.clone()
    gradient.add_(1.0)  # the caller's own
    made.value_and_gradient(-actions)
    torch.testing.assert_close((value, gradient), (kept[0], kept[1] + 1.0), rtol=0, atol=0)
    torch.testing.assert_close(made.value_and_gradient(actions), kept, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["chunk", "latent"])
def test_the_derivative_of_a_solution_reaches_condition_and_score(kind):
    score, objective = make(kind)
    condition, actions = batch(2)
    optimizer = TrajectoryOptimizer(solver="lm", max_iterations=4, step_size=1e-3, damping=1.0, backward_mode="unroll")
    direction = torch.randn_like(actions)

    def loss(condition):
        return (optimizer(objective(score, condition), 0.3 * actions).actions * direction).sum()

    condition.requires_grad_()
    with torch.no_grad():  # the numbers come first, as in a solver
        objective(score, condition).value_and_gradient(actions)
    gradients = torch.autograd.grad(loss(condition), [condition, *score.parameters()], allow_unused=True)
    # A constant added to every score moves no maximum, but the bias enters the residual 1000 - score.
    assert all(gradient is not None for gradient in gradients)
    assert torch.autograd.gradcheck(loss, condition, eps=1e-5, atol=1e-7, fast_mode=True)


def test_latent_score_is_a_discounted_sum_along_the_dynamics():
    score, _ = make("latent")
    condition, actions = batch()
    z, total = score.encoder(condition), 0.0
    for t in range(HORIZON):
        joint = torch.cat([z, actions[:, t]], dim=1)
        total = total + 0.9**t * score.score(joint).squeeze(1)
        z = score.dynamics(joint)
    torch.testing.assert_close(score(condition, actions), total)


@pytest.mark.parametrize("kind", ["chunk", "latent"])
def test_repeat_and_subsets_agree(kind):
    score, objective = make(kind)
    condition, actions = batch()
    made = objective(score, condition)
    values, gradients = made.value_and_gradient(actions)
    twice, _ = made.repeat(2).value_and_gradient(actions.repeat(2, 1, 1))
    torch.testing.assert_close(twice, values.repeat(2))
    one, gradient = objective(score, condition[2:3]).value_and_gradient(actions[2:3])
    torch.testing.assert_close(one, values[2:3])
    torch.testing.assert_close(gradient, gradients[2:3])


def test_published_sizes():
    score, posterior = ChunkScore(256 + 64, 4, 4), GaussianPosterior(256, 16, 64)
    assert [module.in_features for module in score.network if isinstance(module, nn.Linear)] == [336, 256, 256]
    layers = [module for module in posterior.network if isinstance(module, nn.Linear)]
    assert [layer.in_features for layer in layers] == [272, 256, 256]
    assert layers[-1].out_features == 128
    mean, log_variance = posterior(torch.zeros(3, 256), torch.zeros(3, 4, 4))
    assert mean.shape == log_variance.shape == (3, 64)
