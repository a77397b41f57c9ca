"""Flow matching and the minimal iterative policy: their losses and their steps, and what they make of two modes."""

import sys

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from difftori_gym.baselines import MIP, FlowMatching
from difftori_gym.il import Demonstrations, Episode
from difftori_gym.il.networks import TrainingBatch

SMALL = dict(size="small", batch_size=32, n_obs_steps=1, device="cpu", seed=0)


def shown(action_of, *, episodes=40, steps=8):
    """Episodes of random observations ``[2]``; ``action_of(observation, episode)`` is what is done."""
    rng = np.random.default_rng(0)
    recorded = []
    for episode in range(episodes):
        observations = rng.uniform(-1, 1, (steps + 1, 2)).astype(np.float32)
        actions = np.array([action_of(each, episode) for each in observations[:-1]], np.float32)
        recorded.append(Episode(observations, actions, np.zeros(steps), False, True))
    box = spaces.Box(-1.0, 1.0, (2,))
    return Demonstrations(tuple(recorded), box, box)


def turned(observation, episode=0):
    return np.array([0.6 * observation[1], -0.6 * observation[0]])


def either(observation, episode):
    return np.full(2, 0.7 if episode % 2 else -0.7)


@pytest.fixture(scope="module")
def linear():
    return shown(turned)


@pytest.fixture(scope="module")
def two_modes():
    return shown(either)


class Recorder(nn.Module):
    """In place of a U-Net: remembers what it was asked, answers by a formula of actions and time in [0, 1]."""

    time_multiple = 2

    def __init__(self, formula):
        super().__init__()
        self.formula, self.times, self.seen = formula, [], []

    def forward(self, actions, steps, condition):
        self.times.append(steps[0].item() / 100.0)
        self.seen.append(actions.clone())
        return self.formula(actions, steps[:, None, None] / 100.0)


def network(cls, demonstrations, **settings):
    model = cls("MlpPolicy", None, demonstrations, **SMALL, **{"horizon": 3, "n_action_steps": 2, **settings})
    return model.policy.network


def batch_of(demonstrations, n=5):
    some = demonstrations.episodes[0]
    windows = np.stack([some.actions[start : start + 3] for start in range(n)])
    return TrainingBatch(torch.as_tensor(some.observations[:n, None]), torch.as_tensor(windows))


def sample_of(net, batch, index):
    """Condition ``[1, C]`` and padded actions ``[1, 4, A]`` of one sample."""
    actions = batch.actions[index : index + 1]
    condition = net.encoder(batch.observations[index : index + 1]).flatten(1)
    return condition, torch.cat([actions, actions[:, -1:]], dim=1)


def test_loss_of_flow_matching_is_that_of_a_plain_loop(linear):
    net, batch = network(FlowMatching, linear), batch_of(linear)
    torch.manual_seed(3)
    loss = net.loss(batch).total
    torch.manual_seed(3)
    noise, times = torch.randn(5, 4, 2), torch.rand(5)
    errors = []
    for index in range(5):
        condition, actions = sample_of(net, batch, index)
        on_the_way = times[index] * actions + (1 - times[index]) * noise[index]
        velocity = net.unet(on_the_way, 100 * times[index : index + 1], condition)
        errors.append(((velocity - (actions - noise[index])) ** 2).mean())
    torch.testing.assert_close(loss, torch.stack(errors).mean())


def test_loss_of_mip_is_that_of_a_plain_loop(linear):
    net, batch = network(MIP, linear, t_star=0.8), batch_of(linear)
    torch.manual_seed(3)
    loss = net.loss(batch).total
    torch.manual_seed(3)
    noise = torch.randn(5, 4, 2)
    firsts, seconds = [], []
    for index in range(5):
        condition, actions = sample_of(net, batch, index)
        first = net.unet(torch.zeros(1, 4, 2), torch.tensor([0.0]), condition)
        second = net.unet(0.8 * actions + 0.2 * noise[index], torch.tensor([80.0]), condition)
        firsts.append(((first - actions) ** 2).mean())
        seconds.append(((second - actions) ** 2).mean())
    torch.testing.assert_close(loss, torch.stack(firsts).mean() + torch.stack(seconds).mean())


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_euler_steps_follow_a_known_flow(linear, steps):
    """Along straight paths to one point the velocity is (point - x) / (1 - t), and Euler's method ends on it."""
    net = network(FlowMatching, linear, num_inference_steps=steps)
    net.unet = Recorder(lambda actions, times: (0.25 - actions) / (1.0 - times))
    noise = torch.randn(4, net.noise_dim)
    actions = net.chunk(torch.zeros(4, 1, 2), noise, None, True)
    assert actions.shape == (4, 3, 2)
    torch.testing.assert_close(actions, torch.full((4, 3, 2), 0.25))
    assert net.unet.times == pytest.approx([step / steps for step in range(steps)])  # as many calls as steps
    torch.testing.assert_close(net.unet.seen[0], noise.view(4, 4, 2))


def test_mip_calls_its_network_twice(linear):
    net = network(MIP, linear)
    net.unet = Recorder(lambda actions, times: actions * actions + 0.5 - 0.1 * times)
    actions = net.chunk(torch.zeros(4, 1, 2), torch.zeros(4, 0), None, False)
    assert net.unet.times == pytest.approx([0.0, 0.9])
    torch.testing.assert_close(net.unet.seen[0], torch.zeros(4, 4, 2))
    torch.testing.assert_close(net.unet.seen[1], torch.full((4, 4, 2), 0.9 * 0.5))
    torch.testing.assert_close(actions, torch.full((4, 3, 2), 0.45**2 + 0.5 - 0.09))


@pytest.mark.parametrize(("cls", "tolerance"), [(FlowMatching, 0.15), (MIP, 0.04)])
def test_a_linear_expert_is_learned(cls, tolerance, linear):
    model = cls("MlpPolicy", None, linear, **SMALL, horizon=1, n_action_steps=1, learning_rate=3e-3)
    observations = np.random.default_rng(1).uniform(-0.9, 0.9, (64, 2)).astype(np.float32)
    expert = np.array([turned(each) for each in observations])

    def error():
        return np.abs(model.predict(observations, deterministic=True)[0] - expert).mean()

    assert error() > 0.25
    model.learn(250)
    assert error() < tolerance


def test_flow_matching_keeps_two_modes_and_mip_gives_one_answer(two_modes):
    drawn = {}
    settings = dict(SMALL, batch_size=64, horizon=2, n_action_steps=1, learning_rate=2e-3)
    for cls, steps in ((FlowMatching, 400), (MIP, 200)):
        model = cls("MlpPolicy", None, two_modes, **settings).learn(steps)
        torch.manual_seed(0)
        drawn[cls] = model.predict(np.zeros((200, 2), np.float32), deterministic=False)[0]
        same = model.predict(np.zeros((5, 2), np.float32), deterministic=True)[0]
        np.testing.assert_allclose(same, np.repeat(same[:1], 5, axis=0), atol=1e-5)  # one noise for all, or none
    flow, mip, net = drawn[FlowMatching], drawn[MIP], model.policy.acting
    assert (np.abs(flow) > 0.35).mean() > 0.85
    assert 0.25 < (flow[:, 0] > 0).mean() < 0.75
    assert (np.sign(flow[:, 0]) == np.sign(flow[:, 1])).mean() > 0.85  # a mode, and not each number for itself
    assert np.ptp(mip, axis=0).max() < 1e-4  # nothing is drawn
    condition = net.encoder(torch.zeros(1, 1, 2)).flatten(1)
    assert net.at(0.0, torch.zeros(1, 2, 2), condition).abs().max() < 0.35  # its first step averages


def test_they_do_without_the_diffusers_library(linear, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    for cls in (FlowMatching, MIP):
        network(cls, linear)


@pytest.mark.parametrize(
    ("cls", "settings", "message"),
    [
        (FlowMatching, dict(num_inference_steps=0), "FlowMatching needs num_inference_steps >= 1, got 0"),
        (MIP, dict(t_star=1.0), r"MIP needs t_star in \(0, 1\), got 1.0"),
        (MIP, dict(size="tiny"), "MIP needs size to be one of diffusion_policy, dp3, simple_dp3, small, got 'tiny'"),
    ],
)
def test_what_cannot_be_built_is_refused(linear, cls, settings, message):
    with pytest.raises(ValueError, match=message):
        cls("MlpPolicy", None, linear, **{**SMALL, **settings})
