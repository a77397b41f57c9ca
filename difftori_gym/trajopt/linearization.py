"""Value, gradient and curvature of an objective at an iterate, as the solvers ask for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from difftori_gym.trajopt.iterates import HIGH, LOW
from difftori_gym.trajopt.solution import Objective

if TYPE_CHECKING:
    from difftori_gym.trajopt.optimizer import TrajectoryOptimizer

OwnGradient = Callable[[Tensor], tuple[Tensor, Tensor]]
"""``[B, H, A]`` -> values ``[B]``, gradient ``[B, H, A]``, both without a graph."""


def value_of(objective: Objective, actions: Tensor, settings: TrajectoryOptimizer) -> Tensor:
    """
    :param objective: ``[B, H, A]`` -> ``[B]``
    :param actions: iterate ``[B, H, A]``
    :param settings: with ``bounds="clamp"`` the objective sees clamped actions, as in the released code, while the
        iterate itself may drift away
    :return: objective ``[B]``
    """
    return objective(actions.clamp(LOW, HIGH) if settings.bounds == "clamp" else actions)


def value_only(objective: Objective, actions: Tensor, settings: TrajectoryOptimizer) -> Tensor:
    """
    :param objective: ``[B, H, A]`` -> ``[B]``; its ``value_only``, if any, serves
    :param actions: iterate ``[B, H, A]``
    :param settings: treatment of the box
    :return: objective ``[B]``, without a graph
    """
    fast = getattr(objective, "value_only", None)
    with torch.no_grad():
        if fast is not None and settings.bounds != "clamp":
            value: Tensor = fast(actions.detach())
            return value
        return value_of(objective, actions.detach(), settings)


def unguarded_gradient(objective: Objective, settings: TrajectoryOptimizer, start: Tensor) -> OwnGradient | None:
    """
    What a plan without a derivative may ask of the objective again and again, to look at the numbers only in the end.

    At batch 1 calls of small operations are what takes the time: guards cost as much as the rest of a solver's step.

    :param objective: ``[B, H, A]`` -> ``[B]``
    :param settings: treatment of the box, backward mode
    :param start: ``[B, H, A]``
    :return: its ``value_and_gradient``; None if it has none, or if the last look at the numbers had to be waited for
    """
    fast: OwnGradient | None = getattr(objective, "value_and_gradient", None)
    serves = settings.backward_mode == "none" and settings.bounds != "clamp" and start.numel() > 0
    return fast if serves and start.device.type == "cpu" else None


def linearize(
    objective: Objective, actions: Tensor, settings: TrajectoryOptimizer, differentiate: bool, twice: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """
    Value and gradient of the objective at an iterate. Needs ``torch.enable_grad()``.

    :param objective: ``[B, H, A]`` -> ``[B]``; its ``value_and_gradient``, if any, serves where no graph is wanted, its
        ``differentiable_value_and_gradient`` where one is that is used once
    :param actions: iterate ``[B, H, A]``
    :param settings: treatment of the box
    :param differentiate: whether the gradient gets a graph of its own
    :param twice: whether that graph is differentiated more than once, as for a Hessian
    :return: the iterate ``[B, H, A]``, value ``[B]``, gradient ``[B, H, A]``; with a graph if ``differentiate``
    :raises ValueError: if the objective does not depend on the actions
    """
    fast = getattr(objective, "value_and_gradient", None)
    if fast is not None and not differentiate and settings.bounds != "clamp":
        return actions.detach(), *fast(actions.detach())
    point = actions if actions.requires_grad else actions.detach().requires_grad_()
    once = getattr(objective, "differentiable_value_and_gradient", None)
    if once is not None and differentiate and not twice and settings.bounds != "clamp":
        found = once(point)
        if found is not None:
            return point, *found
    value = value_of(objective, point, settings)
    (gradient,) = torch.autograd.grad(value.sum(), point, create_graph=differentiate, allow_unused=True)
    if gradient is None:
        raise ValueError(
            "An objective needs to depend on the actions, got values that do not: use the argument it is called with."
        )
    return point, value, gradient


def hessian(gradient: Tensor, point: Tensor, differentiate: bool) -> Tensor:
    """
    All second derivatives of each sample's value, one batched product per action.

    The value of a sample depends on its own actions only, so one product with a basis vector serves the whole batch.
    Needs memory for H * A backward passes at once.

    :param gradient: gradient ``[B, H, A]`` with a graph
    :param point: where it was taken ``[B, H, A]``
    :param differentiate: whether the second derivatives get a graph of their own
    :return: ``[B, n, n]`` with n = H * A; zero where the gradient is constant
    """
    n = point[0].numel()
    basis = torch.eye(n, dtype=point.dtype, device=point.device).view(n, 1, *point.shape[1:]).expand(n, *point.shape)
    rows = _products(gradient, point, basis, differentiate)  # [n, B, H, A]
    return rows.flatten(2).transpose(0, 1)


def second_derivative(gradient: Tensor, point: Tensor, vector: Tensor) -> Tensor:
    """
    :param gradient: gradient ``[B, H, A]`` with a graph
    :param point: where it was taken ``[B, H, A]``
    :param vector: ``[B, H, A]``
    :return: each sample's Hessian times its vector ``[B, H, A]``
    """
    if not gradient.requires_grad:
        return torch.zeros_like(vector)
    (product,) = torch.autograd.grad(gradient, point, vector, retain_graph=True, allow_unused=True)
    return torch.zeros_like(vector) if product is None else product


def _products(gradient: Tensor, point: Tensor, vectors: Tensor, differentiate: bool) -> Tensor:
    """Second derivatives times each of several vectors ``[N, B, H, A]``, of the same shape."""
    if not gradient.requires_grad:
        return torch.zeros_like(vectors)
    kept = dict(retain_graph=True, create_graph=differentiate, allow_unused=True)
    try:
        (products,) = torch.autograd.grad(gradient, point, vectors, is_grads_batched=True, **kept)
    except RuntimeError:  # the objective holds an operation that cannot be batched
        each = [torch.autograd.grad(gradient, point, vector, **kept)[0] for vector in vectors]
        products = None if each[0] is None else torch.stack(each)
    return torch.zeros_like(vectors) if products is None else products
