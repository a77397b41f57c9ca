"""
A learned correction of a base policy's actions, DiffTORI's closest baseline: the same base policy, observations and
sizes, but a forward pass where DiffTORI optimises (Wan et al. 2024, arXiv 2402.05421; its code was not released).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from torch import Tensor, nn

from difftori_gym.baselines.bc import CloningLoss
from difftori_gym.il.demonstrations import Demonstrations
from difftori_gym.il.learner import ImitationAlgorithm
from difftori_gym.il.losses import action_loss
from difftori_gym.il.networks import ChunkNetwork, ObservationEncoder, TrainingBatch
from difftori_gym.il.policies import ImitationPolicy, aliases_of
from difftori_gym.il.schedules import CosineSchedule
from difftori_gym.models import mlp
from difftori_gym.observations import TensorObs


class ResidualNetwork(ChunkNetwork):
    """a_base + r(observations, a_base), where r starts at zero."""

    def __init__(
        self,
        encoder: ObservationEncoder,
        horizon: int,
        action_dim: int,
        *,
        net_arch: Sequence[int] = (256, 256),
        activation_fn: type[nn.Module] = nn.ELU,
    ) -> None:
        super().__init__(encoder, horizon, action_dim)
        size = horizon * action_dim
        self.correction = mlp(self.condition_dim + size, net_arch, size, activation_fn, last_gain=0.0)

    def corrected(self, observations: TensorObs, base_actions: Tensor) -> Tensor:
        """Base actions ``[B, H, A]`` in [-1, 1] -> corrected ones."""
        inputs = torch.cat([self.encoder(observations).flatten(1), base_actions.flatten(1)], dim=-1)
        return base_actions + self.correction(inputs).view_as(base_actions)

    def loss(self, batch: TrainingBatch) -> CloningLoss:
        assert batch.base_actions is not None
        error = action_loss(self.corrected(batch.observations, batch.base_actions), batch.actions)
        return CloningLoss(error, error.detach())

    def chunk(self, observations: TensorObs, noise: Tensor, start: Tensor | None, deterministic: bool) -> Tensor:
        assert start is not None
        return self.corrected(observations, start).clamp(-1.0, 1.0)


class ResidualPolicy(ImitationPolicy):
    """
    Further arguments are those of :class:`~difftori_gym.il.policies.ImitationPolicy`.

    - ``net_arch``: hidden sizes
    - ``activation_fn``: activation of the hidden layers
    """

    network_class = ResidualNetwork

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if kwargs.get("base") is None:
            raise ValueError("ResidualPolicy needs base=, the policy whose actions it corrects, got None.")
        super().__init__(*args, **kwargs)


class Residual(ImitationAlgorithm):
    """
    A base policy and a learned correction of its actions.

    Further arguments are those of :class:`~difftori_gym.il.learner.ImitationAlgorithm`; the window, sizes and
    learning rate are DiffTORI's.

    :param policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"`` or a subclass of :class:`ResidualPolicy`
    :param base_policy: any imitation learner or policy of the same environment
    """

    algorithm: ClassVar[str] = "Residual"
    needs_base_policy: ClassVar[bool] = True
    policy_aliases = aliases_of(ResidualPolicy)

    def __init__(
        self,
        policy: str | type[ImitationPolicy],
        env: GymEnv | str | None = None,
        demonstrations: Demonstrations | None = None,
        *,
        base_policy: ImitationAlgorithm | ImitationPolicy | None = None,
        learning_rate: float | Schedule = CosineSchedule(1e-4, final=1e-6),
        n_obs_steps: int = 2,
        horizon: int = 4,
        n_action_steps: int = 3,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            policy,
            env,
            demonstrations,
            base_policy=base_policy,
            learning_rate=learning_rate,
            n_obs_steps=n_obs_steps,
            horizon=horizon,
            n_action_steps=n_action_steps,
            **kwargs,
        )
