"""
The losses of DiffTORI as functions of networks and data; no optimiser, no buffer, no environment.

Time runs along axis 1: a window has H transitions, z_0 is encoded from its first observation and z_{t+1} is imagined.
Source: TD-MPC (arXiv 2203.04955) for the model and prior losses, DiffTORI (arXiv 2402.05421, Eq. 3 and 6) for the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from difftori_gym.models import EnsembleCritic, LatentModel, termination_loss


@dataclass(frozen=True)
class LossCoefficients:
    """
    Weights of the model loss; 0 switches a term off.

    :param reward: on the squared error of predicted rewards
    :param value: on the squared error of latent values
    :param consistency: on the squared distance of imagined and encoded next latent states
    :param termination: on the cross-entropy of predicted terminations
    :param rho: each further step of a window counts this much less, in (0, 1]
    """

    reward: float = 0.5
    value: float = 0.1
    consistency: float = 2.0
    termination: float = 1.0
    rho: float = 0.5


@dataclass(frozen=True)
class ModelLoss:
    """
    :param total: importance-weighted loss ``[]``
    :param reward: unweighted reward term ``[]``, detached, for the log; likewise the next three
    :param value: value term
    :param consistency: consistency term
    :param termination: termination term
    :param td_error: rho-weighted absolute temporal-difference error ``[B]``, detached, for priorities
    :param latents: z_0 .. z_H ``[B, H + 1, Z]``, detached
    :param mask: which of these exist ``[B, H + 1]``
    """

    total: Tensor
    reward: Tensor
    value: Tensor
    consistency: Tensor
    termination: Tensor
    td_error: Tensor
    latents: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Returns:
    """
    What is known of the return of each step of a window; the rest is a value.

    :param rewards: discounted sum of the rewards that follow ``[B, H]``
    :param weight: of the value where they end, 0 after a termination ``[B, H]``
    :param last: the step whose next state that is ``[B, H]``
    """

    rewards: Tensor
    weight: Tensor
    last: Tensor


def n_step_returns(rewards: Tensor, terminated: Tensor, mask: Tensor, *, n_steps: int, discount: float) -> Returns:
    """
    :param rewards: ``[B, H]``
    :param terminated: 1 where no future follows ``[B, H]``; a time limit is not a termination
    :param mask: 1 for real steps, 0 for the padding behind them ``[B, H]``
    :param n_steps: rewards in each sum, fewer where the window ends
    :param discount: in (0, 1]
    :return: the parts of the targets of the values
    """
    weight = discount * (1.0 - terminated)
    last = torch.arange(rewards.shape[1], device=rewards.device).expand(rewards.shape)
    total = rewards
    if n_steps > 1:
        total, ahead, last = rewards.clone(), weight, last.clone()
        weight = weight.clone()
        for k in range(1, min(n_steps, rewards.shape[1])):
            real = mask[:, k:]
            total[:, :-k] += real * weight[:, :-k] * rewards[:, k:]
            weight[:, :-k] = torch.where(real > 0, weight[:, :-k] * ahead[:, k:], weight[:, :-k])
            last[:, :-k] += real.long()
    return Returns(total, weight, last)


def target_value(values: Tensor, *, clipped_double_q: bool) -> Tensor:
    """Values of several critics ``[E, B]`` -> what targets take of them ``[B]``: the least, or the mean."""
    return values.amin(dim=0) if clipped_double_q else values.mean(dim=0)


@torch.no_grad()
def td_target(
    model: LatentModel,
    target_critic: EnsembleCritic,
    next_z: Tensor,
    returns: Returns,
    *,
    noise: Tensor,
    clipped_double_q: bool = True,
) -> Tensor:
    """
    Targets sum_k discount^k r_k + weight min_k Q_target,k(z', pi(z') + noise).

    :param model: holds the policy prior
    :param target_critic: slowly moving values
    :param next_z: encoded next observations ``[B, H, Z]``
    :param returns: what is known of the returns
    :param noise: smoothing noise ``[B, H, A]``
    :param clipped_double_q: whether it is the least of the values, else their mean
    :return: targets ``[B, H]``, without a graph
    """
    action = (model.pi(next_z) + noise).clamp(-1.0, 1.0)
    values = target_critic(next_z.flatten(0, 1), action.flatten(0, 1))
    value = target_value(values, clipped_double_q=clipped_double_q).view_as(returns.rewards)
    return returns.rewards + returns.weight * value.gather(1, returns.last)


def model_loss(
    model: LatentModel,
    z0: Tensor,
    actions: Tensor,
    next_z_target: Tensor,
    rewards: Tensor,
    values: Tensor,
    terminated: Tensor,
    mask: Tensor,
    next_valid: Tensor,
    weights: Tensor,
    coefficients: LossCoefficients,
) -> ModelLoss:
    """
    TD-MPC's loss over a window (DiffTORI, Eq. 3), averaged over its steps.

    :param model: latent dynamics, reward, values, termination
    :param z0: encoded first observations ``[B, Z]``
    :param actions: ``[B, H, A]``
    :param next_z_target: next observations encoded by the slow encoder ``[B, H, Z]``
    :param rewards: ``[B, H]``
    :param values: targets of the values, see :func:`td_target`, ``[B, H]``
    :param terminated: ``[B, H]``
    :param mask: 1 for real steps, 0 for padding ``[B, H]``
    :param next_valid: 1 where ``next_z_target`` is real ``[B, H]``
    :param weights: importance-sampling weights ``[B]``
    :param coefficients: weights of the terms
    :return: the terms; ``total`` is differentiable in the model's parameters and ``z0``
    """
    batch, horizon = rewards.shape
    z, latents = z0, [z0]
    for t in range(horizon):
        z = model.dynamics(torch.cat([z, actions[:, t]], dim=-1))
        latents.append(z)
    path = torch.stack(latents, dim=1)  # [B, H + 1, Z]

    # Everything but the recursion is one stacked pass over B * H rows.
    z_in, a_in = path[:, :-1].flatten(0, 1), actions.flatten(0, 1)
    predicted_reward = model.reward(torch.cat([z_in, a_in], dim=-1)).view(batch, horizon)
    predicted_values = model.Q(z_in, a_in).view(-1, batch, horizon)  # [n_critics, B, H]

    step_weight = coefficients.rho ** torch.arange(horizon, dtype=z0.dtype, device=z0.device)  # [H]
    real = step_weight * mask
    reward_term = (real * (predicted_reward - rewards).square()).sum(1)
    value_term = (real * (predicted_values - values).square().sum(0)).sum(1)
    consistency_term = (step_weight * next_valid * (path[:, 1:] - next_z_target).square().mean(-1)).sum(1)
    total = (
        coefficients.reward * reward_term
        + coefficients.value * value_term
        + coefficients.consistency * consistency_term
    )
    termination_term = torch.zeros_like(reward_term)
    if model.episodic and coefficients.termination > 0:
        entropy = termination_loss(model, path[:, 1:].flatten(0, 1), terminated.flatten()).view(batch, horizon)
        termination_term = (real * entropy).sum(1)
        total = total + coefficients.termination * termination_term

    td_error = (real * (predicted_values - values).abs().mean(0)).sum(1).detach()
    # The bound and the division by H are TD-MPC's: one wild window must not undo the others.
    loss = (total.clamp(max=1e4) * weights).mean() / horizon
    return ModelLoss(
        loss,
        reward_term.mean().detach(),
        value_term.mean().detach(),
        consistency_term.mean().detach(),
        termination_term.mean().detach(),
        td_error,
        path.detach(),
        torch.cat([mask[:, :1], mask], dim=1),
    )


def prior_loss(
    model: LatentModel, latents: Tensor, mask: Tensor, weights: Tensor, *, rho: float, noise: Tensor
) -> Tensor:
    """
    Loss ``[]`` of the policy prior: minus the value of its actions along an imagined, detached rollout.

    :param model: prior and values; take gradients of the prior's parameters only
    :param latents: z_0 .. z_H ``[B, H + 1, Z]``, detached, of which those in ``mask`` ``[B, H + 1]`` exist
    :param weights: importance-sampling weights ``[B]``
    :param rho: each further step counts this much less
    :param noise: smoothing noise ``[B, H + 1, A]``
    """
    batch, steps, _ = latents.shape
    z = latents.flatten(0, 1)
    action = (model.pi(z) + noise.flatten(0, 1)).clamp(-1.0, 1.0)
    value = model.Q(z, action).amin(dim=0).view(batch, steps)
    step_weight = rho ** torch.arange(steps, dtype=z.dtype, device=z.device)
    return -((step_weight * mask * value).sum(1) * weights).mean()


def raw_critic_loss(predicted: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """
    Bellman loss ``[]`` of Q-tilde, the value on raw observations that judges the optimiser's actions.

    :param predicted: Q-tilde(s, a) ``[n_critics, B]``
    :param target: rewards, and min_k Q-tilde_target,k(s', pi(h(s'))) behind them ``[B]``, without a graph
    :param weights: importance-sampling weights ``[B]``
    """
    return (F.mse_loss(predicted, target.expand_as(predicted), reduction="none").sum(0) * weights).mean()


def policy_gradient_loss(value_of: Callable[[Tensor], Tensor], actions: Tensor) -> Tensor:
    """
    L_PG of DiffTORI (Eq. 6): minus Q-tilde of the first planned action.

    :param value_of: first actions ``[B, A]`` -> Q-tilde ``[n_critics, B]``
    :param actions: planned actions ``[B, H, A]``, differentiable through the optimiser
    :return: loss ``[]``
    """
    return -value_of(actions[:, 0]).amin(dim=0).mean()
