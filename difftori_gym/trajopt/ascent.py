"""
Ascent by trial steps: a step that does not improve a sample is taken back, so that no sample ever gets worse.

A :class:`Rule` makes the steps. The search only keeps numbers; a derivative is had afterwards by repeating the accepted
steps with a graph, and takes what the search has chosen for constants.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from difftori_gym.trajopt.iterates import IterateRecord, finite, finite_start, free_gradient, project
from difftori_gym.trajopt.linearization import linearize
from difftori_gym.trajopt.objective import FastObjective
from difftori_gym.trajopt.settings import Settings
from difftori_gym.trajopt.solution import Solution

ROUNDING = 8.0
"""Differences of the objective below so many units in the last place say nothing."""


@dataclass(frozen=True)
class Point:
    """What is known of the objective at one iterate, without a graph."""

    actions: Tensor
    value: Tensor
    gradient: Tensor

    def usable(self) -> Tensor:
        """Mask ``[B]``, False where value or gradient is not finite."""
        return finite(self.value) & finite(self.gradient).flatten(1).all(1)

    def where(self, mask: Tensor, other: Point) -> Point:
        """This point where ``mask`` ``[B]`` is True, the other elsewhere."""
        wide = mask[:, None, None]
        return Point(
            torch.where(wide, self.actions, other.actions),
            torch.where(mask, self.value, other.value),
            torch.where(wide, self.gradient, other.gradient),
        )


class Rule(Protocol):
    """How a solver steps. An instance lives for one solve and keeps the step lengths of every sample."""

    def propose(self, point: Point) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Where the next trial leads, maybe outside the box, and the tensors ``[B, ...]`` that :meth:`repeat` needs."""

    def adapt(self, point: Point, trial: Point, accepted: Tensor) -> None:
        """Change step lengths after a trial from ``point``, which the samples ``accepted`` ``[B]`` take."""

    def repeat(self, actions: Tensor, parameters: tuple[Tensor, ...], takes: Tensor) -> Tensor:
        """
        Where a step of the search leads ``[B, H, A]``, possibly outside the box, once more and with a graph.

        ``takes`` is the mask ``[B]`` of samples that take the step; the others' numbers may be broken and must not
        enter the arithmetic, and what is returned for them does not matter.
        """


@dataclass(frozen=True)
class Step:
    """One iteration of the search: the iterate before it, the trial's parameters, and who accepted it."""

    actions: Tensor
    parameters: tuple[Tensor, ...]
    accepted: Tensor


def ascend(objective: FastObjective, actions: Tensor, settings: Settings, rule: Rule) -> Solution:
    """
    Ascend ``objective`` with ``settings.max_iterations`` trial steps per sample.

    :param objective: ``[B, H, A]`` -> ``[B]``
    :param actions: start ``[B, H, A]``
    :param settings: uses ``max_iterations, bounds, wall_gradient, backward_mode, backward_num_iterations``
    :param rule: proposes the steps
    :return: the solution; ``history`` never falls. ``"truncated"`` differentiates the last
        ``backward_num_iterations`` steps that a sample accepted.
    """
    start, failed = finite_start(actions, settings.bounds)
    record = IterateRecord(failed)
    with torch.no_grad():
        last, steps = search(objective, start.detach(), settings, rule, record)
    if settings.backward_mode in ("unroll", "truncated"):
        with torch.enable_grad():
            repeated = repeat(start, steps, settings, rule)
            # The numbers stay those of the search, so that the backward modes agree on them to the last bit.
            change = repeated - repeated.detach()
            last = last + torch.where(finite(change.detach()), change, 0.0)
    return record.solution(objective, last, settings.bounds)


def search(
    objective: FastObjective, start: Tensor, settings: Settings, rule: Rule, record: IterateRecord
) -> tuple[Tensor, list[Step]]:
    """The last iterate ``[B, H, A]`` from a finite start without a graph, and the steps that :func:`repeat` takes."""
    point = _measure(objective, start, settings)
    steps: list[Step] = []
    done = ~point.usable()
    record.add(point.actions, point.value)
    record.add_step(~done)
    for _ in range(settings.max_iterations):
        # Whether all are done is asked on a CPU only: elsewhere the answer has to be waited for.
        if not steps or done.device.type != "cpu" or not bool(done.all()):
            point, step, done = _attempt(objective, point, settings, rule, record, done)
            steps.append(step)
        record.add(point.actions, point.value)
    return point.actions, steps


def _attempt(
    objective: FastObjective, point: Point, settings: Settings, rule: Rule, record: IterateRecord, done: Tensor
) -> tuple[Point, Step, Tensor]:
    proposed, parameters = rule.propose(point)
    usable = finite(proposed).flatten(1).all(1)
    trial_actions = torch.where((usable & ~done)[:, None, None], _bounded(proposed, settings), point.actions)
    trial = _measure(objective, trial_actions, settings)
    usable = usable & trial.usable()
    record.add_step(usable | done)

    # Near an optimum the objective no longer tells two iterates apart, but the gradient still does.
    gain = trial.value - point.value
    rounding = ROUNDING * torch.finfo(gain.dtype).eps * torch.maximum(point.value.abs(), trial.value.abs())
    closer = _steepness(trial, settings) < _steepness(point, settings)
    accepted = usable & ~done & ((gain > rounding) | ((gain >= -rounding) & closer))
    promised = (point.gradient * (trial.actions - point.actions)).sum(dim=(1, 2))
    done = done | (usable & ~accepted & (promised <= rounding))
    rule.adapt(point, trial, accepted)
    return trial.where(accepted, point), Step(point.actions, parameters, accepted), done


def _measure(objective: FastObjective, actions: Tensor, settings: Settings) -> Point:
    with torch.enable_grad():
        point, value, gradient = linearize(objective, actions, settings, differentiate=False)
    return Point(point.detach(), value.detach(), gradient.detach())


def _steepness(point: Point, settings: Settings) -> Tensor:
    gradient = point.gradient
    if settings.bounds == "project":
        gradient = free_gradient(point.actions, gradient)
    return gradient.abs().amax(dim=(1, 2))  # [B]


def _bounded(actions: Tensor, settings: Settings) -> Tensor:
    return project(actions, settings.wall_gradient) if settings.bounds == "project" else actions


def repeat(start: Tensor, steps: list[Step], settings: Settings, rule: Rule) -> Tensor:
    """
    The last iterate as a function of what the objective captured and, for ``"unroll"``, the start, but for rounding.
    """
    current = start
    if settings.backward_mode == "truncated" and settings.backward_num_iterations < settings.max_iterations:
        steps = _last_accepted(steps, settings.backward_num_iterations)
        current = steps[0].actions
    for step in steps:
        point = current if current.requires_grad else current.detach().requires_grad_()
        proposal = _bounded(rule.repeat(point, step.parameters, step.accepted), settings)
        current = torch.where(step.accepted[:, None, None], proposal, point)
    return current


def _last_accepted(steps: list[Step], count: int) -> list[Step]:
    """The last accepted steps of each sample, which samples may have taken at different iterations."""
    accepted = torch.stack([step.accepted for step in steps])  # [K, B]
    order = torch.arange(1, len(steps) + 1, device=accepted.device)[:, None] * accepted  # 0 where rejected
    chosen = order.topk(min(count, len(steps)), dim=0).values.flip(0)  # [count, B], in the order of the iterations
    index, taken = (chosen - 1).clamp(min=0), chosen > 0

    def select(tensors: list[Tensor]) -> Tensor:
        stacked = torch.stack(tensors)  # [K, B, ...]
        return stacked.take_along_dim(index.view(*index.shape, *[1] * (stacked.dim() - 2)), dim=0)

    iterates = select([step.actions for step in steps])
    parameters = [select(list(column)) for column in zip(*(step.parameters for step in steps), strict=True)]
    return [Step(iterates[k], tuple(column[k] for column in parameters), taken[k]) for k in range(len(taken))]
