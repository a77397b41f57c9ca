"""The network of DiffTORI's imitation: a conditional variational autoencoder whose decoder is an optimiser."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from difftori_gym.il.losses import VariationalLoss, sample_gaussian, variational_loss
from difftori_gym.il.networks import ChunkNetwork, ObservationEncoder, TrainingBatch
from difftori_gym.models import ChunkObjective, ChunkScore, GaussianPosterior, LatentScore, LatentScoreObjective
from difftori_gym.observations import TensorObs
from difftori_gym.trajopt import Solution, TrajectoryOptimizer

ObjectiveName = Literal["chunk", "latent"]
Init = Literal["base_policy", "zero", "random"]


class DiffTORINetwork(ChunkNetwork):
    """
    Posterior q(latent | observations, actions), learned objective f(observations, latent, actions), optimiser.

    The settings are those of :class:`~difftori_gym.il.difftori.DiffTORIImitation`. Activations are best smooth, because
    the solver differentiates twice. With ``latent_dim=0`` the method is a deterministic function of the observations.
    """

    def __init__(
        self,
        encoder: ObservationEncoder,
        horizon: int,
        action_dim: int,
        *,
        objective: ObjectiveName = "chunk",
        trajectory_optimizer: TrajectoryOptimizer = TrajectoryOptimizer(solver="lm"),
        init: Init = "zero",
        latent_dim: int = 64,
        num_latents: int = 1,
        net_arch: Sequence[int] = (256, 256),
        activation_fn: type[nn.Module] = nn.ELU,
        discount: float = 0.99,
        start_noise: float = 0.0,
        action_coef: float = 3000.0,
        kl_coef: float = 10.0,
    ) -> None:
        super().__init__(encoder, horizon, action_dim)
        self.trajectory_optimizer, self.init, self.start_noise = trajectory_optimizer, init, start_noise
        self.latent_dim, self.num_latents = latent_dim, num_latents if latent_dim else 1
        self.action_coef, self.kl_coef = action_coef, kl_coef
        condition_dim = self.condition_dim + latent_dim
        self.posterior = None
        if latent_dim:
            self.posterior = GaussianPosterior(
                self.condition_dim, horizon * action_dim, latent_dim, net_arch, activation_fn
            )
        self.score: ChunkScore | LatentScore
        if objective == "chunk":
            self.score = ChunkScore(condition_dim, horizon, action_dim, net_arch, activation_fn)
        else:
            self.score = LatentScore(
                condition_dim, action_dim, hidden_dims=net_arch, activation_fn=activation_fn, discount=discount
            )

    @property
    def noise_dim(self) -> int:  # type: ignore[override]
        """The latents, then a start if it is random."""
        return self.num_latents * self.latent_dim + (self.horizon * self.action_dim if self.init == "random" else 0)

    def fixed_noise(self) -> Tensor:
        """Zero, the mode of the prior, as the first latent; fixed draws for the rest."""
        noise = super().fixed_noise()
        noise[: self.latent_dim] = 0.0
        return noise

    def objective(self, features: Tensor, latents: Tensor) -> ChunkObjective | LatentScoreObjective:
        """What is maximised, ``[B, H, A]`` -> ``[B]``, in view of features ``[B, F]`` and latents ``[B, Z]``."""
        condition = torch.cat([features, latents], dim=-1)
        if isinstance(self.score, ChunkScore):
            return ChunkObjective(self.score, condition)
        return LatentScoreObjective(self.score, condition)

    def solve(
        self,
        features: Tensor,
        latents: Tensor,
        start: Tensor,
        *,
        differentiate: bool,
        generator: torch.Generator | None = None,
    ) -> Solution:
        """The solution from a start ``[B, H, A]``; with a graph, as the backward mode says, if ``differentiate``."""
        optimizer = self.trajectory_optimizer
        if not differentiate:
            optimizer = optimizer.replace(backward_mode="none")
        return optimizer(self.objective(features, latents), start, generator=generator)

    def loss(self, batch: TrainingBatch) -> VariationalLoss:
        """Squared error of the optimiser's actions and divergence of the posterior."""
        features = self.encoder(batch.observations).flatten(1)
        if self.posterior is None:
            mean = log_variance = features.new_zeros(len(features), 0)
        else:
            mean, log_variance = self.posterior(features, batch.actions)
        start = self._start(batch.actions, batch.base_actions, None)
        if self.start_noise:
            start = (start + self.start_noise * torch.randn_like(start)).clamp(-1.0, 1.0)
        solution = self.solve(features, sample_gaussian(mean, log_variance), start, differentiate=True)
        return variational_loss(
            solution.actions,
            batch.actions,
            mean,
            log_variance,
            solution.num_failed,
            action_coef=self.action_coef,
            kl_coef=self.kl_coef,
        )

    def chunk(self, observations: TensorObs, noise: Tensor, start: Tensor | None, deterministic: bool) -> Tensor:
        """Of ``num_latents`` plans the one with the best objective."""
        features = self.encoder(observations).flatten(1)
        batch, n = len(features), self.num_latents
        latents = noise[:, : n * self.latent_dim].reshape(batch * n, self.latent_dim)
        drawn = noise[:, n * self.latent_dim :].view(batch, -1, self.action_dim) if self.init == "random" else None
        begin = self._start(features.new_empty(batch, self.horizon, self.action_dim), start, drawn)
        solution = self.solve(
            features.repeat_interleave(n, dim=0),
            latents,
            begin.repeat_interleave(n, dim=0),
            differentiate=False,
            generator=torch.Generator(features.device).manual_seed(0) if deterministic else None,
        )
        if n == 1:
            return solution.best_actions
        values = solution.values.view(batch, n)
        best = values.masked_fill(~torch.isfinite(values), -torch.inf).argmax(dim=1)
        return solution.best_actions.view(batch, n, self.horizon, self.action_dim)[torch.arange(batch), best]

    def _start(self, like: Tensor, base_actions: Tensor | None, noise: Tensor | None) -> Tensor:
        """Start ``[B, H, A]``; ``noise`` is standard normal and is made uniform for ``init="random"``."""
        if self.init == "base_policy":
            assert base_actions is not None
            return base_actions
        if self.init == "zero":
            return torch.zeros_like(like)
        return torch.erf((torch.randn_like(like) if noise is None else noise) / 2**0.5)
