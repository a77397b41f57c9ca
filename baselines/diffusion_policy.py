"""
Diffusion Policy (Chi et al. 2023, arXiv 2303.04137); with a PointNet encoder it is DP3 (Ze et al. 2024, arXiv
2403.03954).

Settings are those of ``train_diffusion_unet_lowdim_workspace.yaml`` and of DP3's ``dp3.yaml`` and ``simple_dp3.yaml``,
the noise schedules those of the diffusers library (``pip install difftori-gym[imitation]``), sampled by DDIM.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from torch import Tensor

from difftori_gym.il.demonstrations import Demonstrations
from difftori_gym.il.learner import ImitationAlgorithm
from difftori_gym.il.losses import ImitationLoss
from difftori_gym.il.networks import ChunkNetwork, ObservationEncoder, TrainingBatch
from difftori_gym.il.policies import ImitationPolicy, aliases_of
from difftori_gym.il.schedules import CosineSchedule
from difftori_gym.models import ConditionalUnet1D
from difftori_gym.observations import TensorObs

Prediction = Literal["epsilon", "sample"]
Size = Literal["diffusion_policy", "dp3", "simple_dp3", "small"]
SIZES: dict[str, tuple[tuple[int, ...], int]] = {
    "diffusion_policy": ((256, 512, 1024), 256),
    "dp3": ((512, 1024, 2048), 128),
    "simple_dp3": ((128, 256, 384), 128),
    "small": ((32, 64), 32),
}
"""Channels of the levels and size of the step's embedding; the last is ours, for CPUs."""


class DiffusionNetwork(ChunkNetwork):
    """A U-Net that predicts the noise (``"epsilon"``, Diffusion Policy) or the clean actions (``"sample"``, DP3)."""

    def __init__(
        self,
        encoder: ObservationEncoder,
        horizon: int,
        action_dim: int,
        *,
        size: Size = "diffusion_policy",
        num_train_steps: int = 100,
        num_inference_steps: int = 10,
        prediction: Prediction = "epsilon",
    ) -> None:
        if size not in SIZES:
            raise ValueError(f"DiffusionPolicy needs size to be one of {', '.join(SIZES)}, got {size!r}.")
        if not 1 <= num_inference_steps <= num_train_steps:
            raise ValueError(
                f"DiffusionPolicy needs num_inference_steps in [1, num_train_steps={num_train_steps}], got "
                f"{num_inference_steps}."
            )
        super().__init__(encoder, horizon, action_dim)
        self.unet = ConditionalUnet1D(action_dim, self.condition_dim, *SIZES[size])
        # The time axis is halved again and again; what is missing at its end is filled up with the last action.
        self.length = -(-horizon // self.unet.time_multiple) * self.unet.time_multiple
        self.num_train_steps, self.num_inference_steps = num_train_steps, num_inference_steps
        self.prediction = prediction
        self.noising, self.sampling = _schedulers(num_train_steps, prediction)
        self.sampling.set_timesteps(num_inference_steps)

    @property
    def noise_dim(self) -> int:  # type: ignore[override]
        """What the sampling starts from."""
        return self.length * self.action_dim

    def loss(self, batch: TrainingBatch) -> ImitationLoss:
        """Squared error of the predicted noise or actions at random diffusion steps."""
        condition = self.encoder(batch.observations).flatten(1)
        missing = self.length - self.horizon
        actions = torch.cat([batch.actions, batch.actions[:, -1:].expand(-1, missing, -1)], dim=1)
        noise = torch.randn_like(actions)
        steps = torch.randint(self.num_train_steps, (len(actions),), device=actions.device)
        noisy = self.noising.add_noise(actions, noise, steps)
        target = noise if self.prediction == "epsilon" else actions
        return ImitationLoss((self.unet(noisy, steps, condition) - target).square().mean())

    def chunk(self, observations: TensorObs, noise: Tensor, start: Tensor | None, deterministic: bool) -> Tensor:
        condition = self.encoder(observations).flatten(1)
        actions = noise.view(-1, self.length, self.action_dim)
        for step in self.sampling.timesteps:
            predicted = self.unet(actions, step.to(actions.device).expand(len(actions)), condition)
            actions = self.sampling.step(predicted, int(step), actions, eta=0.0).prev_sample
        return actions[:, : self.horizon]


def _schedulers(num_train_steps: int, prediction: Prediction) -> tuple[Any, Any]:
    """The forward process in training, and DDIM."""
    try:
        from diffusers.schedulers.scheduling_ddim import DDIMScheduler  # seconds to import
        from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
    except ImportError as error:
        raise ImportError(
            "DiffusionPolicy needs the noise schedules of diffusers: pip install 'difftori-gym[imitation]'."
        ) from error
    settings: dict[str, Any] = dict(
        num_train_timesteps=num_train_steps,
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule="squaredcos_cap_v2",
        clip_sample=True,
        prediction_type=prediction,
    )
    return DDPMScheduler(**settings), DDIMScheduler(**settings, set_alpha_to_one=True, steps_offset=0)


class DiffusionUnetPolicy(ImitationPolicy):
    """
    Arguments are those of :class:`DiffusionPolicy` for its U-Net, and of
    :class:`~difftori_gym.il.policies.ImitationPolicy`.
    """

    network_class = DiffusionNetwork

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


class DiffusionPolicy(ImitationAlgorithm):
    """
    Diffusion Policy with the convolutional network.

    Further arguments are those of :class:`~difftori_gym.il.learner.ImitationAlgorithm`. DP3 is
    ``size="dp3", prediction="sample", horizon=4, n_action_steps=3`` with a PointNet encoder.

    :param policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"`` or a subclass of its policy
    :param horizon: planned actions; the published 16 counts one action before the last observation, ours do not
    :param size: ``"diffusion_policy"``, ``"dp3"``, ``"simple_dp3"`` or ``"small"``
    :param num_train_steps: diffusion steps in training
    :param num_inference_steps: DDIM steps when acting
    :param prediction: ``"epsilon"`` or ``"sample"``
    """

    algorithm: ClassVar[str] = "DiffusionPolicy"
    policy_settings = (
        *ImitationAlgorithm.policy_settings,
        *("size", "prediction", "num_train_steps", "num_inference_steps"),
    )
    policy_aliases = aliases_of(DiffusionUnetPolicy)

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
        num_train_steps: int = 100,
        num_inference_steps: int = 10,
        prediction: Prediction = "epsilon",
        **kwargs: Any,
    ) -> None:
        self.size, self.prediction = size, prediction
        self.num_train_steps, self.num_inference_steps = num_train_steps, num_inference_steps
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
