"""One update of DiffTORI's networks from a batch of windows."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from stable_baselines3.common.utils import polyak_update
from torch import Tensor, nn

from difftori_gym.learning.running_means import RunningMeans
from difftori_gym.models import LatentModel
from difftori_gym.observations import TensorObs, map_obs
from difftori_gym.rl.demonstrated_batch import DemonstratedBatch, cloning_loss
from difftori_gym.rl.images import augmented
from difftori_gym.rl.losses import (
    LossCoefficients,
    ModelLoss,
    Returns,
    model_loss,
    n_step_returns,
    policy_gradient_loss,
    prior_loss,
    raw_critic_loss,
    target_value,
    td_target,
)
from difftori_gym.rl.policies import DiffTORIPolicy
from difftori_gym.rl.sequence_buffer import SequenceBatch, flatten_time
from difftori_gym.trajopt import Solution


@dataclass(frozen=True)
class UpdateSettings:
    """
    Those not named here are arguments of :class:`~difftori_gym.rl.difftori.DiffTORI`.

    :param coefficients: weights of the model loss
    :param discount: per-step discount
    :param noise_std: smoothing noise on the prior's actions in targets
    :param clone_coef: weight of cloning demonstrations in the prior's loss, where a batch has some
    :param value_share: of the values in the prior's loss, where a batch has demonstrations
    :param pretrains: the prior clones only, and there is no policy-gradient loss
    :raises ValueError: for a setting outside its range
    """

    coefficients: LossCoefficients = LossCoefficients()
    discount: float = 0.99
    n_steps: int = 1
    reward_scale: float = 1.0
    noise_std: float = 0.05
    tau: float = 0.01
    policy_delay: int = 1
    target_update_interval: int = 2
    clipped_double_q: bool = True
    max_grad_norm: float = 10.0
    pg_coef: float = 1.0
    pg_freq: int = 5
    pg_batch_size: int = 64
    pg_max_grad_ratio: float | None = 0.1
    imitation_coef: float = 0.0
    clone_coef: float = 4.0
    value_share: float = 1.0
    pretrains: bool = False

    def __post_init__(self) -> None:
        for name in ("policy_delay", "target_update_interval", "pg_freq", "pg_batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} needs to be at least 1, got {getattr(self, name)!r}.")
        if not 0 < self.reward_scale < math.inf:
            raise ValueError(f"reward_scale needs to be positive and finite, got {self.reward_scale!r}.")
        for name in ("pg_coef", "imitation_coef", "noise_std"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} needs to be at least 0, got {getattr(self, name)!r}.")


@dataclass(frozen=True)
class Planned:
    """
    :param observations: preprocessed, so many as the policy-gradient loss takes
    :param z: their latent states ``[B, Z]``
    :param solution: the plans
    """

    observations: TensorObs
    z: Tensor
    solution: Solution


class Updater:
    """Applies the losses of :mod:`difftori_gym.rl.losses` to a policy, and keeps the means of what there is to log."""

    def __init__(self, policy: DiffTORIPolicy, settings: UpdateSettings) -> None:
        self.policy = policy
        self.settings = settings
        self._parameters = policy.model_parameters()
        self._prior_parameters = list(policy.model.actor.parameters())
        self._raw_critic_parameters = list(policy.raw_critic.parameters())
        self.means = RunningMeans()

    def update(self, batch: SequenceBatch, n_updates: int) -> Tensor:
        """
        One step of every optimizer.

        :param batch: windows from the replay buffer
        :param n_updates: number of this update, from 1
        :return: new priorities of the windows ``[B]``
        """
        policy, settings = self.policy, self.settings
        batch = augmented(batch, policy.observation_space, policy.image_shift)
        batch = replace(batch, rewards=settings.reward_scale * batch.rewards)
        observations = policy.preprocess(batch.observations, count=True)
        next_observations = policy.preprocess(flatten_time(batch.next_observations))
        with torch.no_grad():
            encoder = policy.encoder_target if policy.slow_targets else policy.encoder
            next_z = encoder(next_observations).unflatten(0, batch.rewards.shape)  # [B, H, Z]

        returns = n_step_returns(
            batch.rewards, batch.terminated, batch.mask, n_steps=settings.n_steps, discount=settings.discount
        )
        loss = self._model_loss(batch, observations, next_observations, next_z, returns)
        gradients = _gradients(loss.total, self._parameters)
        norm = _clip(gradients, settings.max_grad_norm)
        self.means.add("model_grad_norm", norm)
        plans, moves_prior, moves_targets = self.kind(n_updates)
        planned = self._plan(observations) if plans else None
        if planned is not None and settings.pg_coef > 0:
            self._add_policy_gradient(gradients, norm, planned)
        _step(policy.optimizer, self._parameters, gradients)

        if moves_prior:
            noise = self._noise(loss.latents.shape[:2])
            prior = prior_loss(
                policy.model, loss.latents, loss.mask, batch.weights, rho=settings.coefficients.rho, noise=noise
            )
            if planned is not None and settings.imitation_coef > 0:
                prior = self._with_imitation(prior, planned)
            if isinstance(batch, DemonstratedBatch):
                prior = with_cloning(policy.model, prior, loss, batch, settings, self.means)
            self._descend("pi", prior, policy.pi_optimizer, self._prior_parameters)
        if settings.pg_coef > 0:
            self._update_raw_critic(batch, observations, next_z, returns)
        if moves_targets:
            self._update_targets()
        return loss.td_error

    def kind(self, n_updates: int) -> tuple[bool, bool, bool]:
        """
        All that an update does differently because of its number.

        :param n_updates: number of an update, from 1
        :return: whether it plans, moves the prior, moves the averages
        """
        settings = self.settings
        due = [settings.pg_freq, settings.policy_delay, settings.target_update_interval]
        plans, moves_prior, moves_targets = (n_updates % every == 0 for every in due)
        plans = plans and not settings.pretrains and settings.pg_coef + settings.imitation_coef > 0
        return plans, moves_prior or (plans and settings.imitation_coef > 0), moves_targets

    def _model_loss(
        self,
        batch: SequenceBatch,
        observations: TensorObs,
        next_observations: TensorObs,
        next_z: Tensor,
        returns: Returns,
    ) -> ModelLoss:
        policy, settings = self.policy, self.settings
        with torch.no_grad():
            next_z_target = next_z if policy.slow_targets else policy.encoder_target(next_observations).view_as(next_z)
        values = td_target(
            policy.model,
            policy.critic_target,
            next_z,
            returns,
            noise=self._noise(batch.rewards.shape),
            clipped_double_q=settings.clipped_double_q,
        )
        z0 = policy.encoder(observations)
        loss = model_loss(
            policy.model,
            z0,
            batch.actions,
            next_z_target,
            batch.rewards,
            values,
            batch.terminated,
            batch.mask,
            batch.next_valid,
            batch.weights,
            settings.coefficients,
        )
        for name in ("reward", "value", "consistency", "termination"):
            self.means.add(f"{name}_loss", getattr(loss, name))
        self.means.add("value_target", values.mean())
        return with_encoder_cloning(policy.model, loss, z0, batch)

    def _plan(self, observations: TensorObs) -> Planned:
        policy, settings = self.policy, self.settings
        first = map_obs(lambda value: value[: settings.pg_batch_size], observations)
        planner = policy.planner if settings.pg_coef > 0 else policy.planner.for_acting()
        z = policy.encoder(first)
        return Planned(first, z, planner.plan(policy.model, z, policy.horizon))

    def _add_policy_gradient(self, gradients: list[Tensor], norm: Tensor, planned: Planned) -> None:
        """Add the gradient of the policy-gradient loss, clipped relative to ``norm``, to ``gradients`` in place."""
        policy, settings, actions = self.policy, self.settings, planned.solution.actions
        loss = policy_gradient_loss(lambda action: policy.raw_critic(planned.observations, action), actions)
        through = _gradients(loss, self._parameters)
        ratio = settings.pg_max_grad_ratio
        pg_norm = _clip(through, None if ratio is None else ratio * norm.nan_to_num().clamp(max=settings.max_grad_norm))
        self.means.add("pg_loss", loss.detach())
        self.means.add("pg_at_wall", (actions.detach()[:, 0].abs() >= 1.0).float().mean())
        self.means.add("pg_grad_norm", pg_norm)
        self.means.add("solver_failures", planned.solution.num_failed.float())
        torch._foreach_add_(gradients, through, alpha=settings.pg_coef)

    def _with_imitation(self, prior: Tensor, planned: Planned) -> Tensor:
        """The prior's loss, and its distance to plans, weighed by the size of the values, as in TD3+BC."""
        aim = planned.solution.best_actions[:, 0].detach()
        error = (self.policy.model.pi(planned.z.detach()) - aim).square().mean()
        self.means.add("imitation_loss", error.detach())
        return prior + self.settings.imitation_coef * prior.detach().abs() * error

    def _update_raw_critic(
        self, batch: SequenceBatch, observations: TensorObs, next_z: Tensor, returns: Returns
    ) -> None:
        policy, last = self.policy, returns.last[:, 0]
        rows = torch.arange(len(last), device=last.device)
        following = policy.preprocess(map_obs(lambda value: value[rows, last], batch.next_observations))
        with torch.no_grad():
            action = (policy.model.pi(next_z[rows, last]) + self._noise(next_z.shape[:1])).clamp(-1.0, 1.0)
            values = policy.raw_critic_target(following, action)
            value = target_value(values, clipped_double_q=self.settings.clipped_double_q)
        target = returns.rewards[:, 0] + returns.weight[:, 0] * value
        loss = raw_critic_loss(policy.raw_critic(observations, batch.actions[:, 0]), target, batch.weights)
        self._descend("raw_critic", loss, policy.raw_critic_optimizer, self._raw_critic_parameters)

    def _descend(
        self, name: str, loss: Tensor, optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]
    ) -> None:
        descend(optimizer, parameters, loss, self.settings.max_grad_norm)
        self.means.add(f"{name}_loss", loss.detach())

    def _update_targets(self) -> None:
        policy, tau = self.policy, self.settings.tau
        pairs = (
            (policy.encoder, policy.encoder_target),
            (policy.model.critic, policy.critic_target),
            (policy.raw_critic, policy.raw_critic_target),
        )
        for module, target in pairs:
            polyak_update(module.parameters(), target.parameters(), tau)
            for buffer, copy in zip(module.buffers(), target.buffers(), strict=True):
                copy.copy_(buffer)  # running statistics of batch norm

    def _noise(self, shape: torch.Size) -> Tensor:
        reference = self._prior_parameters[0]
        noise = torch.randn(*shape, self.policy.model.action_dim, dtype=reference.dtype, device=reference.device)
        return (self.settings.noise_std * noise).clamp(-0.3, 0.3)  # TD-MPC's clip


def with_encoder_cloning(model: LatentModel, loss: ModelLoss, z0: Tensor, batch: SequenceBatch) -> ModelLoss:
    """
    :param loss: of the model
    :param z0: encoded first observations ``[B, Z]``, with their graph
    :param batch: windows
    :return: the loss, and what keeps in the encoder what demonstrated actions depend on, if there are any
    """
    if not isinstance(batch, DemonstratedBatch):
        return loss
    return replace(loss, total=loss.total + cloning_loss(model, z0[:, None], batch, rho=1.0))


def with_cloning(
    model: LatentModel,
    prior: Tensor,
    rollout: ModelLoss,
    batch: DemonstratedBatch,
    settings: UpdateSettings,
    means: RunningMeans,
) -> Tensor:
    """
    :param prior: loss of the policy prior by values ``[]``
    :param rollout: holds the latent states of the windows
    :param means: what is told of the updates
    :return: that loss and cloning, which is weighed by the size of the values, as in TD3+BC; in pretraining cloning
        alone
    """
    clone = cloning_loss(model, rollout.latents[:, :-1], batch, rho=settings.coefficients.rho)
    means.add("clone_loss", clone.detach())
    if settings.pretrains:
        return clone
    # 1 more, so that values near zero do not switch it off.
    return settings.value_share * prior + settings.clone_coef * (1.0 + prior.detach().abs()) * clone


def descend(
    optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], loss: Tensor, max_grad_norm: float
) -> Tensor:
    """
    One step of an optimizer down a loss ``[]``.

    :param parameters: all of the optimizer's
    :param max_grad_norm: norm that their gradient is clipped to; one that is not finite becomes zero
    :return: the norm before ``[]``
    """
    gradients = _gradients(loss, parameters)
    norm = _clip(gradients, max_grad_norm)
    _step(optimizer, parameters, gradients)
    return norm


def _gradients(loss: Tensor, parameters: list[nn.Parameter]) -> list[Tensor]:
    return list(torch.autograd.grad(loss, parameters, materialize_grads=True))


def _clip(gradients: list[Tensor], max_norm: float | Tensor | None) -> Tensor:
    """Clip in place to a joint norm; a gradient that is not finite becomes zero. Returns the norm before ``[]``."""
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    if norm.device.type != "cpu":  # not asked whether it is finite, because the answer had to be waited for
        usable = torch.isfinite(norm)
        gradients[:] = [torch.where(usable, gradient, 0.0) for gradient in gradients]
    elif not torch.isfinite(norm):
        torch._foreach_zero_(gradients)
    if max_norm is not None:
        torch._foreach_mul_(gradients, (max_norm / (norm.nan_to_num() + 1e-6)).clamp(max=1.0))
    return norm


def _step(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], gradients: list[Tensor]) -> None:
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    optimizer.step()
