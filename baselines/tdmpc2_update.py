"""The losses of TD-MPC2 as functions of networks and data, and one update by them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from ..learning.running_means import RunningMeans
from ..rl.demonstrated_batch import DemonstratedBatch
from ..rl.images import augmented
from ..rl.losses import LossCoefficients, ModelLoss, Returns, n_step_returns, target_value
from ..rl.sequence_buffer import SequenceBatch, flatten_time
from ..rl.update import UpdateSettings, descend, with_cloning, with_encoder_cloning
from .tdmpc2_networks import TDMPC2Model, TwoHotCritic
from .tdmpc2_policies import TDMPC2Policy


@dataclass(frozen=True)
class TDMPC2Settings(UpdateSettings):
    """
    :param entropy_coef: weight of the prior's entropy, at least 0
    :raises ValueError: for a setting outside its range, or one of a policy-gradient loss
    """

    pg_coef: float = 0.0
    entropy_coef: float = 1e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pg_coef != 0:
            raise ValueError(f"TDMPC2 has no policy-gradient loss, got pg_coef={self.pg_coef!r}: use DiffTORI.")
        if not self.entropy_coef >= 0:
            raise ValueError(f"entropy_coef needs to be at least 0, got {self.entropy_coef!r}.")


def two_of(n: int) -> list[int]:
    """:return: two members of an ensemble of ``n``, drawn without replacement, or the only one"""
    return torch.randperm(n)[:2].tolist()


@torch.no_grad()
def td_target(
    model: TDMPC2Model,
    target_critic: TwoHotCritic,
    next_z: Tensor,
    returns: Returns,
    *,
    noise: Tensor,
    members: Sequence[int],
    clipped_double_q: bool = True,
) -> Tensor:
    """
    Targets sum_k discount^k r_k + weight min_i Q_target,i(z', a'), with a' drawn from the policy prior.

    :param model: holds the policy prior
    :param target_critic: slowly moving values
    :param next_z: encoded next observations ``[B, H, Z]``
    :param returns: what is known of the returns
    :param noise: standard normal, of the prior's actions ``[B, H, A]``
    :param members: values that count
    :param clipped_double_q: whether it is the least of them, else their mean
    :return: targets ``[B, H]``, without a graph
    """
    z = next_z.flatten(0, 1)
    action = model.sample(z, noise.flatten(0, 1)).action
    values = model.bins.decode(target_critic(z, action, members))
    value = target_value(values, clipped_double_q=clipped_double_q).view_as(returns.rewards)
    return returns.rewards + returns.weight * value.gather(1, returns.last)


def model_loss(
    model: TDMPC2Model,
    z0: Tensor,
    batch: SequenceBatch,
    next_z: Tensor,
    values: Tensor,
    coefficients: LossCoefficients,
) -> ModelLoss:
    """
    TD-MPC2's loss over a window (eq. 3 of the paper), averaged over its steps.

    :param model: latent dynamics, reward, values, termination
    :param z0: encoded first observations ``[B, Z]``
    :param batch: windows
    :param next_z: encoded next observations, without a graph, ``[B, H, Z]``
    :param values: targets of the values ``[B, H]``
    :param coefficients: weights of the terms
    :return: the terms, cross-entropies of reward and values among them; ``td_error`` is that of the values, per window
    """
    size, horizon = batch.rewards.shape
    z, latents = z0, [z0]
    for t in range(horizon):
        z = model.dynamics(torch.cat([z, batch.actions[:, t]], dim=-1))
        latents.append(z)
    path = torch.stack(latents, dim=1)  # [B, H + 1, Z]

    # Everything but the recursion is one stacked pass over B * H rows.
    z_in, a_in = path[:, :-1].flatten(0, 1), batch.actions.flatten(0, 1)
    reward_logits = model.reward(torch.cat([z_in, a_in], dim=-1))
    reward_error = model.bins.cross_entropy(reward_logits, batch.rewards.flatten()).view(size, horizon)
    value_logits = model.critic(z_in, a_in)  # [n_critics, B * H, K]
    value_error = model.bins.cross_entropy(value_logits, values.flatten()).mean(dim=0).view(size, horizon)
    consistency_error = F.mse_loss(path[:, 1:], next_z, reduction="none").mean(dim=-1)

    step_weight = coefficients.rho ** torch.arange(horizon, dtype=z0.dtype, device=z0.device) / horizon  # [H]
    real = step_weight * batch.mask
    reward_term = (real * reward_error).sum(dim=1)
    value_term = (real * value_error).sum(dim=1)
    consistency_term = (step_weight * batch.next_valid * consistency_error).sum(dim=1)
    total = (
        coefficients.reward * reward_term
        + coefficients.value * value_term
        + coefficients.consistency * consistency_term
    )
    termination_term = torch.zeros_like(reward_term)
    if model.episodic and coefficients.termination > 0:
        logits = model.termination(path[:, 1:].flatten(0, 1)).view(size, horizon)
        entropy = F.binary_cross_entropy_with_logits(logits, batch.terminated, reduction="none")
        termination_term = (batch.mask * entropy).sum(dim=1) / horizon  # later steps count as much
        total = total + coefficients.termination * termination_term
    return ModelLoss(
        (total * batch.weights).mean(),
        reward_term.mean().detach(),
        value_term.mean().detach(),
        consistency_term.mean().detach(),
        termination_term.mean().detach(),
        value_term.detach(),
        path.detach(),
        torch.cat([batch.mask[:, :1], batch.mask], dim=1),
    )


def prior_loss(
    values: Tensor,
    entropy: Tensor,
    mask: Tensor,
    weights: Tensor,
    *,
    scale: Tensor,
    entropy_coef: float,
    action_dim: int,
    rho: float,
) -> Tensor:
    """
    Loss ``[]`` of the policy prior (eq. 4): minus the scaled value and the entropy of its actions along a rollout.

    :param values: of its actions in z_0 .. z_H ``[B, H + 1]``, of which those in ``mask`` exist
    :param entropy: of the prior there ``[B, H + 1]``
    :param weights: importance-sampling weights ``[B]``
    :param scale: what values are divided by ``[1]``
    :param entropy_coef: weight of the entropy, which counts once per dimension of the action, as in the released code
    :param action_dim: A
    :param rho: each further step counts this much less
    """
    steps = mask.shape[1]
    gain = values / scale + entropy_coef * action_dim * entropy
    step_weight = rho ** torch.arange(steps, dtype=values.dtype, device=values.device) / steps
    return -((step_weight * mask * gain).sum(dim=1) * weights).mean()


class TDMPC2Updater:
    """Applies these losses to a policy, and keeps the means of what there is to log."""

    def __init__(self, policy: TDMPC2Policy, settings: TDMPC2Settings) -> None:
        self.policy, self.settings = policy, settings
        self._parameters = policy.model_parameters()
        self._prior_parameters = list(policy.model.actor.parameters())
        self.means = RunningMeans()

    def update(self, batch: SequenceBatch, n_updates: int) -> Tensor:
        """
        One step of both optimizers.

        :param batch: windows from the replay buffer
        :param n_updates: number of this update, from 1
        :return: new priorities of the windows ``[B]``
        """
        policy, settings = self.policy, self.settings
        batch = augmented(batch, policy.observation_space, policy.image_shift)
        batch = replace(batch, rewards=settings.reward_scale * batch.rewards)
        observations = policy.preprocess(batch.observations, count=True)
        with torch.no_grad():
            following = policy.encoder(policy.preprocess(flatten_time(batch.next_observations)))
        next_z = following.unflatten(0, batch.rewards.shape)  # [B, H, Z]
        returns = n_step_returns(
            batch.rewards, batch.terminated, batch.mask, n_steps=settings.n_steps, discount=settings.discount
        )
        values = td_target(
            policy.model,
            policy.critic_target,
            next_z,
            returns,
            noise=self._noise(batch.rewards.shape),
            members=two_of(policy.n_critics),
            clipped_double_q=settings.clipped_double_q,
        )
        z0 = policy.encoder(observations)
        loss = model_loss(policy.model, z0, batch, next_z, values, settings.coefficients)
        loss = with_encoder_cloning(policy.model, loss, z0, batch)
        norm = descend(policy.optimizer, self._parameters, loss.total, settings.max_grad_norm)
        for name in ("reward", "value", "consistency", "termination"):
            self.means.add(f"{name}_loss", getattr(loss, name))
        self.means.add("value_target", values.mean())
        self.means.add("model_grad_norm", norm)
        if n_updates % settings.policy_delay == 0:
            self._update_prior(loss, batch)
        if n_updates % settings.target_update_interval == 0:
            self._update_targets()
        return loss.td_error

    def _update_prior(self, rollout: ModelLoss, batch: SequenceBatch) -> None:
        policy, settings = self.policy, self.settings
        model, shape = policy.model, rollout.mask.shape
        z = rollout.latents.flatten(0, 1)
        drawn = model.sample(z, self._noise(shape).flatten(0, 1))
        values = model.Q(z, drawn.action, two_of(policy.n_critics)).mean(dim=0).view(shape)
        policy.value_scale.update(values[:, 0].detach(), settings.tau)
        loss = prior_loss(
            values,
            drawn.entropy.view(shape),
            rollout.mask,
            batch.weights,
            scale=policy.value_scale.value,
            entropy_coef=settings.entropy_coef,
            action_dim=model.action_dim,
            rho=settings.coefficients.rho,
        )
        if isinstance(batch, DemonstratedBatch):
            loss = with_cloning(model, loss, rollout, batch, settings, self.means)
        descend(policy.pi_optimizer, self._prior_parameters, loss, settings.max_grad_norm)
        self.means.add("pi_loss", loss.detach())
        self.means.add("pi_entropy", drawn.entropy.detach().mean())
        self.means.add("value_scale", policy.value_scale.value[0].clone())

    @torch.no_grad()
    def _update_targets(self) -> None:
        targets, learned = list(self.policy.critic_target.parameters()), list(self.policy.model.critic.parameters())
        torch._foreach_lerp_(targets, learned, self.settings.tau)

    def _noise(self, shape: torch.Size) -> Tensor:
        reference = self._prior_parameters[0]
        size = (*shape, self.policy.model.action_dim)
        return torch.randn(size, dtype=reference.dtype, device=reference.device)
