"""The policy of every imitation learner: remembers observations, asks a network for a chunk of actions, executes it."""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, FlattenExtractor
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor

from difftori_gym.il.memory import PolicyState, RolloutMemory
from difftori_gym.il.networks import ChunkNetwork, ObservationEncoder
from difftori_gym.il.normalization import CloudScaling, ObservationNormalizer
from difftori_gym.il.validation import check_same_spaces, check_windows
from difftori_gym.learning.finite import check_finite_observation
from difftori_gym.learning.spaces import check_action_space, check_extractor, check_observation_space
from difftori_gym.models import CombinedEncoder, ImageEncoder, PointNetEncoder, observation_kind
from difftori_gym.observations import ArrayObs, TensorObs, batch_size_of, entries, from_entries, map_obs

NoiseLifetime = Literal["episode", "chunk"]


@dataclass(frozen=True)
class PolicySpec:
    """How to build a policy, without its weights: its class and keyword arguments of the constructor."""

    policy_class: type[ImitationPolicy]
    parameters: dict[str, Any]

    @classmethod
    def of(cls, policy: ImitationPolicy) -> PolicySpec:
        return cls(type(policy), policy._get_constructor_parameters())

    def build(self) -> ImitationPolicy:
        """A policy with fresh weights that is not trained any more."""
        policy = self.policy_class(**self.parameters)
        policy.set_training_mode(False)
        return policy.requires_grad_(False)


class ImitationPolicy(BasePolicy):
    """
    Time axis, for ``n_obs_steps=2, horizon=4, n_action_steps=3``:

        observations   o o
        actions          a a a a      planned
        executed         x x x        then the next plan is made

    Arguments that are not listed here are Stable-Baselines3's. Actions are a ``Box`` with finite bounds.

    :param n_obs_steps: observations a plan is a function of
    :param horizon: planned actions H, the first at the time of the last observation
    :param n_action_steps: how many of them are executed before the next plan
    :param ema_decay: greatest decay of the moving average of the weights that acts; None: the trained weights act
    :param noise_lifetime: whether the noise a plan is a function of is drawn once an ``"episode"`` or per ``"chunk"``
    :param base: spec of a policy whose actions the network starts from
    :param features_extractor_class: turns each observation into a vector; by default what :func:`default_extractor`
        finds for its kind
    :param cloud_scaling: ``"axes"`` scales each channel of a point cloud by what demonstrations show, ``"none"`` does
        not; images are divided by 255, everything else is scaled to [-1, 1] by what demonstrations show
    :param image_shift: greatest random shift of images in training, in pixels; 0 for none, None for a 21st of their
        width, 4 at 84, as in DrQ
    :param network_kwargs: settings of the method's network, see its policy; None stands for the default
    :raises ValueError: for spaces or windows that cannot work
    """

    network: ChunkNetwork
    #: Class of the network, whose keyword arguments are arguments of the policy too.
    network_class: ClassVar[Any]

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        lr_schedule: Schedule,
        *,
        n_obs_steps: int = 1,
        horizon: int = 1,
        n_action_steps: int = 1,
        ema_decay: float | None = None,
        noise_lifetime: NoiseLifetime = "chunk",
        base: PolicySpec | None = None,
        features_extractor_class: type[BaseFeaturesExtractor] | None = None,
        features_extractor_kwargs: dict[str, Any] | None = None,
        cloud_scaling: CloudScaling = "axes",
        image_shift: int | None = 0,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
        **network_kwargs: Any,
    ) -> None:
        check_action_space(action_space, type(self).__name__)
        check_observation_space(observation_space, type(self).__name__, only_boxes=True)
        features_extractor_class = features_extractor_class or default_extractor(observation_space)
        check_extractor(features_extractor_class, observation_space, type(self).__name__)
        check_windows(n_obs_steps, horizon, n_action_steps)
        if image_shift is not None and image_shift < 0:
            raise ValueError(f"Imitation needs image_shift >= 0, or None for a 21st of the width, got {image_shift}.")
        super().__init__(
            observation_space,
            action_space,
            features_extractor_class,
            features_extractor_kwargs,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
            squash_output=True,
        )
        self.n_obs_steps, self.horizon, self.n_action_steps = n_obs_steps, horizon, n_action_steps
        self.ema_decay, self.noise_lifetime = ema_decay, noise_lifetime
        self.action_dim = get_action_dim(action_space)
        self.base_spec = base
        self.base = base.build() if base is not None else None
        self.cloud_scaling, self.image_shift = cloud_scaling, image_shift
        if self.base is not None:
            what = f"base policy {type(self.base).__name__}"
            check_same_spaces(observation_space, action_space, self.base, what=what, whose="the policy")
        normalizer = ObservationNormalizer(observation_space, clouds=cloud_scaling)
        encoder = ObservationEncoder(normalizer, self.make_features_extractor(), n_obs_steps)
        own = inspect.signature(self.network_class).parameters.values()
        defaults = {each.name: each.default for each in own if each.kind is each.KEYWORD_ONLY}
        given = {name: value for name, value in network_kwargs.items() if value is not None}
        self.network_kwargs = {**defaults, **given}
        self.network = self.network_class(encoder, horizon, self.action_dim, **self.network_kwargs)
        self.ema_network = copy.deepcopy(self.network).requires_grad_(False) if ema_decay is not None else None
        self.optimizer = self.optimizer_class(
            self.network.parameters(),
            lr=lr_schedule(1),  # type: ignore[call-arg]
            **self.optimizer_kwargs,
        )
        self.set_training_mode(False)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        data = super()._get_constructor_parameters()
        del data["normalize_images"]  # images are the normaliser's to scale
        names = (
            *("n_obs_steps", "horizon", "n_action_steps", "ema_decay", "noise_lifetime"),
            *("features_extractor_class", "features_extractor_kwargs", "cloud_scaling", "image_shift"),
            *("optimizer_class", "optimizer_kwargs"),
        )
        own = {name: getattr(self, name) for name in names}
        # The optimizer's state is not part of a policy file.
        return {**data, **own, "lr_schedule": self._dummy_schedule, "base": self.base_spec, **self.network_kwargs}

    @property
    def acting(self) -> ChunkNetwork:
        """The network that answers: the moving average where there is one."""
        return self.network if self.ema_network is None else self.ema_network

    @property
    def history_steps(self) -> int:
        """Observations that are remembered: as many as this policy or its base policy needs."""
        return max(self.n_obs_steps, self.base.history_steps if self.base is not None else 1)

    @property
    def noise_dim(self) -> int:
        """Numbers that a plan is a function of besides the observations, those of the base policy included."""
        return self.acting.noise_dim + (self.base.noise_dim if self.base is not None else 0)

    def update_moving_average(self, n_updates: int) -> None:
        """
        Move the acting weights towards the trained ones, after update number ``n_updates``, from 1.

        The decay grows as 1 - (1 + n)^(-3/4) up to ``ema_decay``, as in Diffusion Policy.
        """
        if self.ema_network is None:
            return
        assert self.ema_decay is not None
        decay = min(self.ema_decay, 1.0 - (1.0 + n_updates) ** -0.75)
        with torch.no_grad():
            averages: list[Tensor] = list(self.ema_network.parameters())
            values: list[Tensor] = list(self.network.parameters())
            torch._foreach_lerp_(averages, values, 1.0 - decay)
            for average, value in zip(self.ema_network.buffers(), self.network.buffers(), strict=True):
                average.copy_(value)

    def draw_noise(self, batch: int, deterministic: bool) -> Tensor:
        """Noise ``[B, noise_dim]``; deterministic, every sample gets the same fixed one."""
        own = self.acting.noise_dim
        noise = torch.randn(batch, own) if not deterministic else self.acting.fixed_noise().expand(batch, own)
        noise = noise.to(self.device)
        return noise if self.base is None else torch.cat([noise, self.base.draw_noise(batch, deterministic)], dim=1)

    @torch.no_grad()
    def start(self, observations: TensorObs, noise: Tensor, deterministic: bool) -> Tensor | None:
        """
        Actions of the base policy ``[B, H, A]``, its last one repeated if it plans less far; None without one.

        The arguments are those of :meth:`chunk`.
        """
        if self.base is None:
            return None
        actions = self.base.chunk(observations, noise[:, self.acting.noise_dim :], deterministic)[:, : self.horizon]
        missing = self.horizon - actions.shape[1]
        return torch.cat([actions, actions[:, -1:].expand(-1, missing, -1)], dim=1)

    @torch.no_grad()
    def chunk(self, observations: TensorObs, noise: Tensor, deterministic: bool) -> Tensor:
        """
        :param observations: raw, ``[B, history_steps, ...]`` or a dictionary of such
        :param noise: ``[B, noise_dim]``, see :meth:`draw_noise`
        :param deterministic: whether further random draws are the same for every call and sample
        :return: planned actions ``[B, H, A]`` in [-1, 1]
        """
        start = self.start(observations, noise, deterministic)
        own = noise[:, : self.acting.noise_dim]
        return self.acting.chunk(observations, own, start, deterministic).clamp(-1.0, 1.0)

    def predict(
        self,
        observation: ArrayObs,
        state: PolicyState | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, PolicyState | None]:
        """
        The next action of the plan in ``state``, or of a new plan when that is used up.

        With ``deterministic=True`` a pure function of the weights and these arguments.

        :param observation: one observation or a batch, in the environment's units
        :param state: what the previous call returned, None at the start
        :param episode_start: True where an episode starts, so that what was remembered is forgotten, ``[B]``
        :param deterministic: False draws the noise of a plan, True takes the same for every plan
        :return: actions in the environment's units, state for the next call
        :raises ValueError: if an observation is not finite, or the state is that of another number of environments
        """
        check_finite_observation(observation, self.observation_space)
        self.set_training_mode(False)
        tensors, vectorized = self.obs_to_tensor(observation)
        arrays = map_obs(lambda value: value.cpu().numpy(), tensors)
        memory, starts = self._recall(arrays, state, episode_start)
        empty = memory.position >= self.n_action_steps
        if empty.any():
            self._plan(memory, starts, empty, deterministic)
        actions = self.unscale_action(memory.next_actions().reshape(-1, *self.action_space.shape))  # type: ignore[misc]
        return (actions if vectorized else actions.squeeze(axis=0)), memory.to_state()

    def _recall(
        self, observation: ArrayObs, state: PolicyState | None, episode_start: np.ndarray | None
    ) -> tuple[RolloutMemory, np.ndarray]:
        """The memory after this observation, and mask ``[B]`` of environments in which an episode starts."""
        batch = batch_size_of(observation)
        if state is None:
            memory = RolloutMemory.empty(
                observation, self.history_steps, self.n_action_steps, self.action_dim, self.noise_dim
            )
            return memory, np.ones(batch, bool)
        memory = RolloutMemory.from_state(state)
        if len(memory.position) != batch:
            raise ValueError(
                f"predict expects the state of {batch} environments, got one of {len(memory.position)}: pass "
                "state=None when the number of environments changes."
            )
        starts = np.zeros(batch, bool) if episode_start is None else np.array(episode_start, bool).reshape(batch)
        memory.observe(observation, starts)
        return memory, starts

    def _plan(self, memory: RolloutMemory, starts: np.ndarray, rows: np.ndarray, deterministic: bool) -> None:
        """Make new plans for the environments ``rows``, a mask ``[B]``."""
        fresh = rows if self.noise_lifetime == "chunk" else starts
        if self.noise_dim and fresh.any():
            memory.noise[fresh] = self.draw_noise(int(fresh.sum()), deterministic).cpu().numpy()
        history: list[Any] = [torch.as_tensor(part[rows], device=self.device) for part in memory.history]
        windows = from_entries(dict(zip(sorted(entries(self.observation_space)), history, strict=True)))
        noise = torch.as_tensor(memory.noise[rows], device=self.device)
        plan = self.chunk(windows, noise, deterministic)
        memory.chunk[rows] = plan[:, : self.n_action_steps].cpu().numpy()
        memory.position[rows] = 0

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> Tensor:
        """First action of a plan from an observation that begins an episode, ``[B, A]`` in [-1, 1]."""

        def repeated(value: Tensor) -> Tensor:
            return value[:, None].expand(-1, self.history_steps, *value.shape[1:])

        noise = self.draw_noise(batch_size_of(observation), deterministic)
        return self.chunk(map_obs(repeated, observation), noise, deterministic)[:, 0]

    forward = _predict

    def unscale_action(self, scaled_action: np.ndarray) -> np.ndarray:
        """Actions in [-1, 1] -> in the environment's units, inside its bounds."""
        space = self.action_space
        assert isinstance(space, spaces.Box)
        return np.clip(super().unscale_action(scaled_action), space.low, space.high)

    def set_training_mode(self, mode: bool) -> None:
        """
        True lets batch norm and dropout of the trained network behave as in training; the moving average and a base
        policy never do.
        """
        self.network.train(mode)
        self.training = mode
        for frozen in (self.ema_network, self.base):
            if frozen is not None:
                frozen.train(False)


def aliases_of(policy: type[ImitationPolicy]) -> dict[str, type[BasePolicy]]:
    """Stable-Baselines3's names of a policy, which reads every kind of observation."""
    return dict.fromkeys(("MlpPolicy", "CnnPolicy", "MultiInputPolicy"), policy)


def default_extractor(space: spaces.Space[Any]) -> type[BaseFeaturesExtractor]:
    """
    Convolutions for images with the channels first, a PointNet for point clouds, one of these for each entry of a
    dictionary; vectors are left as they are.
    """
    if isinstance(space, spaces.Dict):
        return CombinedEncoder
    return {"image": ImageEncoder, "point_cloud": PointNetEncoder, "vector": FlattenExtractor}[observation_kind(space)]
