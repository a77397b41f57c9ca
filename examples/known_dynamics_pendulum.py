"""
The pendulum imitation of Amos et al. 2018 and of DiffTORI's appendix, with and without damping.

Protocol, from the code released with Amos et al. (``differentiable-mpc``, ``imitation_nonconvex``): 120 states with an
angle in [-pi/2, pi/2] and a velocity in [-1, 1], drawn with torch's seed 0; from each one plan of 20 steps of 0.05 s by
an expert who knows dynamics and cost; 100 plans to learn from, 10 for validation (not used here), 10 to test on. What
is reported is the true cost of the learner's plans on the true pendulum, summed over the 20 steps.

The mean cost of ten states says more about the states than about the learner (their standard deviation is 16), so the
learners are also compared on states of their own draw, and with the expert on the same states.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from known_dynamics_learning import Demonstrations, LearningSettings, Model, demonstrate, imitate, plan
from known_dynamics_systems import TIME_STEP, Dynamics, Pendulum, PlannedCost, pendulum_cost
from torch import Tensor, nn

HORIZON = 20
SPLIT = (100, 110, 120)
PUBLISHED = {"undamped": {"expert": 13.126, "DiffTORI": 14.603}, "damped": {"expert": 10.132, "DiffTORI": 10.644}}
"""Costs in the appendix of DiffTORI (arXiv 2402.05421); Amos et al. 13.576 and 14.874, LSTM 15.962 and 12.098."""
FIRST_GUESS = {"undamped": (30.0, 0.75), "damped": (5.0, 1.0, 0.0, 0.0)}
"""Where Amos et al. start: (g, m, l) = (15, 3, 0.5), and the middle of their random starts (5, 1, 1)."""


@dataclass(frozen=True)
class ImitationSettings:
    """
    :param physics: how parameters are learned
    :param network: how the network is learned after its model has been fitted
    :param fit_steps: steps of Adam of that fit
    :param held_out: further states to test on
    :param seed: of the network
    """

    physics: LearningSettings = field(default_factory=lambda: LearningSettings(150, 0.1))
    network: LearningSettings = field(default_factory=lambda: LearningSettings(40, 1e-3, batch_size=50))
    fit_steps: int = 1500
    held_out: int = 100
    seed: int = 0


@dataclass(frozen=True)
class Outcome:
    """
    One line of the table.

    :param pendulum: ``"undamped"`` or ``"damped"``
    :param method: who plans
    :param test_cost: mean cost on the ten test states
    :param test_ratio: that over the expert's
    :param held_out_cost: mean cost on the further states
    :param held_out_ratio: that over the expert's
    :param losses: imitation loss at each learning step
    :param parameters: learned physical parameters, if any
    :param seconds: processor time to learn
    """

    pendulum: str
    method: str
    test_cost: float
    test_ratio: float
    held_out_cost: float
    held_out_ratio: float
    losses: tuple[float, ...] = ()
    parameters: tuple[float, ...] = ()
    seconds: float = 0.0


class NeuralPendulum(nn.Module):
    """
    A network for the angular acceleration; that the velocity is the derivative of the angle is all it is told.

    :param width: of its two hidden layers
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(4, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1)
        ).double()

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        """
        :param state: ``[B, 2]``
        :param action: ``[B, 1]``
        :return: next state ``[B, 2]``
        """
        theta, dtheta = state[:, :1], state[:, 1:]
        seen = torch.cat((theta.cos(), theta.sin(), dtheta / 4.0, action), dim=1)
        dtheta = dtheta + TIME_STEP * 20.0 * self.layers(seen)
        return torch.cat((theta + TIME_STEP * dtheta, dtheta), dim=1)


def initial_states(count: int, seed: int) -> Tensor:
    """
    :param count: number of states
    :param seed: of the draw; 0 with a count of 120 gives those of Amos et al.
    :return: states ``[count, 2]``, float64 of a draw in float32
    """
    generator = torch.Generator().manual_seed(seed)
    theta = (torch.rand(count, dtype=torch.float32, generator=generator) - 0.5) * math.pi
    dtheta = 2.0 * torch.rand(count, dtype=torch.float32, generator=generator) - 1.0
    return torch.stack((theta, dtheta), dim=1).double()


def step_error(dynamics: Dynamics, demonstrations: Demonstrations) -> Tensor:
    """
    System identification: how well a model predicts each next velocity.

    :param dynamics: model
    :param demonstrations: with the states that the expert went through
    :return: mean squared error of the acceleration over its own scale, scalar
    """
    before, after = demonstrations.states[:, :-1].flatten(0, 1), demonstrations.states[:, 1:].flatten(0, 1)
    error = (dynamics(before, demonstrations.actions.flatten(0, 1)) - after)[:, 1] / (20.0 * TIME_STEP)
    return error.square().mean()


def fit(dynamics: Callable[[], Dynamics], parameters: list[Tensor], demonstrations: Demonstrations, steps: int) -> None:
    """
    Fit a model to what the expert went through, without planning.

    :param dynamics: makes the model from the parameters
    :param parameters: leaves of its graph
    :param demonstrations: all of which every step uses
    :param steps: of Adam
    """
    optimizer = torch.optim.Adam(parameters, 1e-2)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        step_error(dynamics(), demonstrations).backward()
        optimizer.step()
        decay.step()


class PendulumImitation:
    """
    One of the two pendulums, its expert, and the learners.

    :param name: ``"undamped"`` or ``"damped"``
    :param settings: of the experiment
    """

    def __init__(self, name: str, settings: ImitationSettings) -> None:
        self.name, self.settings = name, settings
        true = Pendulum.DAMPED if name == "damped" else Pendulum.UNDAMPED
        self.true = Pendulum(torch.tensor(true, dtype=torch.float64))
        states = torch.cat((initial_states(SPLIT[2], 0), initial_states(settings.held_out, 1)))
        everything = demonstrate(self.true, pendulum_cost, states, HORIZON)
        self.training = everything[: SPLIT[0]]
        self.tested = everything[SPLIT[1] :]  # the test states, then the further ones
        self.expert = self._costs(self.tested.actions)

    def run(self) -> list[Outcome]:
        """:return: lines of the table, the expert first"""
        outcomes = [self._outcome("expert", self.tested.actions), self._physics("true structure", self._guess())]
        if self.name == "damped":
            outcomes.append(self._physics("structure without damping", self._guess()[:2]))
        return [*outcomes, *self._network()]

    def _guess(self) -> Tensor:
        return torch.tensor(FIRST_GUESS[self.name], dtype=torch.float64)

    def _physics(self, method: str, guess: Tensor) -> Outcome:
        """Learn parameters: the logarithm of the two that are positive, the others as they are."""
        begin = time.process_time()
        learned = torch.cat((guess[:2].log(), guess[2:])).requires_grad_()

        def physical() -> Tensor:
            return torch.cat((learned[:2].exp(), learned[2:]))

        def model() -> tuple[Dynamics, Callable[[Tensor, Tensor], Tensor]]:
            return Pendulum(physical()), pendulum_cost

        losses = imitate(
            model,
            [learned],
            self.training,
            self.settings.physics,
            # A structure that is wrong cannot fit what the expert went through; it had better fit the plans alone.
            penalty=(lambda some: step_error(model()[0], some)) if len(guess) == len(self._guess()) else None,
            seed=self.settings.seed,
        )
        seconds = time.process_time() - begin
        return self._learned(method, model, losses, seconds, tuple(physical().tolist()))

    def _network(self) -> list[Outcome]:
        """A network fitted to the transitions, then trained through the optimiser."""
        begin = time.process_time()
        torch.manual_seed(self.settings.seed)
        network = NeuralPendulum()
        parameters: list[Tensor] = list(network.parameters())

        def model() -> tuple[Dynamics, Callable[[Tensor, Tensor], Tensor]]:
            return network, pendulum_cost

        fit(lambda: network, parameters, self.training, self.settings.fit_steps)
        fitted = self._learned("network, fitted only", model, [], time.process_time() - begin)
        losses = imitate(
            model,
            parameters,
            self.training,
            self.settings.network,
            penalty=lambda some: step_error(network, some),
            seed=self.settings.seed,
        )
        return [fitted, self._learned("network", model, losses, time.process_time() - begin)]

    def _learned(
        self, method: str, model: Model, losses: list[float], seconds: float, parameters: tuple[float, ...] = ()
    ) -> Outcome:
        with torch.no_grad():
            actions = plan(*model(), self.tested.start, HORIZON)
        return self._outcome(method, actions, tuple(losses), parameters, seconds)

    def _outcome(
        self,
        method: str,
        actions: Tensor,
        losses: tuple[float, ...] = (),
        parameters: tuple[float, ...] = (),
        seconds: float = 0.0,
    ) -> Outcome:
        costs, count = self._costs(actions), SPLIT[2] - SPLIT[1]
        test, expert_test = costs[:count].mean().item(), self.expert[:count].mean().item()
        further, expert_further = costs[count:].mean().item(), self.expert[count:].mean().item()
        ratios = test / expert_test, further / expert_further
        return Outcome(self.name, method, test, ratios[0], further, ratios[1], losses, parameters, seconds)

    def _costs(self, actions: Tensor) -> Tensor:
        return -PlannedCost(self.true, pendulum_cost, self.tested.start)(actions)
