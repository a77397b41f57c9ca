"""
Diffusion Policy (Chi et al. 2023, arXiv 2303.04137); with a PointNet encoder it is DP3 (Ze et al. 2024, arXiv
2403.03954).

Settings are those of ``train_diffusion_unet_lowdim_workspace.yaml`` and of DP3's ``dp3.yaml`` and ``simple_dp3.yaml``,
the noise schedules those of the diffusers library (``pip install difftori-gym[imitation]``), sampled by DDIM.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from stable_baselines3.common.type_aliases import GymEnv
from torch import Tensor

from difftori_gym.baselines.unet_policy import Size, UnetImitation, UnetNetwork, UnetPolicy
from difftori_gym.il.demonstrations import Demonstrations
from difftori_gym.il.networks import ObservationEncoder
from difftori_gym.il.policies import ImitationPolicy, aliases_of

Prediction = Literal["epsilon", "sample"]


class DiffusionNetwork(UnetNetwork):
    """A U-Net that predicts the noise (``"epsilon"``, Diffusion Policy) or the clean actions (``"sample"``, DP3)."""

    method = "DiffusionPolicy"

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
        super().__init__(encoder, horizon, action_dim, size)
        if not 1 <= num_inference_steps <= num_train_steps:
            raise ValueError(
                f"DiffusionPolicy needs num_inference_steps in [1, num_train_steps={num_train_steps}], got "
                f"{num_inference_steps}."
            )
        self.num_train_steps, self.num_inference_steps = num_train_steps, num_inference_steps
        self.prediction = prediction
        self.noising, self.sampling = _schedulers(num_train_steps, prediction)
        self.sampling.set_timesteps(num_inference_steps)

    def error(self, actions: Tensor, condition: Tensor) -> Tensor:
        """Squared error of the predicted noise or actions at random diffusion steps."""
        noise = torch.randn_like(actions)
        steps = torch.randint(self.num_train_steps, (len(actions),), device=actions.device)
        noisy = self.noising.add_noise(actions, noise, steps)
        target = noise if self.prediction == "epsilon" else actions
        return (self.unet(noisy, steps, condition) - target).square().mean()

    def generate(self, noise: Tensor, condition: Tensor) -> Tensor:
        actions = noise.view(-1, self.length, self.action_dim)
        for step in self.sampling.timesteps:
            predicted = self.unet(actions, step.to(actions.device).expand(len(actions)), condition)
            actions = self.sampling.step(predicted, int(step), actions, eta=0.0).prev_sample
        return actions


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


class DiffusionUnetPolicy(UnetPolicy):
    """
    Arguments are those of :class:`DiffusionPolicy` for its U-Net, and of
    :class:`~difftori_gym.il.policies.ImitationPolicy`.
    """

    network_class = DiffusionNetwork


class DiffusionPolicy(UnetImitation):
    """
    Diffusion Policy with the convolutional network.

    Further arguments are those of :class:`~difftori_gym.baselines.unet_policy.UnetImitation`. Learning rate, batch,
    window, ``ema_decay=0.9999`` and ``size`` are published ones; the published horizon of 16 counts one action before
    the last observation, ours does not. DP3 is ``size="dp3", prediction="sample", horizon=4, n_action_steps=3`` with a
    PointNet encoder.

    :param policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"`` or a subclass of its policy
    :param num_train_steps: diffusion steps in training
    :param num_inference_steps: DDIM steps when acting
    :param prediction: ``"epsilon"`` or ``"sample"``
    """

    algorithm: ClassVar[str] = "DiffusionPolicy"
    policy_settings = (*UnetImitation.policy_settings, "prediction", "num_train_steps", "num_inference_steps")
    policy_aliases = aliases_of(DiffusionUnetPolicy)

    def __init__(
        self,
        policy: str | type[ImitationPolicy],
        env: GymEnv | str | None = None,
        demonstrations: Demonstrations | None = None,
        *,
        num_train_steps: int = 100,
        num_inference_steps: int = 10,
        prediction: Prediction = "epsilon",
        **kwargs: Any,
    ) -> None:
        self.num_train_steps, self.num_inference_steps = num_train_steps, num_inference_steps
        self.prediction = prediction
        super().__init__(policy, env, demonstrations, **kwargs)
