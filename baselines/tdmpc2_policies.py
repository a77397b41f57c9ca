"""The policy of TD-MPC2: DiffTORI's, with other networks and another planner."""

from __future__ import annotations

import inspect
from typing import Any, Literal

import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, FlattenExtractor
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor, nn

from ..models import CombinedEncoder, ImageEncoder, ObservationNorm, observation_kind
from ..rl import DiffTORIPolicy
from ..rl.planning import Planner
from ..rl.policies import sizes_of_heads
from ..trajopt import Solution
from .tdmpc2_networks import SimNorm, TDMPC2Model, normed_mlp
from .tdmpc2_planning import TDMPC2Planner

Size = Literal["5M", "small"]
#: Hidden sizes of the encoder and of every other network, and Z. "5M" is the published size for a single task.
SIZES: dict[str, tuple[int, int, int]] = {"5M": (256, 512, 512), "small": (128, 128, 128)}


class TDMPC2Encoder(nn.Module):
    """
    Observations to latent states.

    :param features_extractor: preprocessed observation -> ``[B, features_dim]``
    :param hidden_dims: hidden sizes behind the features
    :param latent_dim: Z
    :param activation_fn: activation of the hidden layers
    :param simnorm_dim: numbers that are normalised together
    :param of_images: convolutions have no hidden layer behind them, and no layer at all if they give Z numbers
    """

    def __init__(
        self,
        features_extractor: BaseFeaturesExtractor,
        hidden_dims: list[int],
        latent_dim: int,
        activation_fn: type[nn.Module],
        simnorm_dim: int,
        of_images: bool,
    ) -> None:
        super().__init__()
        self.features_extractor = features_extractor
        width, simnorm = features_extractor.features_dim, SimNorm(simnorm_dim)
        self.head: nn.Module = simnorm
        if not of_images or width != latent_dim:
            hidden = [] if of_images else hidden_dims
            self.head = normed_mlp(width, hidden, latent_dim, activation_fn=activation_fn, last_activation=simnorm)

    def forward(self, observation: PyTorchObs) -> Tensor:
        """A preprocessed observation ``[B, ...]``, or a dictionary of such -> latent states ``[B, Z]``."""
        return self.head(self.features_extractor(observation))


class RunningScale(nn.Module):
    """How widely values spread: the distance of their 5th and 95th percentile, at least 1, averaged over updates."""

    value: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("value", torch.ones(1))

    @torch.no_grad()
    def update(self, values: Tensor, tau: float) -> None:
        """Take the values ``[B]`` of a batch; one that is not finite changes nothing."""
        low, high = torch.quantile(values.nan_to_num(), values.new_tensor([0.05, 0.95]))
        self.value.lerp_((high - low).clamp(min=1.0), tau)


class TDMPC2Policy(DiffTORIPolicy):
    """
    Planning policy of TD-MPC2. Arguments that are not listed here are
    :class:`~difftori_gym.rl.policies.DiffTORIPolicy`'s.

    :param size: ``"5M"``, the published networks for a single task (hidden layers and latent states of 512, an encoder
        of 256), or ``"small"`` (all of 128), which a CPU trains
    :param net_arch: other hidden sizes, as a list or per head with any of the keys ``pi, qf, dynamics, reward,
        encoder``; None for those of ``size``
    :param latent_dim: Z, a multiple of ``simnorm_dim``; None for that of ``size``
    :param n_critics: number of values, of which two drawn ones count
    :param dropout: of the first hidden layer of the values, in [0, 1)
    :param simnorm_dim: numbers that are normalised together in a latent state
    :param num_bins: of reward and values, at least 2
    :param encoder_lr_scale: factor on the learning rate of the encoder
    :raises ValueError: for spaces or sizes that cannot be
    """

    model: Any
    encoder: Any

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        lr_schedule: Schedule,
        size: Size = "5M",
        net_arch: list[int] | dict[str, list[int]] | None = None,
        activation_fn: type[nn.Module] = nn.Mish,
        features_extractor_class: type[BaseFeaturesExtractor] = FlattenExtractor,
        features_extractor_kwargs: dict[str, Any] | None = None,
        normalize_images: bool = True,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
        n_critics: int = 5,
        latent_dim: int | None = None,
        planner: Planner | None = None,
        horizon: int = 3,
        exploration_std: float = 0.05,
        image_shift: int | None = None,
        norm_obs: bool = False,
        dropout: float = 0.01,
        simnorm_dim: int = 8,
        num_bins: int = 101,
        encoder_lr_scale: float = 0.3,
    ) -> None:
        if size not in SIZES:
            raise ValueError(f"TDMPC2Policy has the sizes {', '.join(SIZES)}, got {size!r}.")
        latent_dim = SIZES[size][2] if latent_dim is None else latent_dim
        if simnorm_dim < 1 or latent_dim % simnorm_dim:
            raise ValueError(
                f"TDMPC2Policy needs latent_dim to be a multiple of simnorm_dim, got {latent_dim} and {simnorm_dim}."
            )
        if num_bins < 2:
            raise ValueError(f"TDMPC2Policy needs num_bins >= 2, got {num_bins}.")
        # Read by _build_networks, which the parent calls.
        self.size, self.dropout, self.simnorm_dim = size, dropout, simnorm_dim
        self.num_bins, self.encoder_lr_scale = num_bins, encoder_lr_scale
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            _sizes_of_heads(size, net_arch),
            activation_fn,
            features_extractor_class,
            features_extractor_kwargs,
            normalize_images,
            optimizer_class,
            optimizer_kwargs,
            n_critics,
            latent_dim,
            planner or TDMPC2Planner(),
            horizon,
            exploration_std,
            image_shift,
            slow_targets=False,
            norm_obs=norm_obs,
        )

    def _build_networks(self, arch: dict[str, list[int]]) -> None:
        self.observation_norm = ObservationNorm(self.observation_space) if self.norm_obs else None
        self.encoder = TDMPC2Encoder(
            self.make_features_extractor(),
            arch["encoder"],
            self.latent_dim,
            self.activation_fn,
            self.simnorm_dim,
            isinstance(self.observation_space, spaces.Box) and observation_kind(self.observation_space) == "image",
        )
        self.model = TDMPC2Model(
            self.latent_dim,
            get_action_dim(self.action_space),
            dynamics_arch=arch["dynamics"],
            reward_arch=arch["reward"],
            qf_arch=arch["qf"],
            pi_arch=arch["pi"],
            n_critics=self.n_critics,
            activation_fn=self.activation_fn,
            dropout=self.dropout,
            simnorm_dim=self.simnorm_dim,
            num_bins=self.num_bins,
        )
        self.critic_target = self._frozen_copy(self.model.critic)
        self.value_scale = RunningScale()

    def _build_optimizers(self, lr_schedule: Schedule) -> None:
        kwargs: dict[str, Any] = dict(self.optimizer_kwargs)
        if self.optimizer_class is torch.optim.Adam:
            kwargs.setdefault("fused", True)  # one kernel for all parameters, on CPU and CUDA
        lr, scale = lr_schedule(1), self.encoder_lr_scale
        encoder = list(self.encoder.parameters())
        groups: list[dict[str, Any]] = [
            dict(params=encoder, lr=scale * lr, lr_scale=scale),
            dict(params=self.model_parameters()[len(encoder) :], lr_scale=1.0),
        ]
        self.optimizer = self.optimizer_class(groups, lr=lr, **kwargs)  # type: ignore[call-arg]
        if self.optimizer_class is torch.optim.Adam:
            kwargs.setdefault("eps", 1e-5)  # of the prior alone
        self.pi_optimizer = self.optimizer_class(self.model.actor.parameters(), lr=lr, **kwargs)  # type: ignore[call-arg]

    def _get_constructor_parameters(self) -> dict[str, Any]:
        data = super()._get_constructor_parameters()
        names = [name for name in inspect.signature(TDMPC2Policy.__init__).parameters if name != "self"]
        return {name: data[name] if name in data else getattr(self, name) for name in names}

    def plan(
        self, observation: PyTorchObs, *, previous: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Solution:
        """See :meth:`~difftori_gym.rl.policies.DiffTORIPolicy.plan`."""
        if self.training:  # with dropout a plan would not be a function of its arguments
            self.set_training_mode(False)
        return super().plan(observation, previous=previous, generator=generator)

    def set_training_mode(self, mode: bool) -> None:
        """Let dropout, and batch norm of an extractor of your own, behave as in training, or not; targets never do."""
        self.encoder.train(mode)
        self.model.train(mode)
        self.training = mode


class TDMPC2CnnPolicy(TDMPC2Policy):
    """
    :class:`TDMPC2Policy` for images: convolutions of 32 channels with kernels 7, 5, 3, 3 and strides 2, 2, 2, 1, which
    give as many numbers of images of 64 x 64 as a published latent state has.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("features_extractor_class", ImageEncoder)
        if kwargs["features_extractor_class"] is ImageEncoder:
            own = dict(features_dim=None, strides=[2, 2, 2, 1])
            kwargs["features_extractor_kwargs"] = {**own, **(kwargs.get("features_extractor_kwargs") or {})}
        super().__init__(*args, **kwargs)


class TDMPC2MultiInputPolicy(TDMPC2Policy):
    """:class:`TDMPC2Policy` for dictionaries: a network per entry before the encoder."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("features_extractor_class", CombinedEncoder)
        super().__init__(*args, **kwargs)


def _sizes_of_heads(size: Size, net_arch: list[int] | dict[str, list[int]] | None) -> dict[str, list[int]]:
    if isinstance(net_arch, list):
        return sizes_of_heads(net_arch)
    encoder, width, _ = SIZES[size]
    own = {head: [width, width] for head in ("pi", "qf", "dynamics", "reward")}
    return sizes_of_heads({**own, "encoder": [encoder], **(net_arch or {})})
