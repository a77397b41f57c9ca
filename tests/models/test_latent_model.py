"""The latent model: shapes, and the imagined return against a loop and against finite differences."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from difftori_gym.models import EnsembleCritic, LatentEncoder, LatentModel, latent_return, mlp, rollout_prior
from difftori_gym.models import termination_loss as termination_loss_of

Z, A = 5, 2


@pytest.fixture
def model() -> LatentModel:
    torch.manual_seed(0)
    built = LatentModel(Z, A, dynamics_arch=[8], reward_arch=[7], qf_arch=[6, 6], pi_arch=[5], n_critics=3).double()
    for parameter in built.parameters():
        nn.init.normal_(parameter, std=0.5)
    return built


def by_loop(model: LatentModel, z0: torch.Tensor, actions: torch.Tensor, discount: float) -> list[float]:
    values = []
    for b in range(len(z0)):
        z, total, alive = z0[b : b + 1], 0.0, 1.0
        for t in range(actions.shape[1]):
            x = torch.cat([z, actions[b : b + 1, t]], dim=1)
            total += discount**t * alive * model.reward(x).item()
            z = model.dynamics(x)
            if model.episodic:
                alive *= 1 / (1 + torch.exp(model.termination(z)).item())
        final = torch.cat([z, torch.tanh(model.actor(z))], dim=1)
        total += discount ** actions.shape[1] * alive * min(member(final).item() for member in model.critic.members)
        values.append(total)
    return values


@pytest.mark.parametrize("episodic", [False, True])
@pytest.mark.parametrize("horizon", [1, 2, 5])
def test_latent_return_is_the_loop(model, episodic, horizon):
    model.episodic = episodic
    z0, actions = torch.randn(4, Z).double(), torch.rand(4, horizon, A).double() * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(
            latent_return(model, z0, actions, discount=0.9), torch.tensor(by_loop(model, z0, actions, 0.9)).double()
        )


@pytest.mark.parametrize("episodic", [False, True])
def test_latent_return_has_the_derivatives_of_finite_differences(model, episodic):
    model.episodic = episodic
    torch.manual_seed(1)
    z0 = torch.randn(2, Z).double().requires_grad_()
    actions = (torch.rand(2, 3, A).double() * 1.6 - 0.8).requires_grad_()
    assert torch.autograd.gradcheck(lambda z, a: latent_return(model, z, a, discount=0.9), (z0, actions))
    assert torch.autograd.gradgradcheck(lambda z, a: latent_return(model, z, a, discount=0.9), (z0, actions))
    # And in the parameters, one entry of each.
    parameters = {name: p for name, p in model.named_parameters() if episodic or "termination" not in name}
    gradients = torch.autograd.grad(
        latent_return(model, z0, actions, discount=0.9).sum(), list(parameters.values()), materialize_grads=True
    )
    for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True):
        entry, h = parameter.data.view(-1), 1e-6
        index = int(gradient.abs().argmax())
        old, values = entry[index].item(), []
        for shift in (h, -h):
            entry[index] = old + shift
            values.append(latent_return(model, z0, actions, discount=0.9).sum().item())
        entry[index] = old
        assert gradient.view(-1)[index].item() == pytest.approx((values[0] - values[1]) / (2 * h), abs=1e-6), name


def test_samples_do_not_influence_each_other(model):
    model.episodic = True
    z0, actions = torch.randn(6, Z).double(), torch.rand(6, 3, A).double()
    together = latent_return(model, z0, actions, discount=0.9)
    alone = [latent_return(model, z0[i : i + 1], actions[i : i + 1], discount=0.9) for i in range(6)]
    torch.testing.assert_close(together, torch.cat(alone))


def test_shapes_and_ranges(model):
    z, action = torch.randn(7, Z).double(), torch.rand(7, A).double()
    following, reward = model.next(z, action)
    assert following.shape == (7, Z)
    assert reward.shape == (7,)
    assert model.Q(z, action).shape == (3, 7)
    assert model.pi(1e3 * z).shape == (7, A)
    assert (model.pi(1e3 * z).abs() <= 1).all()
    survival = model.survival(1e3 * z)
    assert survival.shape == (7,)
    assert ((survival >= 0) & (survival <= 1)).all()


def test_a_new_model_expects_nothing():
    model = LatentModel(Z, A)
    z, action = torch.randn(7, Z), torch.rand(7, A)
    assert (model.next(z, action)[1] == 0).all()
    assert (model.Q(z, action) == 0).all()
    assert (model.survival(z) == 0.5).all()
    assert not model.episodic


def test_the_episodic_flag_is_saved_and_restored(model):
    new = LatentModel(Z, A, dynamics_arch=[8], reward_arch=[7], qf_arch=[6, 6], pi_arch=[5], n_critics=3)
    state = model.state_dict()
    assert all(value.is_floating_point() and value.numel() > 0 for value in state.values())
    for flag in (True, False):
        model.episodic = flag
        new.load_state_dict(model.state_dict())
        assert new.episodic == flag
        assert copy.deepcopy(model).episodic == flag


@pytest.mark.parametrize("horizon", [1, 4])
def test_the_prior_s_rollout_is_the_loop(model, horizon):
    z0, noise = torch.randn(3, Z).double(), 2 * torch.randn(3, horizon, A).double()
    for given in (None, noise):
        actions = rollout_prior(model, z0, horizon, given)
        assert actions.shape == (3, horizon, A)
        assert not actions.requires_grad
        z = z0
        for t in range(horizon):
            expected = model.pi(z) if given is None else (model.pi(z) + noise[:, t]).clamp(-1, 1)
            torch.testing.assert_close(actions[:, t], expected.detach())
            z, _ = model.next(z, actions[:, t])


def test_termination_loss_is_the_log_likelihood(model):
    z, terminated = torch.randn(6, Z).double(), torch.tensor([0.0, 1, 1, 0, 0, 1]).double()
    survival = model.survival(z)
    expected = -torch.where(terminated == 1, (1 - survival).log(), survival.log())
    torch.testing.assert_close(termination_loss_of(model, z, terminated), expected)


def test_members_of_an_ensemble_are_separate():
    critic = EnsembleCritic(2, Z, A, [6, 6])
    state, action = torch.randn(4, Z), torch.rand(4, A)
    for member in critic.members:
        nn.init.normal_(member[-1].weight)
    values = critic(state, action)
    assert values.shape == (2, 4)
    assert not torch.equal(values[0], values[1])
    gradients = torch.autograd.grad(values[0].sum(), list(critic.members[1].parameters()), allow_unused=True)
    assert all(gradient is None or (gradient == 0).all() for gradient in gradients)
    assert any(isinstance(layer, nn.LayerNorm) for layer in critic.modules())
    assert EnsembleCritic(1, Z, A, [])(state, action).shape == (1, 4)


@pytest.mark.parametrize("sizes", [[], [3], [3, 4]])
def test_networks_have_the_sizes_asked_for(sizes):
    network = mlp(5, sizes, 2, nn.Tanh)
    assert [layer.out_features for layer in network if isinstance(layer, nn.Linear)] == [*sizes, 2]
    assert sum(isinstance(layer, nn.Tanh) for layer in network) == len(sizes)
    assert network(torch.zeros(7, 4, 5)).shape == (7, 4, 2)
    assert (network(torch.zeros(5)) == 0).all()  # biases start at zero


def test_an_encoder_takes_what_its_extractor_takes():
    class Sum(nn.Module):
        features_dim = 3

        def forward(self, observation: dict[str, torch.Tensor]) -> torch.Tensor:
            return observation["a"] + observation["b"]

    encoder = LatentEncoder(Sum(), [8], Z)
    observation = dict(a=torch.randn(4, 3), b=torch.randn(4, 3))
    z = encoder(observation)
    assert z.shape == (4, Z)
    torch.testing.assert_close(z, encoder(dict(a=observation["b"], b=observation["a"])))
