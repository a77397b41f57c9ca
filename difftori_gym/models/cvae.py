"""
Networks of DiffTORI's imitation learning: the posterior of a conditional variational autoencoder, and the scores whose
maximisation is its decoder.

Source: DiffTORI (arXiv 2402.05421), section 4.3, and its released MetaWorld code.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from difftori_gym.models.mlp import mlp

FIRST_SCORE_GAIN = 0.1
"""Size of a score's last layer at the start: a plan then stays near its start, and the solver still has a gradient."""


class GaussianPosterior(nn.Module):
    """
    q(latent | features, actions), a Gaussian with diagonal covariance; the prior is N(0, I).

    :param features_dim: size F of the encoded observations
    :param actions_dim: H * A
    :param latent_dim: Z
    """

    def __init__(
        self,
        features_dim: int,
        actions_dim: int,
        latent_dim: int,
        hidden_dims: Sequence[int] = (256, 256),
        activation_fn: type[nn.Module] = nn.ELU,
    ) -> None:
        super().__init__()
        self.network = mlp(features_dim + actions_dim, hidden_dims, 2 * latent_dim, activation_fn)

    def forward(self, features: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Features ``[B, F]``, actions ``[B, H, A]`` in [-1, 1] -> mean and logarithm of the variance ``[B, Z]``."""
        mean, log_variance = self.network(torch.cat([features, actions.flatten(1)], dim=-1)).chunk(2, dim=-1)
        return mean, log_variance


class ChunkScore(nn.Module):
    """
    One network that scores a whole action sequence, as in the released code.

    :param condition_dim: size C of what an action sequence is scored in view of, features and latent
    :param horizon: H
    :param action_dim: A
    """

    def __init__(
        self,
        condition_dim: int,
        horizon: int,
        action_dim: int,
        hidden_dims: Sequence[int] = (256, 256),
        activation_fn: type[nn.Module] = nn.ELU,
    ) -> None:
        super().__init__()
        self.condition_dim, self.horizon, self.action_dim = condition_dim, horizon, action_dim
        self.network = mlp(condition_dim + horizon * action_dim, hidden_dims, 1, activation_fn, FIRST_SCORE_GAIN)

    def forward(self, condition: Tensor, actions: Tensor) -> Tensor:
        """Condition ``[B, C]`` and actions ``[B, H, A]`` in [-1, 1] -> scores ``[B]``."""
        return self.network(torch.cat([condition, actions.flatten(1)], dim=-1)).squeeze(-1)


class LatentScore(nn.Module):
    """
    A score per step under learned latent dynamics, as in the paper.

    sum_{l<H} discount^l f(z_l, a_l), with z_0 = e(condition) and z_{l+1} = d(z_l, a_l)

    The dynamics have no loss of their own: they learn from the action loss through the optimiser, like the score.

    :param condition_dim: size C of features and latent
    :param action_dim: A
    :param state_dim: size of the latent state z
    :param hidden_dims: hidden sizes of score and dynamics; the encoder e takes the first
    :param discount: per-step discount, in (0, 1]
    """

    def __init__(
        self,
        condition_dim: int,
        action_dim: int,
        state_dim: int = 50,
        hidden_dims: Sequence[int] = (256, 256),
        activation_fn: type[nn.Module] = nn.ELU,
        discount: float = 0.99,
    ) -> None:
        super().__init__()
        self.condition_dim, self.action_dim, self.discount = condition_dim, action_dim, discount
        self.encoder = mlp(condition_dim, hidden_dims[:1], state_dim, activation_fn)
        self.dynamics = mlp(state_dim + action_dim, hidden_dims, state_dim, activation_fn)
        self.score = mlp(state_dim + action_dim, hidden_dims, 1, activation_fn, FIRST_SCORE_GAIN)

    def forward(self, condition: Tensor, actions: Tensor) -> Tensor:
        """Condition ``[B, C]`` and actions ``[B, H, A]`` in [-1, 1] -> discounted sums of scores ``[B]``."""
        return self.scores_from(self.encoder(condition), actions)

    def scores_from(self, z: Tensor, actions: Tensor) -> Tensor:
        """First latent states ``[B, Z]`` and actions ``[B, H, A]`` in [-1, 1] -> discounted sums of scores ``[B]``."""
        inputs = []
        for t in range(actions.shape[1]):
            inputs.append(torch.cat([z, actions[:, t]], dim=-1))
            if t + 1 < actions.shape[1]:
                z = self.dynamics(inputs[-1])
        scores = self.score(torch.stack(inputs, dim=1)).squeeze(-1)  # [B, H]
        weights = self.discount ** torch.arange(scores.shape[1], dtype=scores.dtype, device=scores.device)
        return torch.mv(scores, weights)
