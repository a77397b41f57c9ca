"""TD-MPC2's networks and losses against plain loops, in double precision."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from difftori_gym.baselines.tdmpc2_networks import SimNorm, SymlogBins, TDMPC2Model
from difftori_gym.baselines.tdmpc2_policies import RunningScale
from difftori_gym.baselines.tdmpc2_update import model_loss, prior_loss, td_target
from difftori_gym.rl.losses import LossCoefficients, n_step_returns
from difftori_gym.rl.sequence_buffer import SequenceBatch

B, H, Z, A, K, E = 4, 3, 16, 2, 101, 5
C = LossCoefficients(reward=0.1, value=0.1, consistency=20.0, termination=1.0, rho=0.5)
ARCH = dict(dynamics_arch=[9], reward_arch=[8], qf_arch=[8, 7], pi_arch=[6])


@pytest.fixture(autouse=True)
def _doubles():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def fresh(**settings):
    kind = dict(n_critics=E, activation_fn=torch.nn.Mish, dropout=0.01, simnorm_dim=8, num_bins=K)
    return TDMPC2Model(Z, A, **{**ARCH, **kind, **settings})


@pytest.fixture
def model():
    random = fresh()
    for parameter in random.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return random.eval()


@pytest.fixture
def window():
    """Random windows, some of which end early; what lies in the padding must not matter."""
    mask = (torch.arange(H) < torch.tensor([3, 1, 2, 3])[:, None]).double()
    terminated = torch.zeros(B, H)
    terminated[1, 0] = terminated[3, 2] = 1.0
    next_valid = mask.clone()
    next_valid[2, 1] = 0.0
    return SequenceBatch(
        observations=torch.zeros(B, 1),
        actions=torch.rand(B, H, A) * 2 - 1,
        next_observations=torch.zeros(B, H, 1),
        rewards=3.0 * torch.randn(B, H),
        terminated=terminated,
        mask=mask,
        next_valid=next_valid,
        weights=torch.rand(B) + 0.1,
        indices=np.arange(B),
    )


def two_hot(number):
    """The distribution of a number over the bins, from its definition."""
    place = math.copysign(math.log1p(abs(number)), number)
    place = min(max(place, -10.0), 10.0) * 5.0 + 50.0
    weights = torch.zeros(K)
    for index in range(K):
        weights[index] = max(0.0, 1.0 - abs(index - place))
    return weights


def cross_entropy(logits, number):
    return -(two_hot(float(number)) * logits.log_softmax(-1)).sum()


NUMBERS = [0.0, 0.1, -0.1, 1.0, -7.3, 123.4, -20_000.0, math.expm1(10.0), -math.expm1(10.0)]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_number_comes_back_from_its_bins(number):
    bins = SymlogBins(K)
    assert float(two_hot(number).sum()) == pytest.approx(1.0)
    assert float(bins.decode(two_hot(number).log())) == pytest.approx(number, rel=1e-5, abs=1e-7)


def test_cross_entropy_and_its_gradient_are_those_of_two_hot_targets():
    bins, numbers = SymlogBins(K), torch.tensor([*NUMBERS, 1e6, -1e6])
    logits = torch.randn(2, len(numbers), K, requires_grad=True)
    losses = bins.cross_entropy(logits, numbers)
    expected = torch.stack(
        [torch.stack([cross_entropy(*each) for each in zip(row, numbers, strict=True)]) for row in logits]
    )
    torch.testing.assert_close(losses, expected)
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    targets = torch.stack([two_hot(float(number)) for number in numbers])
    torch.testing.assert_close(gradient, logits.softmax(-1).detach() - targets)
    # A target that is not a number gives a loss that is none, and no error.
    broken = bins.cross_entropy(logits[0, :2], torch.tensor([torch.nan, 1.0]))
    assert torch.isfinite(broken).tolist() == [False, True]


def test_latent_states_are_rows_of_distributions(model):
    x = 5.0 * torch.randn(3, 4, 24)
    normed = SimNorm(8)(x)
    torch.testing.assert_close(normed.unflatten(-1, (3, 8)).sum(-1), torch.ones(3, 4, 3))
    torch.testing.assert_close(normed, torch.cat([part.softmax(-1) for part in x.split(8, dim=-1)], dim=-1))
    z, _ = model.next(torch.rand(5, Z), torch.zeros(5, A))
    torch.testing.assert_close(z.unflatten(-1, (2, 8)).sum(-1), torch.ones(5, 2))


def test_mish_without_a_graph_is_mish():
    x = torch.linspace(-30.0, 60.0, 400)
    (activation,) = [module for module in fresh(reward_arch=[8]).reward.modules() if isinstance(module, torch.nn.Mish)]
    with torch.no_grad():
        torch.testing.assert_close(activation(x), torch.nn.functional.mish(x))


def test_everything_is_initialised_as_published():
    """The members of the ensemble, too, whose weights another way of stacking them once kept at torch's own start."""
    torch.set_default_dtype(torch.float32)
    model = TDMPC2Model(
        128,
        4,
        dynamics_arch=[128],
        reward_arch=[128, 128],
        qf_arch=[128, 128],
        pi_arch=[128],
        n_critics=E,
        activation_fn=torch.nn.Mish,
        dropout=0.01,
        simnorm_dim=8,
        num_bins=K,
    )
    last = {id(model.reward[-1].weight), *(id(member[-1].weight) for member in model.critic.members)}
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            assert not module.bias.any()
            if id(module.weight) in last:
                assert not module.weight.any()
            elif module.weight.numel() > 10_000:
                assert float(module.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    firsts = [member[0][0].weight for member in model.critic.members]
    assert all(not torch.equal(firsts[i], firsts[j]) for i in range(E) for j in range(i))
    z, action = torch.rand(6, 128), torch.rand(6, 4)
    for number in (*model.eval().Q(z, action), model.next(z, action)[1]):
        torch.testing.assert_close(number.detach(), torch.zeros(6), atol=1e-6, rtol=0.0)
    dropouts = [[type(layer).__name__ for layer in member[0]] for member in model.critic.members]
    assert dropouts == [["Linear", "Dropout", "LayerNorm", "Mish"]] * E


def test_the_prior_is_a_squashed_gaussian(model):
    z, noise = torch.rand(6, Z), torch.randn(6, A)
    drawn = model.sample(z, noise)
    for b in range(6):
        mean, x = model.actor(z[b]).chunk(2)
        std = torch.exp(-10.0 + 6.0 * (torch.tanh(x) + 1.0))
        torch.testing.assert_close(drawn.action[b], torch.tanh(mean + std * noise[b]))
        density = torch.distributions.Normal(mean, std).log_prob(mean + std * noise[b])
        torch.testing.assert_close(drawn.entropy[b], -density.sum())
    torch.testing.assert_close(model.pi(z), model.sample(z, torch.zeros(6, A)).action)


@pytest.mark.parametrize("n_steps", [1, 3])
def test_targets_take_the_least_of_two_values_of_a_drawn_action(model, window, n_steps):
    next_z, noise = torch.rand(B, H, Z), torch.randn(B, H, A)
    returns = n_step_returns(window.rewards, window.terminated, window.mask, n_steps=n_steps, discount=0.9)
    targets = td_target(model, model.critic, next_z, returns, noise=noise, members=[3, 1])
    for b in range(B):
        for t in range(H):
            last = int(returns.last[b, t])
            z = next_z[b, last][None]
            value = model.Q(z, model.sample(z, noise[b, last][None]).action)[[1, 3], 0].min()
            torch.testing.assert_close(targets[b, t], returns.rewards[b, t] + returns.weight[b, t] * value)
    assert returns.weight[1, 0] == 0.0  # a termination


@pytest.mark.parametrize("episodic", [False, True])
def test_model_loss_is_that_of_a_loop(model, window, episodic):
    model.episodic = episodic
    z0, next_z, values = torch.rand(B, Z), torch.rand(B, H, Z), 10.0 * torch.randn(B, H)
    loss = model_loss(model, z0, window, next_z, values, C)
    total = 0.0
    for b in range(B):
        z = z0[b][None]
        for t in range(H):
            action = window.actions[b, t][None]
            x = torch.cat([z, action], dim=-1)
            rewards, value_logits = model.reward(x)[0], model.critic(z, action)[:, 0]
            z = model.dynamics(x)
            step = 0.0
            if window.mask[b, t]:
                step += C.reward * cross_entropy(rewards, window.rewards[b, t])
                step += C.value * sum(cross_entropy(each, values[b, t]) for each in value_logits) / E
            if window.next_valid[b, t]:
                step += C.consistency * (z[0] - next_z[b, t]).square().mean()
            total += window.weights[b] * C.rho**t * step / (H * B)
            if episodic and window.mask[b, t]:
                ended = torch.sigmoid(model.termination(z)[0, 0])
                entropy = -torch.log(ended if window.terminated[b, t] else 1.0 - ended)
                total += window.weights[b] * entropy / (H * B)
    torch.testing.assert_close(loss.total, total)
    # What lies in the padding does not matter.
    padded = 1.0 - window.mask
    other = replace(window, rewards=window.rewards + 5.0 * padded, actions=window.actions.clone())
    torch.testing.assert_close(model_loss(model, z0, other, next_z, values + 3.0 * padded, C).total, loss.total)
    for parameter, gradient in zip(
        model.parameters(),
        torch.autograd.grad(loss.total, list(model.parameters()), allow_unused=True),
        strict=True,
    ):
        reached = gradient is not None
        untouched = {id(each) for each in model.actor.parameters()}
        untouched |= set() if episodic else {id(each) for each in model.termination.parameters()}
        assert reached == (id(parameter) not in untouched)


def test_prior_loss_is_that_of_a_loop(window):
    values, entropy = torch.randn(B, H + 1), torch.randn(B, H + 1)
    mask = torch.cat([window.mask[:, :1], window.mask], dim=1)
    loss = prior_loss(
        values, entropy, mask, window.weights, scale=torch.tensor([4.0]), entropy_coef=0.3, action_dim=A, rho=0.5
    )
    expected = 0.0
    for b in range(B):
        for t in range(H + 1):
            gain = values[b, t] / 4.0 + 0.3 * A * entropy[b, t]
            expected -= window.weights[b] * mask[b, t] * 0.5**t * gain / (B * (H + 1))
    torch.testing.assert_close(loss, expected)


def test_the_scale_follows_the_spread_of_values():
    scale = RunningScale()
    narrow = torch.linspace(0.0, 0.5, 101)
    scale.update(narrow, tau=0.5)
    assert float(scale.value) == 1.0  # never less
    scale.update(torch.linspace(0.0, 100.0, 101), tau=0.5)
    assert float(scale.value) == pytest.approx(0.5 + 0.5 * 90.0)
