"""Losses and searches against independent formulas."""

import math

import pytest
import torch
from torch import distributions

from difftori_gym.baselines.bc import ActionHead, mixture_nll
from difftori_gym.baselines.ibc import Draws, ResidualScore, derivative_free, gradient_penalty, info_nce_loss, langevin
from difftori_gym.il import CosineSchedule
from difftori_gym.il.losses import action_loss, kl_to_standard_normal, sample_gaussian, variational_loss


def test_kl_is_that_of_torch():
    mean, log_variance = torch.randn(6, 4), torch.randn(6, 4)
    posterior = distributions.Normal(mean, (0.5 * log_variance).exp())
    prior = distributions.Normal(torch.zeros(4), torch.ones(4))
    expected = distributions.kl_divergence(posterior, prior).sum(1)
    torch.testing.assert_close(kl_to_standard_normal(mean, log_variance), expected)
    torch.manual_seed(0)
    draws = sample_gaussian(torch.full((20_000, 1), 2.0), torch.full((20_000, 1), math.log(0.25)))
    assert draws.mean().item() == pytest.approx(2.0, abs=0.02)
    assert draws.std().item() == pytest.approx(0.5, abs=0.02)


def test_variational_loss_weighs_its_terms():
    predicted, actions = torch.full((2, 1, 1), 0.5), torch.zeros(2, 1, 1)
    mean, log_variance = torch.ones(2, 3), torch.zeros(2, 3)
    loss = variational_loss(predicted, actions, mean, log_variance, torch.tensor(1), action_coef=3000.0, kl_coef=10.0)
    assert action_loss(predicted, actions).item() == 0.25
    assert loss.total.item() == pytest.approx(3000 * 0.25 + 10 * 1.5)
    assert (loss.action.item(), loss.kl.item(), loss.solver_failures.item()) == (0.25, 1.5, 1.0)


def test_mixture_likelihood_is_that_of_torch():
    torch.manual_seed(0)
    means, stds = torch.randn(5, 3, 2, 2), torch.rand(5, 3, 2, 2) + 0.1
    log_weights, actions = torch.randn(5, 3).log_softmax(1), torch.randn(5, 2, 2)
    components = distributions.Independent(distributions.Normal(means, stds), 2)
    mixture = distributions.MixtureSameFamily(distributions.Categorical(logits=log_weights), components)
    torch.testing.assert_close(mixture_nll(means, stds, log_weights, actions), -mixture.log_prob(actions))


def test_a_mixture_keeps_two_modes_and_a_point_averages():
    torch.manual_seed(0)
    features = torch.ones(64, 4)
    actions = torch.where(torch.arange(64) % 2 == 0, 0.8, -0.8)[:, None, None]
    heads = {kind: ActionHead(4, 1, 1, kind, 4) for kind in ("deterministic", "gmm")}
    for head in heads.values():
        optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
        for _ in range(150):
            optimizer.zero_grad()
            head.loss(features, actions).total.backward()
            optimizer.step()
    assert heads["deterministic"].act(features, True).abs().max().item() < 0.1
    drawn = heads["gmm"].act(features, False).flatten()
    assert drawn.abs().min().item() > 0.6
    assert 0.2 < (drawn > 0).float().mean().item() < 0.8
    with pytest.raises(ValueError, match="deterministic, gaussian, gmm, got 'vae'"):
        ActionHead(4, 1, 1, "vae")


class Hill(ResidualScore):
    """A known landscape: its top is at 0.4 in every dimension."""

    def forward(self, condition, actions):
        return -20.0 * (actions - 0.4).square().sum(-1) + 0.0 * condition.sum(1, keepdim=True)


@pytest.mark.parametrize("search", [derivative_free, langevin])
def test_searches_climb(search):
    hill, condition = Hill(2, 2, 4, 2), torch.zeros(3, 2)
    draws = Draws(3, True, torch.device("cpu"))
    samples = 2.0 * draws.uniform(256, 2) - 1.0
    found = search(hill, condition, samples, draws, 8)
    before, after = (hill(condition, each).mean().item() for each in (samples, found))
    assert after > before + 5.0
    best = found[0, hill(condition, found)[0].argmax()]
    torch.testing.assert_close(best, torch.full((2,), 0.4), atol=0.1, rtol=0.0)
    torch.testing.assert_close(found[0], found[2])  # the samples of a batch share their draws


def test_info_nce_and_gradient_penalty():
    scores = torch.tensor([[1.0, 0.0, 0.0]])
    assert info_nce_loss(scores).item() == pytest.approx(-math.log(math.e / (math.e + 2.0)))
    hill, condition = Hill(2, 2, 4, 2), torch.zeros(1, 2)
    at = torch.tensor([[[0.4, 0.5]]])  # gradient (0, -4)
    assert gradient_penalty(hill, condition, at).item() == pytest.approx(9.0, rel=1e-4)
    flat = torch.tensor([[[0.4, 0.41]]])
    assert gradient_penalty(hill, condition, flat).item() == 0.0


def test_cosine_schedule():
    schedule = CosineSchedule(1.0, final=0.1, warmup=0.2)
    assert schedule(1.0) == 0.0
    assert schedule(0.9) == pytest.approx(0.5)
    assert schedule(0.8) == pytest.approx(1.0)
    assert schedule(0.4) == pytest.approx(0.55)
    assert schedule(0.0) == pytest.approx(0.1)
    with pytest.raises(ValueError, match="warmup in"):
        CosineSchedule(warmup=1.0)


def test_deterministic_draws_repeat_and_are_shared():
    device = torch.device("cpu")
    first, again = Draws(3, True, device), Draws(2, True, device)
    one, other = first.normal(4), again.normal(4)
    torch.testing.assert_close(one[:2], other)
    torch.testing.assert_close(one[0], one[2])
    assert not torch.equal(first.normal(4), one)
    assert not torch.equal(*Draws(2, False, device).uniform(4).unbind())
