"""Losses of imitation learning, as functions of what networks returned."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ImitationLoss:
    """What a network returns for a batch. ``total`` is minimised; each field is a tensor ``[]``, logged by its name."""

    total: Tensor


@dataclass(frozen=True)
class VariationalLoss(ImitationLoss):
    """
    :param action: mean squared error of the actions
    :param kl: divergence of the posterior from the prior
    :param action_max: greatest absolute value among the predicted actions, 1 at the walls of the box
    :param solver_failures: samples whose numbers were not finite
    """

    action: Tensor
    kl: Tensor
    action_max: Tensor
    solver_failures: Tensor


def action_loss(predicted: Tensor, actions: Tensor) -> Tensor:
    """Mean squared error over everything, ``[B, H, A]`` -> ``[]``."""
    return (predicted - actions).square().mean()


def kl_to_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, variance) || N(0, I)), summed over dimensions, ``[B, Z]`` -> ``[B]``, at least 0."""
    return 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).sum(dim=-1)


def sample_gaussian(mean: Tensor, log_variance: Tensor) -> Tensor:
    """One draw ``[B, Z]``, differentiable in mean and variance."""
    return mean + (0.5 * log_variance).exp() * torch.randn_like(mean)


def variational_loss(
    predicted: Tensor,
    actions: Tensor,
    mean: Tensor,
    log_variance: Tensor,
    solver_failures: Tensor,
    *,
    action_coef: float,
    kl_coef: float,
) -> VariationalLoss:
    """
    Loss of the conditional variational autoencoder whose decoder is a trajectory optimiser (DiffTORI, section 4.3).

    action_coef * mean |a(theta) - a*|^2 + kl_coef * KL(q(z | o, a*) || N(0, I))

    The actions of the optimiser, ``predicted``, and the demonstrated ones are ``[B, H, A]``, mean and variance of the
    posterior ``[B, Z]``. The coefficients are 3000 and 10 in the released code.
    """
    error = action_loss(predicted, actions)
    kl = kl_to_standard_normal(mean, log_variance).mean()
    return VariationalLoss(
        total=action_coef * error + kl_coef * kl,
        action=error.detach(),
        kl=kl.detach(),
        action_max=predicted.detach().abs().amax(),
        solver_failures=solver_failures.float(),
    )
