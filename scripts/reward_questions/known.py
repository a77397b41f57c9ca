"""Where the truth is known: does the learned objective order plans as the true cost does, and may a mass change?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from reward_questions.metaworld import accuracy, perturbed
from reward_questions.objectives import Learned, LearningSettings, everything
from reward_questions.systems import (
    HORIZON,
    SYSTEMS,
    Demonstrations,
    PlannedCost,
    System,
    demonstrations_of,
    drive,
    driven_cost,
    planner_of,
)
from reward_questions.table import Row, Table

NEAR = (0.1, 0.3)
"""Standard deviations of what is added to the expert's plans."""
LEARNERS = (
    "true cost",
    "old expert",
    "identified cost",
    "f, true dynamics",
    "f of the chunk",
    "cloned policy",
    "f, latent dynamics",
)
UNSEEN = 1000  # seed of the starts that nothing is learned from


@dataclass(frozen=True)
class KnownSettings:
    """
    :param systems: of ``SYSTEMS``
    :param learners: of ``LEARNERS``
    :param seeds: of the demonstrations' starts and of the learners
    :param starts: drives of the expert to learn from, of ``steps`` steps each
    :param steps: of a drive
    :param tested: drives of the expert to test on
    :param plans: within a state, of each kind
    :param factors: on the mass
    :param learning: of the learners
    """

    systems: tuple[str, ...] = ("pendulum", "cart-pole")
    learners: tuple[str, ...] = LEARNERS
    seeds: tuple[int, ...] = (0, 1, 2)
    starts: int = 30
    steps: int = 40
    tested: int = 10
    plans: int = 32
    factors: tuple[float, ...] = (1.0, 0.5, 1.5, 3.0)
    learning: LearningSettings = field(default_factory=LearningSettings)


def spearman(first: Tensor, second: Tensor) -> Tensor:
    """
    Rank correlation: that of the ranks, equal values sharing theirs.

    :param first: ``[B, N]``
    :param second: ``[B, N]``
    :return: ``[B]`` in [-1, 1], nan where one of the two does not vary
    """
    one, other = _ranks(first), _ranks(second)
    return (one * other).sum(dim=1) / (one.square().sum(dim=1) * other.square().sum(dim=1)).sqrt()


def _ranks(values: Tensor) -> Tensor:
    below = (values[:, None, :] < values[:, :, None]).double().sum(dim=2)
    equal = (values[:, None, :] == values[:, :, None]).double().sum(dim=2)
    ranks = below + 0.5 * equal
    return ranks - ranks.mean(dim=1, keepdim=True)


@torch.no_grad()
def correlations(learned: Learned, system: System, tested: Demonstrations, plans: int) -> Iterator[Row]:
    """
    Rank correlation of what is learned with the negative true cost, of plans in the same state and across states.

    Within a state nothing depends on what an objective adds that depends on the state alone, nor on its scale: neither
    changes a plan, so neither can be learned from plans.

    :param learned: to judge
    :param system: with the true cost
    :param tested: the expert's plans, from states that nothing was learned from
    :param plans: of each kind in each state
    :return: rows by kind of plan
    """
    generator = torch.Generator().manual_seed(0)
    start = tested.start.repeat_interleave(plans, dim=0)
    expert = tested.actions.repeat_interleave(plans, dim=0)
    truth = PlannedCost(system.dynamics(1.0), system.cost, start)
    kinds = {f"expert + {sigma:g}": perturbed(expert, sigma, generator) for sigma in NEAR}
    kinds["random"] = 2.0 * torch.rand(expert.shape, generator=generator, dtype=expert.dtype) - 1.0
    best = learned.values(tested.start, tested.actions)
    for kind, actions in kinds.items():
        values = learned.values(start, actions).view(-1, plans)
        within = spearman(values, truth(actions).view(-1, plans)).nanmean().item()
        above = accuracy(best[:, None].expand_as(values), values)
        yield {"plans": kind, "spearman": within, "expert_first": above}
    own = PlannedCost(system.dynamics(1.0), system.cost, tested.start)(tested.actions)
    yield {"plans": "expert, across states", "spearman": spearman(best[None], own[None]).item(), "expert_first": ""}


def regrets(learned: Learned, system: System, start: Tensor, factors: tuple[float, ...]) -> Iterator[Row]:
    """
    The true cost of ``HORIZON`` steps on the changed system, from the expert's states.

    Regret 0 is the true cost planned there, 1 doing nothing. Who plans carries the plan out. A policy, which
    does not know of the change, sees where it comes and answers at every step.

    :param learned: to judge
    :param system: whose mass is changed
    :param start: states ``[B, S]``
    :param factors: on the mass
    :return: rows by factor and by who drives
    """
    for factor in factors:
        dynamics = system.dynamics(factor)
        best = _planned_cost(system, factor, start, from_true_cost=True)
        idle = _planned_cost(system, factor, start, from_true_cost=False)
        ways: dict[str, Tensor] = {}
        if learned.transferred is not None:
            with torch.no_grad():
                plan = learned.transferred(dynamics)(start, None)
            ways["planned"] = -PlannedCost(dynamics, system.cost, start)(plan)
        if learned.policy is not None:
            ways["policy"] = driven_cost(system.cost, *drive(dynamics, learned.policy, start, HORIZON))
        for way, cost in ways.items():
            yield {"factor": factor, "way": way, "regret": ((cost - best).mean() / (idle - best).mean()).item()}


@torch.no_grad()
def _planned_cost(system: System, factor: float, start: Tensor, *, from_true_cost: bool) -> Tensor:
    dynamics = system.dynamics(factor)
    plan = start.new_zeros(len(start), HORIZON, 1)
    if from_true_cost:
        plan = planner_of(dynamics, system.cost)(start, None)
    return -PlannedCost(dynamics, system.cost, start)(plan)


def old_expert(system: System) -> Learned:
    """:return: the expert that does not know of the change: a policy without an error of imitation"""
    nominal = planner_of(system.dynamics(1.0), system.cost)

    def planned(state: Tensor, rest: Tensor | None) -> Tensor:
        different, which = state.unique(dim=0, return_inverse=True)  # each state once: it plans long
        return nominal(different, None)[which]

    return Learned(lambda state, actions: -(actions - planned(state, None)).square().flatten(1).sum(1), None, planned)


def run(correlation: Table | None, transfer: Table | None, settings: KnownSettings) -> None:
    """
    Learn once and ask both.

    :param correlation: rows of the first question, None: it is not asked
    :param transfer: rows of the second
    :param settings: of both
    """
    for seed in settings.seeds:
        for name in settings.systems:
            system = SYSTEMS[name]
            known = tested = None
            learners = None
            for learner in settings.learners:
                key: Row = {"system": name, "learner": learner, "seed": seed}
                open_tables = [table for table in (correlation, transfer) if table is not None and not table.of(**key)]
                if not open_tables:
                    continue
                if known is None or tested is None:
                    known = demonstrations_of(system, settings.starts, settings.steps, seed)
                    tested = demonstrations_of(system, settings.tested, settings.steps, UNSEEN + seed)
                    learners = dict(everything(system, known, settings.learning, seed))
                assert learners is not None
                learned = old_expert(system) if learner == "old expert" else learners[learner]()
                for table in open_tables:
                    rows = (
                        correlations(learned, system, tested, settings.plans)
                        if table is correlation
                        else regrets(learned, system, tested.start, settings.factors)
                    )
                    table.replace(list(rows), **key)


def correlation_table(folder: Path) -> Table:
    """:return: the rows of the first question"""
    return Table(
        folder / "reward_correlation.csv", ("system", "learner", "seed", "plans"), ("spearman", "expert_first")
    )


def transfer_table(folder: Path) -> Table:
    """:return: the rows of the second question"""
    return Table(folder / "reward_transfer.csv", ("system", "learner", "seed", "factor", "way"), ("regret",))
