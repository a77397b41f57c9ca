"""
Conditional flow matching on chunks of actions: noise is carried to actions along a learned velocity (Lipman et al.
2023, arXiv 2210.02747; straight paths as in rectified flow, Liu et al. 2023, arXiv 2209.03003; as a robot's policy,
pi0, Black et al. 2024, arXiv 2410.24164).

Network, sizes, window, optimiser and moving average are those of :class:`~difftori_gym.baselines.DiffusionPolicy`, so
that the two differ in what the network learns and in nothing else.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from stable_baselines3.common.type_aliases import GymEnv
from torch import Tensor

from difftori_gym.baselines.unet_policy import Size, UnetImitation, UnetNetwork, UnetPolicy
from difftori_gym.il.demonstrations import Demonstrations
from difftori_gym.il.networks import ObservationEncoder
from difftori_gym.il.policies import ImitationPolicy, aliases_of


class FlowNetwork(UnetNetwork):
    """A U-Net that predicts the velocity from noise, at time 0, to actions, at time 1."""

    method = "FlowMatching"

    def __init__(
        self,
        encoder: ObservationEncoder,
        horizon: int,
        action_dim: int,
        *,
        size: Size = "diffusion_policy",
        num_inference_steps: int = 10,
    ) -> None:
        super().__init__(encoder, horizon, action_dim, size)
        if num_inference_steps < 1:
            raise ValueError(f"FlowMatching needs num_inference_steps >= 1, got {num_inference_steps}.")
        self.num_inference_steps = num_inference_steps

    def error(self, actions: Tensor, condition: Tensor) -> Tensor:
        """
        Squared error of the velocity on straight paths (Lipman et al., Eq. 23 with sigma_min = 0).

        mean |v(x_t, t, o) - (a - z)|^2, with x_t = t a + (1 - t) z, z ~ N(0, I), t ~ U(0, 1)
        """
        noise = torch.randn_like(actions)
        times = torch.rand(len(actions), device=actions.device)
        between = torch.lerp(noise, actions, times[:, None, None])
        return (self.at(times, between, condition) - (actions - noise)).square().mean()

    def generate(self, noise: Tensor, condition: Tensor) -> Tensor:
        """Euler's method along the velocity, from time 0 to 1."""
        actions = noise.view(-1, self.length, self.action_dim)
        for step in range(self.num_inference_steps):
            velocity = self.at(step / self.num_inference_steps, actions, condition)
            actions = actions + velocity / self.num_inference_steps
        return actions


class FlowUnetPolicy(UnetPolicy):
    """
    Arguments are those of :class:`FlowMatching` for its U-Net, and of
    :class:`~difftori_gym.il.policies.ImitationPolicy`.
    """

    network_class = FlowNetwork


class FlowMatching(UnetImitation):
    """
    Flow matching with the networks of Diffusion Policy.

    Further arguments are those of :class:`~difftori_gym.baselines.unet_policy.UnetImitation`. As in Lipman et al. times
    are uniform in training; pi0 draws more of them near the noise.

    :param policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"`` or a subclass of its policy
    :param num_inference_steps: Euler steps when acting, each one call of the network; 10 in pi0
    """

    algorithm: ClassVar[str] = "FlowMatching"
    policy_settings = (*UnetImitation.policy_settings, "num_inference_steps")
    policy_aliases = aliases_of(FlowUnetPolicy)

    def __init__(
        self,
        policy: str | type[ImitationPolicy],
        env: GymEnv | str | None = None,
        demonstrations: Demonstrations | None = None,
        *,
        num_inference_steps: int = 10,
        **kwargs: Any,
    ) -> None:
        self.num_inference_steps = num_inference_steps
        super().__init__(policy, env, demonstrations, **kwargs)
