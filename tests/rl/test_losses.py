"""The losses against plain loops over samples and steps, in double precision."""

from __future__ import annotations

from statistics import fmean
from typing import Any

import pytest
import torch
from torch import Tensor

from difftori_gym.models import EnsembleCritic, LatentModel
from difftori_gym.rl.losses import (
    LossCoefficients,
    model_loss,
    n_step_returns,
    policy_gradient_loss,
    prior_loss,
    raw_critic_loss,
    td_target,
)

B, H, Z, A = 4, 3, 5, 2


@pytest.fixture(autouse=True)
def _doubles():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def random_weights(module: Any) -> Any:
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return module


@pytest.fixture
def model() -> LatentModel:
    sizes = dict(dynamics_arch=[7], reward_arch=[6], qf_arch=[6, 5], pi_arch=[4])
    return random_weights(LatentModel(Z, A, n_critics=3, **sizes))


@pytest.fixture
def window() -> dict[str, Tensor]:
    """Random windows, some of which end early; what lies in the padding must not matter."""
    lengths = torch.tensor([3, 1, 2, 3])
    mask = (torch.arange(H) < lengths[:, None]).double()
    terminated = torch.zeros(B, H)
    terminated[1, 0] = terminated[3, 2] = 1.0
    next_valid = mask.clone()
    next_valid[2, 1] = 0.0
    return dict(
        z0=torch.randn(B, Z),
        actions=torch.rand(B, H, A) * 2 - 1,
        next_z_target=torch.randn(B, H, Z),
        rewards=torch.randn(B, H),
        values=torch.randn(B, H),
        terminated=terminated,
        mask=mask,
        next_valid=next_valid,
        weights=torch.rand(B) + 0.1,
    )


def loop_loss(model: LatentModel, w: dict[str, Tensor], c: LossCoefficients) -> tuple[Tensor, Tensor]:
    """The loss and the temporal-difference errors, step by step."""
    total, errors = torch.zeros(()), []
    for b in range(B):
        z, loss, error = w["z0"][b : b + 1], torch.zeros(()), torch.zeros(())
        for t in range(H):
            a = w["actions"][b : b + 1, t]
            q = model.Q(z, a)[:, 0]
            z, reward = model.next(z, a)
            factor = c.rho**t
            if w["mask"][b, t]:
                loss = loss + factor * c.reward * (reward[0] - w["rewards"][b, t]) ** 2
                loss = loss + factor * c.value * sum((value - w["values"][b, t]) ** 2 for value in q)
                error = error + factor * sum((value - w["values"][b, t]).abs() for value in q) / len(q)
                if model.episodic:
                    p_end = 1 - model.survival(z)[0]
                    ended = w["terminated"][b, t]
                    loss = loss - factor * c.termination * (ended * p_end.log() + (1 - ended) * (1 - p_end).log())
            if w["next_valid"][b, t]:
                loss = loss + factor * c.consistency * ((z[0] - w["next_z_target"][b, t]) ** 2).mean()
        total = total + w["weights"][b] * loss
        errors.append(error)
    return total / B / H, torch.stack(errors)


@pytest.mark.parametrize("episodic", [False, True])
@pytest.mark.parametrize("rho", [0.5, 1.0])
def test_model_loss_is_the_loop(model, window, episodic, rho):
    model.episodic = episodic
    c = LossCoefficients(reward=0.7, value=0.3, consistency=1.9, termination=0.6, rho=rho)
    window["z0"].requires_grad_()
    leaves = [window["z0"], *model.parameters()]
    expected, errors = loop_loss(model, window, c)
    actual = model_loss(model, coefficients=c, **window)
    torch.testing.assert_close(actual.total, expected)
    torch.testing.assert_close(actual.td_error, errors.detach())
    for first, second in zip(
        torch.autograd.grad(actual.total, leaves, materialize_grads=True),
        torch.autograd.grad(expected, leaves, materialize_grads=True),
        strict=True,
    ):
        torch.testing.assert_close(first, second)


def test_padding_has_no_influence(model, window):
    model.episodic = True
    first = model_loss(model, coefficients=LossCoefficients(), **window)
    padding = window["mask"] == 0
    for name in ("actions", "next_z_target", "rewards", "values", "terminated"):
        window[name] = window[name].clone()
        window[name][padding] = 0.5
    second = model_loss(model, coefficients=LossCoefficients(), **window)
    torch.testing.assert_close(first.total, second.total)
    torch.testing.assert_close(first.td_error, second.td_error)


@pytest.mark.parametrize("term", ["reward", "value", "consistency", "termination"])
def test_a_coefficient_of_zero_switches_a_term_off(model, window, term):
    model.episodic = True
    only = dict(reward=0.0, value=0.0, consistency=0.0, termination=0.0)
    heads = dict(reward=model.reward, value=model.critic, termination=model.termination)

    def gradients(coefficients: LossCoefficients) -> dict[str, float]:
        total = model_loss(model, coefficients=coefficients, **window).total
        parameters = {name: list(head.parameters()) for name, head in heads.items()}
        return {
            name: sum(
                float(gradient.abs().sum())
                for gradient in torch.autograd.grad(total, head, retain_graph=True, materialize_grads=True)
            )
            for name, head in parameters.items()
        }

    alone = gradients(LossCoefficients(**{**only, term: 1.0}))
    assert [name for name, size in alone.items() if size > 0] == ([term] if term in heads else [])
    without = gradients(LossCoefficients(**{term: 0.0}))
    assert [name for name, size in without.items() if size == 0] == ([term] if term in heads else [])


def test_no_termination_loss_before_an_episode_has_terminated(model, window):
    model.episodic = False
    loss = model_loss(model, coefficients=LossCoefficients(), **window)
    assert loss.termination == 0
    gradients = torch.autograd.grad(loss.total, list(model.termination.parameters()), allow_unused=True)
    assert all(gradient is None for gradient in gradients)


def test_a_wild_window_is_bounded(model, window):
    window["rewards"][0] = 1e9
    loss = model_loss(model, coefficients=LossCoefficients(), **window)
    assert loss.total < 1e4
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(loss.total, list(model.critic.parameters())))


@pytest.mark.parametrize(("n_steps", "clipped"), [(1, True), (2, False), (3, True), (5, False)])
def test_targets_are_the_loop(model, n_steps, clipped):
    target = random_weights(EnsembleCritic(3, Z, A, [6, 5]))
    z, rewards, noise = torch.randn(4, 5, Z), torch.randn(4, 5), 0.8 * torch.randn(4, 5, A)
    # A whole window, one that meets a time limit, one that ends by termination, one of a single step.
    mask = torch.tensor([[1.0, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0]])
    terminated = torch.zeros(4, 5)
    terminated[2, 1:] = 1.0
    returns = n_step_returns(rewards, terminated, mask, n_steps=n_steps, discount=0.9)
    actual = td_target(model, target, z, returns, noise=noise, clipped_double_q=clipped)
    join = min if clipped else fmean
    for i in range(4):
        for first in range(int(mask[i].sum())):
            expected, last, ended = 0.0, first, False
            for k in range(n_steps):
                if first + k >= 5 or not mask[i, first + k] or ended:
                    break
                expected += 0.9**k * rewards[i, first + k].item()
                last, ended = first + k, bool(terminated[i, first + k])
            if not ended:
                action = (torch.tanh(model.actor(z[i, last])) + noise[i, last]).clamp(-1, 1)
                follow = join(member(torch.cat([z[i, last], action])).item() for member in target.members)
                expected += 0.9 ** (last - first + 1) * follow
            assert actual[i, first].item() == pytest.approx(expected, rel=1e-5)
    assert not actual.requires_grad


def test_prior_loss_is_the_loop(model):
    latents, noise = torch.randn(B, H + 1, Z), 0.3 * torch.randn(B, H + 1, A)
    mask = torch.tensor([[1.0, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]])
    weights = torch.rand(B)
    actual = prior_loss(model, latents, mask, weights, rho=0.5, noise=noise)
    expected = torch.zeros(())
    for b in range(B):
        for t in range(H + 1):
            if mask[b, t]:
                z = latents[b : b + 1, t]
                action = (model.pi(z) + noise[b, t]).clamp(-1, 1)
                expected = expected - weights[b] * 0.5**t * model.Q(z, action).min() / B
    torch.testing.assert_close(actual, expected)
    prior = list(model.actor.parameters())
    for first, second in zip(torch.autograd.grad(actual, prior), torch.autograd.grad(expected, prior), strict=True):
        torch.testing.assert_close(first, second)


def test_raw_critic_loss_is_the_loop():
    predicted, target, weights = torch.randn(2, B), torch.randn(B), torch.rand(B)
    actual = raw_critic_loss(predicted, target, weights)
    expected = torch.zeros(())
    for b in range(B):
        expected = expected + weights[b] * sum((predicted[k, b] - target[b]) ** 2 for k in range(2)) / B
    torch.testing.assert_close(actual, expected)


def test_policy_gradient_loss_judges_the_first_action_by_the_least_value():
    matrix = torch.randn(3, A)
    actions = (torch.rand(B, H, A) * 2 - 1).requires_grad_()

    def value_of(action: Tensor) -> Tensor:
        return 40 * matrix @ action.T + 7

    plain = policy_gradient_loss(value_of, actions)
    least = value_of(actions[:, 0]).min(dim=0)
    torch.testing.assert_close(plain, -least.values.mean())
    (gradient,) = torch.autograd.grad(plain, actions)
    torch.testing.assert_close(gradient[:, 0], -40 * matrix[least.indices] / B)
    assert (gradient[:, 1:] == 0).all()
