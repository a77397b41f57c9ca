"""
The minimal iterative policy of "Much Ado About Noising" (Pan et al. 2025, arXiv 2512.01809): a regression in two steps,
the second of which is trained on noisy actions.

From the paper, section 4.1, are the two terms of the loss, the times 0 and t* = 0.9, the noisy actions
t* a + (1 - t*) z, and the two calls when acting, without noise. The paper's own text was not at hand: all this was read
in the released code (simchowitzlabpublic/much-ado-about-noising, ``mip/losses.py``, ``mip/samplers.py``) and in a
summary of the paper. The code's default leaves out the factor t* of what the second step gets and says that the paper
has it; here it is there. The code divides the errors by t* and 1 - t*, the summary's equation does not; here they weigh
the same, which could not be verified. Network, sizes, window, optimiser and moving average are those of
:class:`~difftori_gym.baselines.DiffusionPolicy`, not the released ones.
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


class MIPNetwork(UnetNetwork):
    """A U-Net that predicts actions, from nothing at time 0, and from noisy ones at ``t_star``."""

    method = "MIP"
    noise_dim = 0

    def __init__(
        self,
        encoder: ObservationEncoder,
        horizon: int,
        action_dim: int,
        *,
        size: Size = "diffusion_policy",
        t_star: float = 0.9,
    ) -> None:
        super().__init__(encoder, horizon, action_dim, size)
        if not 0.0 < t_star < 1.0:
            raise ValueError(f"MIP needs t_star in (0, 1), got {t_star}.")
        self.t_star = t_star

    def error(self, actions: Tensor, condition: Tensor) -> Tensor:
        """
        Squared errors of both steps (Pan et al., Eq. 4.4).

        mean |pi(o, 0, 0) - a|^2 + mean |pi(o, t* a + (1 - t*) z, t*) - a|^2, with z ~ N(0, I)
        """
        noisy = self.t_star * actions + (1.0 - self.t_star) * torch.randn_like(actions)
        times = actions.new_tensor([0.0, self.t_star]).repeat_interleave(len(actions))
        # One call for both steps takes a quarter less time than two on a CPU.
        predicted = self.at(times, torch.cat([torch.zeros_like(actions), noisy]), condition.repeat(2, 1))
        return 2.0 * (predicted.unflatten(0, (2, -1)) - actions).square().mean()

    def generate(self, noise: Tensor, condition: Tensor) -> Tensor:
        """Both steps, pi(o, t* pi(o, 0, 0), t*) (Pan et al., Eq. 4.5)."""
        nothing = condition.new_zeros(len(condition), self.length, self.action_dim)
        first = self.at(0.0, nothing, condition)
        return self.at(self.t_star, self.t_star * first, condition)


class MIPUnetPolicy(UnetPolicy):
    """
    Arguments are those of :class:`MIP` for its U-Net, and of :class:`~difftori_gym.il.policies.ImitationPolicy`.
    """

    network_class = MIPNetwork


class MIP(UnetImitation):
    """
    The minimal iterative policy with the networks of Diffusion Policy. It acts without noise: ``deterministic`` changes
    nothing.

    Further arguments are those of :class:`~difftori_gym.baselines.unet_policy.UnetImitation`.

    :param policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"`` or a subclass of its policy
    :param t_star: time of the second step, in (0, 1); its training noise has standard deviation ``1 - t_star``
    """

    algorithm: ClassVar[str] = "MIP"
    policy_settings = (*UnetImitation.policy_settings, "t_star")
    policy_aliases = aliases_of(MIPUnetPolicy)

    def __init__(
        self,
        policy: str | type[ImitationPolicy],
        env: GymEnv | str | None = None,
        demonstrations: Demonstrations | None = None,
        *,
        t_star: float = 0.9,
        **kwargs: Any,
    ) -> None:
        self.t_star = t_star
        super().__init__(policy, env, demonstrations, **kwargs)
