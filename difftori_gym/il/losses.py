"""Losses of imitation learning, as functions of what networks returned."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ImitationLoss:
    """
    What a network returns for a batch. Every field is a scalar tensor ``[]`` and is logged under its name.

    :param total: what is minimised
    """

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
    """
    Mean squared error over everything.

    :param predicted: ``[B, H, A]``
    :param actions: demonstrated actions ``[B, H, A]`` in [-1, 1]
    :return: ``[]``
    """
    return (predicted - actions).square().mean()


def kl_to_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """
    KL(N(mean, variance) || N(0, I)), summed over dimensions.

    :param mean: ``[B, Z]``
    :param log_variance: ``[B, Z]``
    :return: ``[B]``, at least 0
    """
    return 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).sum(dim=-1)


def sample_gaussian(mean: Tensor, log_variance: Tensor) -> Tensor:
    """
    One draw, differentiable in mean and variance.

    :param mean: ``[B, Z]``
    :param log_variance: ``[B, Z]``
    :return: ``[B, Z]``
    """
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

    :param predicted: actions of the optimiser ``[B, H, A]``, differentiable
    :param actions: demonstrated actions ``[B, H, A]`` in [-1, 1]
    :param mean: of the posterior ``[B, Z]``
    :param log_variance: of the posterior ``[B, Z]``
    :param solver_failures: number of samples whose numbers were not finite ``[]``
    :param action_coef: weight of the first term; 3000 in the released code
    :param kl_coef: weight of the second; 10 in the released code
    :return: the loss and its terms
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
