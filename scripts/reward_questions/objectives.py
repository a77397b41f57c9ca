"""What is learned from an expert's plans where the truth is known, and what is planned with it when a mass changes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from difftori_gym import DiffTORIImitation
from difftori_gym.il import Demonstrations as Recorded
from difftori_gym.il.episode import Episode
from difftori_gym.models import LatentScore
from difftori_gym.trajopt import TrajectoryOptimizer
from reward_questions.metaworld import PLANNER, imitate, network_of, scores
from reward_questions.systems import (
    HORIZON,
    Demonstrations,
    Dynamics,
    PlannedCost,
    Planner,
    StageCost,
    System,
    learn_through_plans,
    planner_of,
)

Values = Callable[[Tensor, Tensor], Tensor]
"""States ``[B, S]``, plans ``[B, H, 1]`` -> ``[B]``, larger is better."""


@dataclass(frozen=True)
class Learned:
    """
    :param values: what it gives to plans, under the dynamics that it was learned with
    :param transferred: from the true dynamics after a change, who plans with it there; None where it is a policy
    :param policy: the learner as it acts, which knows nothing of a change; None where it plans
    """

    values: Values
    transferred: Callable[[Dynamics], Planner] | None = None
    policy: Planner | None = None


@dataclass(frozen=True)
class LearningSettings:
    """
    :param steps: gradient steps of DiffTORI and of its base policy
    :param reward_steps: steps of Adam on the network for a reward under the true dynamics
    :param evaluations: of the loss, at most, to identify the weights of the cost
    :param identify_on: demonstrations that the weights are identified from
    """

    steps: int = 800
    reward_steps: int = 120
    evaluations: int = 60
    identify_on: int = 100


IDENTIFIER = TrajectoryOptimizer(solver="newton", max_iterations=10, backward_mode="implicit")


def identified_weights(system: System, demonstrations: Demonstrations, evaluations: int) -> tuple[float, ...]:
    """
    Identify the cost's weights through the optimiser: L-BFGS on the squared difference of plans.

    A plan begins at the expert's, so that learner and expert are in the same optimum.

    :param system: whose cost has a known form
    :param demonstrations: of the expert
    :param evaluations: of the loss at most
    :return: weights at the least loss
    """
    dynamics = system.dynamics(1.0)
    logarithms = torch.tensor(system.guess, dtype=torch.float64).log().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [logarithms],
        max_iter=evaluations,
        max_eval=evaluations,
        tolerance_grad=1e-9,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )
    best: tuple[float, tuple[float, ...]] = (math.inf, system.guess)

    def evaluate() -> Tensor:
        nonlocal best
        optimizer.zero_grad()
        objective = PlannedCost(dynamics, system.weighted(logarithms.exp()), demonstrations.start)
        planned = IDENTIFIER(objective, demonstrations.actions).actions
        loss = (planned - demonstrations.actions).square().mean()
        loss.backward()
        best = min(best, (loss.item(), tuple(logarithms.detach().exp().tolist())))
        return loss

    step: Callable[[Callable[[], Tensor]], Tensor] = optimizer.step
    step(evaluate)
    return best[1]


def from_cost(system: System, cost: StageCost) -> Learned:
    """:return: a cost that is planned with, under whatever dynamics there are"""
    nominal = system.dynamics(1.0)
    return Learned(
        lambda state, actions: PlannedCost(nominal, cost, state)(actions),
        lambda dynamics: planner_of(dynamics, cost),
    )


def network_cost(system: System, demonstrations: Demonstrations, steps: int, seed: int) -> StageCost:
    """
    A network for the cost of a step, -f(s, a), learned through the plans that are made with it and the true dynamics.

    :return: the cost, trained
    """
    torch.manual_seed(seed)
    mean, deviation = _scales(system.features(demonstrations.states.flatten(0, 1)))
    network = nn.Sequential(
        nn.Linear(mean.shape[1] + 1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1)
    ).double()

    def cost(state: Tensor, action: Tensor) -> Tensor:
        return network(torch.cat([(system.features(state) - mean) / deviation, action], dim=1))[:, 0]

    dynamics = system.dynamics(1.0)
    learn_through_plans(lambda: (dynamics, cost), list(network.parameters()), demonstrations, steps, seed)
    network.requires_grad_(False)
    return cost


def _scales(features: Tensor) -> tuple[Tensor, Tensor]:
    return features.mean(dim=0, keepdim=True), features.std(dim=0, keepdim=True) + 1e-6


def recorded(system: System, demonstrations: Demonstrations) -> Recorded:
    """:return: each plan as an episode of its own, which is then one window of ``HORIZON`` actions"""
    states = demonstrations.states
    seen = system.features(states.flatten(0, 1)).view(*states.shape[:2], -1).float().numpy()
    actions = demonstrations.actions.float().numpy()
    reward = np.zeros(actions.shape[1], dtype=np.float32)
    return Recorded(
        tuple(Episode(seen[i], actions[i], reward, False, True) for i in range(len(actions))),
        spaces.Box(-np.inf, np.inf, seen.shape[2:], np.float32),
        spaces.Box(-1.0, 1.0, (1,), np.float32),
    )


def imitated(
    system: System, demonstrations: Demonstrations, objective: str, steps: int, seed: int
) -> DiffTORIImitation:
    """:return: DiffTORI on a cloned base policy; the horizon is the expert's"""
    window: dict[str, Any] = dict(n_obs_steps=1, horizon=HORIZON, n_action_steps=1, batch_size=64)
    return imitate(recorded(system, demonstrations), objective, steps, seed, (64, 64), **window)


def observed(system: System, state: Tensor) -> Tensor:
    """States ``[B, S]`` -> what the learner sees ``[B, 1, F]``, float32."""
    return system.features(state).float()[:, None]


def cloned(system: System, model: DiffTORIImitation) -> Learned:
    """:return: the base policy; its score of a plan is how near it is to what the policy plans"""

    def planned(state: Tensor, rest: Tensor | None) -> Tensor:
        start = model.policy.start(observed(system, state), model.policy.draw_noise(len(state), True), True)
        assert start is not None
        return start.clamp(-1.0, 1.0).double()

    return Learned(lambda state, actions: -(actions - planned(state, None)).square().flatten(1).sum(1), None, planned)


def difftori(system: System, model: DiffTORIImitation) -> Learned:
    """:return: DiffTORI as it acts; with the objective of the paper, f along true states too"""
    network = network_of(model)

    def values(state: Tensor, actions: Tensor) -> Tensor:
        return scores(network, observed(system, state), actions.float()).double()

    def planned(state: Tensor, rest: Tensor | None) -> Tensor:
        noise = model.policy.draw_noise(len(state), True)
        return model.policy.chunk(observed(system, state), noise, True).double()

    if not isinstance(network.score, LatentScore):
        return Learned(values, None, planned)
    clone = cloned(system, model).policy
    assert clone is not None

    def transferred(dynamics: Dynamics) -> Planner:
        optimizer = TrajectoryOptimizer(solver="lm", backward_mode="none", bounds="project", damping=1.0, **_ASCENT)

        def with_f(state: Tensor, rest: Tensor | None) -> Tensor:
            return optimizer(_TrueStates(system, network, dynamics, state), clone(state, None)).best_actions

        return with_f

    return Learned(values, transferred, planned)


_ASCENT = {name: PLANNER[name] for name in ("step_size", "max_iterations")}


@dataclass(frozen=True)
class _TrueStates:
    """sum_l discount^l f(e(s_l), a_l) along true states: the learned latent dynamics have no part in it."""

    system: System
    network: Any
    dynamics: Dynamics
    start: Tensor

    def __call__(self, actions: Tensor) -> Tensor:
        score, total, state = self.network.score, torch.zeros(len(actions), dtype=actions.dtype), self.start
        for step, action in enumerate(actions.unbind(dim=1)):
            condition = self.network.encoder(observed(self.system, state)).flatten(1)
            pair = torch.cat([score.encoder(condition), action.float()], dim=1)
            total = total + score.discount**step * score.score(pair)[:, 0].double()
            state = self.dynamics(state, action)
        return total

    def repeat(self, n: int) -> _TrueStates:
        return _TrueStates(self.system, self.network, self.dynamics, self.start.repeat(n, 1))


def everything(
    system: System, demonstrations: Demonstrations, settings: LearningSettings, seed: int
) -> Sequence[tuple[str, Callable[[], Learned]]]:
    """:return: by name, how each is learned; nothing is learned before it is asked for"""
    models: dict[str, DiffTORIImitation] = {}

    def model(objective: str) -> DiffTORIImitation:
        if objective not in models:
            models[objective] = imitated(system, demonstrations, objective, settings.steps, seed)
        return models[objective]

    def identified() -> Learned:
        few = torch.randperm(len(demonstrations.start), generator=torch.Generator().manual_seed(seed))
        some = demonstrations[few[: settings.identify_on]]
        weights = identified_weights(system, some, settings.evaluations)
        print(f"{system.name}, seed {seed}: weights {weights}, true {system.true_weights}", flush=True)
        return from_cost(system, system.weighted(torch.tensor(weights, dtype=torch.float64)))

    def network() -> Learned:
        return from_cost(system, network_cost(system, demonstrations, settings.reward_steps, seed))

    return (
        ("true cost", lambda: from_cost(system, system.cost)),
        ("identified cost", identified),
        ("f, true dynamics", network),
        ("f, latent dynamics", lambda: difftori(system, model("latent"))),
        ("f of the chunk", lambda: difftori(system, model("chunk"))),
        ("cloned policy", lambda: cloned(system, model("chunk"))),
    )
