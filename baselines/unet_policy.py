"""
What Diffusion Policy, flow matching and MIP share: the U-Net of Diffusion Policy over a chunk of actions, its sizes,
its optimiser, and the window that the chunk is cut from.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Literal

import torch
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from torch import Tensor

from difftori_gym.il.demonstrations import Demonstrations
from difftori_gym.il.learner import ImitationAlgorithm
from difftori_gym.il.losses import ImitationLoss
from difftori_gym.il.networks import ChunkNetwork, ObservationEncoder, TrainingBatch
from difftori_gym.il.policies import ImitationPolicy
from difftori_gym.il.schedules import CosineSchedule
from difftori_gym.models import ConditionalUnet1D
from difftori_gym.observations import TensorObs

Size = Literal["diffusion_policy", "dp3", "simple_dp3", "small"]
SIZES: dict[str, tuple[tuple[int, ...], int]] = {
    "diffusion_policy": ((256, 512, 1024), 256),
    "dp3": ((512, 1024, 2048), 128),
    "simple_dp3": ((128, 256, 384), 128),
    "small": ((32, 64), 32),
}
"""Channels of the levels and size of the step's embedding; the last is ours, for CPUs."""

#: Times in [0, 1] are multiplied by this: the embedding is made for the 100 steps of Diffusion Policy.
TIME_SCALE = 100.0


class UnetNetwork(ChunkNetwork):
    """A U-Net over noisy actions. A method says what it regresses (:meth:`error`) and how it :meth:`generate`\\ s."""

    #: Name of the method, in errors.
    method: ClassVar[str]

    def __init__(self, encoder: ObservationEncoder, horizon: int, action_dim: int, size: Size) -> None:
        if size not in SIZES:
            raise ValueError(f"{self.method} needs size to be one of {', '.join(SIZES)}, got {size!r}.")
        super().__init__(encoder, horizon, action_dim)
        self.unet = ConditionalUnet1D(action_dim, self.condition_dim, *SIZES[size])
        # The time axis is halved again and again; what is missing at its end is filled up with the last action.
        self.length = -(-horizon // self.unet.time_multiple) * self.unet.time_multiple

    @property
    def noise_dim(self) -> int:  # type: ignore[override]
        """What an answer starts from."""
        return self.length * self.action_dim

    @abstractmethod
    def error(self, actions: Tensor, condition: Tensor) -> Tensor:
        """The loss ``[]`` for demonstrated actions ``[B, length, A]`` and conditions ``[B, condition_dim]``."""

    @abstractmethod
    def generate(self, noise: Tensor, condition: Tensor) -> Tensor:
        """Actions ``[B, length, A]`` from noise ``[B, noise_dim]`` and conditions ``[B, condition_dim]``."""

    def at(self, time: float | Tensor, actions: Tensor, condition: Tensor) -> Tensor:
        """The U-Net's answer ``[B, length, A]`` to actions at a time in [0, 1], or at times ``[B]``."""
        times = torch.as_tensor(time, dtype=actions.dtype, device=actions.device).expand(len(actions))
        return self.unet(actions, TIME_SCALE * times, condition)

    def loss(self, batch: TrainingBatch) -> ImitationLoss:
        condition = self.encoder(batch.observations).flatten(1)
        missing = self.length - self.horizon
        actions = torch.cat([batch.actions, batch.actions[:, -1:].expand(-1, missing, -1)], dim=1)
        return ImitationLoss(self.error(actions, condition))

    def chunk(self, observations: TensorObs, noise: Tensor, start: Tensor | None, deterministic: bool) -> Tensor:
        condition = self.encoder(observations).flatten(1)
        return self.generate(noise, condition)[:, : self.horizon]


class UnetPolicy(ImitationPolicy):
    """A policy with a U-Net, and Diffusion Policy's optimiser."""

    def __init__(
        self,
        *args: Any,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.AdamW,
        optimizer_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if optimizer_kwargs is None and optimizer_class is torch.optim.AdamW:
            optimizer_kwargs = dict(betas=(0.95, 0.999), eps=1e-8, weight_decay=1e-6)
        super().__init__(*args, optimizer_class=optimizer_class, optimizer_kwargs=optimizer_kwargs, **kwargs)


class UnetImitation(ImitationAlgorithm):
    """
    A learner with a U-Net.

    Further arguments are those of :class:`~difftori_gym.il.learner.ImitationAlgorithm`.

    :param policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"`` or a subclass of its policy
    :param horizon: planned actions; the published 16 counts one action before the last observation, ours do not
    :param size: ``"diffusion_policy"``, ``"dp3"``, ``"simple_dp3"`` or ``"small"``
    """

    policy_settings = (*ImitationAlgorithm.policy_settings, "size")

    def __init__(
        self,
        policy: str | type[ImitationPolicy],
        env: GymEnv | str | None = None,
        demonstrations: Demonstrations | None = None,
        *,
        learning_rate: float | Schedule = CosineSchedule(1e-4, warmup=0.05),
        batch_size: int = 256,
        n_obs_steps: int = 2,
        horizon: int = 16,
        n_action_steps: int = 8,
        ema_decay: float | None = 0.9999,
        size: Size = "diffusion_policy",
        **kwargs: Any,
    ) -> None:
        self.size = size
        super().__init__(
            policy,
            env,
            demonstrations,
            learning_rate=learning_rate,
            batch_size=batch_size,
            n_obs_steps=n_obs_steps,
            horizon=horizon,
            n_action_steps=n_action_steps,
            ema_decay=ema_decay,
            **kwargs,
        )
