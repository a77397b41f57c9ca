"""Value, gradient and curvature of an objective at an iterate, as the solvers ask for them."""

from __future__ import annotations

import torch
from torch import Tensor

from difftori_gym.trajopt.iterates import HIGH, LOW
from difftori_gym.trajopt.objective import FastObjective
from difftori_gym.trajopt.settings import Settings


def value_of(objective: FastObjective, actions: Tensor, settings: Settings) -> Tensor:
    """
    Objective ``[B]`` at an iterate ``[B, H, A]``.

    With ``bounds="clamp"`` it sees clamped actions, as in the released code, while the iterate itself may drift away.
    """
    return objective(actions.clamp(LOW, HIGH) if settings.bounds == "clamp" else actions)


def value_only(objective: FastObjective, actions: Tensor, settings: Settings) -> Tensor:
    """Objective ``[B]`` without a graph, by its own ``value_only`` if it has one."""
    with torch.no_grad():
        found = None if settings.bounds == "clamp" else objective.value_only(actions.detach())
        return value_of(objective, actions.detach(), settings) if found is None else found


def linearize(
    objective: FastObjective, actions: Tensor, settings: Settings, differentiate: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """
    Value and gradient of the objective at an iterate. Needs ``torch.enable_grad()``.

    :param objective: ``[B, H, A]`` -> ``[B]``; its ``value_and_gradient``, if any, serves where no graph is wanted
    :param actions: iterate ``[B, H, A]``
    :param settings: treatment of the box
    :param differentiate: whether the gradient gets a graph of its own
    :return: the iterate ``[B, H, A]``, value ``[B]``, gradient ``[B, H, A]``; with a graph if ``differentiate``
    :raises ValueError: if the objective does not depend on the actions
    """
    point = actions if differentiate and actions.requires_grad else actions.detach().requires_grad_(differentiate)
    if settings.bounds != "clamp" and not differentiate:
        found = objective.value_and_gradient(point)
        if found is not None:
            return point, *found
    point.requires_grad_()
    value = value_of(objective, point, settings)
    (gradient,) = torch.autograd.grad(value.sum(), point, create_graph=differentiate, allow_unused=True)
    if gradient is None:
        raise ValueError(
            "An objective needs to depend on the actions, got values that do not: use the argument it is called with."
        )
    return point, value, gradient


def hessian(gradient: Tensor, point: Tensor, differentiate: bool) -> Tensor:
    """
    All second derivatives ``[B, n, n]`` of each sample's value, n = H * A; zero where the gradient is constant.

    ``gradient`` has a graph that begins at ``point``. The value of a sample depends on its own actions only, so one
    product with a basis vector serves the whole batch. Needs memory for H * A backward passes at once.
    """
    n = point.shape[1:].numel()
    basis = torch.eye(n, dtype=point.dtype, device=point.device).view(n, 1, *point.shape[1:]).expand(n, *point.shape)
    rows = _products(gradient, point, basis, differentiate)  # [n, B, H, A]
    return rows.flatten(2).transpose(0, 1)


def second_derivative(gradient: Tensor, point: Tensor, vector: Tensor) -> Tensor:
    """Each sample's Hessian times its vector ``[B, H, A]``; ``gradient`` has a graph that begins at ``point``."""
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
