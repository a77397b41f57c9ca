"""DrQ-v2 (Yarats et al. 2021, arXiv 2107.09645): deep deterministic policy gradient from pixels."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import GymEnv, PyTorchObs, Schedule
from stable_baselines3.common.utils import polyak_update
from torch import Tensor, nn
from torch.nn import functional as F

from ..learning.off_policy import OffPolicyLearner
from ..learning.spaces import check_action_space
from ..models import ImageEncoder, default_shift, mlp, random_shift
from ..rl.frame_replay import FrameReplay
from ..rl.images import preprocessed


class FrameNStepReplayBuffer(FrameReplay, NStepReplayBuffer):
    """Stable-Baselines3's buffer of several-step returns, with every image frame stored once."""


def _trunk(input_dim: int, features_dim: int) -> nn.Sequential:
    """What shrinks the flat convolutions ``[B, input_dim]`` to ``[B, features_dim]`` in (-1, 1)."""
    return nn.Sequential(mlp(input_dim, (), features_dim), nn.LayerNorm(features_dim), nn.Tanh())


class DrQv2Critic(nn.Module):
    """Several values on one trunk."""

    def __init__(self, input_dim: int, action_dim: int, features_dim: int, net_arch: list[int], n_critics: int) -> None:
        super().__init__()
        self.trunk = _trunk(input_dim, features_dim)
        self.members = nn.ModuleList(mlp(features_dim + action_dim, net_arch, 1, nn.ReLU) for _ in range(n_critics))

    def forward(self, features: Tensor, action: Tensor) -> Tensor:
        """Flat convolutions ``[B, F]`` and actions ``[B, A]`` in [-1, 1] -> values ``[n_critics, B]``."""
        x = torch.cat([self.trunk(features), action], dim=-1)
        return torch.cat([member(x) for member in self.members], dim=-1).t()


class DrQv2Policy(BasePolicy):
    """
    Convolutions that only the values train, an actor on them, and twin values.

    Arguments that are not listed here are Stable-Baselines3's.

    :param net_arch: hidden sizes of the actor and of each value
    :param features_dim: of the trunk between convolutions and each of them
    :param n_critics: number of values
    :param exploration_std: standard deviation of the noise on non-deterministic actions, in units of the [-1, 1] box
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        lr_schedule: Schedule,
        net_arch: list[int] | None = None,
        features_dim: int = 50,
        features_extractor_class: type[BaseFeaturesExtractor] = ImageEncoder,
        features_extractor_kwargs: dict[str, Any] | None = None,
        normalize_images: bool = True,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
        n_critics: int = 2,
        exploration_std: float = 0.1,
    ) -> None:
        check_action_space(action_space, type(self).__name__)
        if features_extractor_class is ImageEncoder:  # the trunks follow the convolutions with no layer in between
            features_extractor_kwargs = {"features_dim": None, **(features_extractor_kwargs or {})}
        super().__init__(
            observation_space,
            action_space,
            features_extractor_class,
            features_extractor_kwargs,
            normalize_images=normalize_images,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
            squash_output=True,
        )
        self.net_arch = [1024, 1024] if net_arch is None else net_arch
        self.features_dim, self.n_critics, self.exploration_std = features_dim, n_critics, exploration_std
        self.encoder = self.make_features_extractor()
        flat_dim, action_dim = self.encoder.features_dim, get_action_dim(action_space)
        self.actor = nn.Sequential(
            _trunk(flat_dim, features_dim), mlp(features_dim, self.net_arch, action_dim, nn.ReLU), nn.Tanh()
        )
        self.critic = DrQv2Critic(flat_dim, action_dim, features_dim, self.net_arch, n_critics)
        self.critic_target = DrQv2Critic(flat_dim, action_dim, features_dim, self.net_arch, n_critics)
        self.critic_target.load_state_dict(self.critic.state_dict())
        self.critic_target.requires_grad_(False)
        lr = lr_schedule(1)
        self.critic_optimizer = self._optimizer([*self.encoder.parameters(), *self.critic.parameters()], lr)
        self.actor_optimizer = self._optimizer(list(self.actor.parameters()), lr)

    def _optimizer(self, parameters: list[nn.Parameter], lr: float) -> torch.optim.Optimizer:
        return self.optimizer_class(parameters, lr=lr, **self.optimizer_kwargs)  # type: ignore[call-arg]

    def _get_constructor_parameters(self) -> dict[str, Any]:
        names = (
            *("net_arch", "features_dim", "n_critics", "exploration_std", "optimizer_class", "optimizer_kwargs"),
            *("features_extractor_class", "features_extractor_kwargs"),
        )
        own = {name: getattr(self, name) for name in names}
        return {**super()._get_constructor_parameters(), **own, "lr_schedule": self._dummy_schedule}

    def encode(self, images: PyTorchObs) -> Tensor:
        """Raw images ``[B, C, H, W]`` -> flat convolutions ``[B, F]``."""
        return self.encoder(preprocessed(images, self.observation_space, normalize_images=self.normalize_images))

    def sample(self, features: Tensor, std: float, clip: float | None = None) -> Tensor:
        """
        Actions ``[B, A]`` in [-1, 1] for flat convolutions ``[B, F]``, with noise of at most ``clip``.

        The gradient passes the box as if it were not there.
        """
        mean = self.actor(features)
        noise = std * torch.randn_like(mean)
        noisy = mean + (noise if clip is None else noise.clamp(-clip, clip))
        return noisy - (noisy - noisy.clamp(-1.0, 1.0)).detach()

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> Tensor:
        features = self.encode(observation)
        return self.actor(features) if deterministic else self.sample(features, self.exploration_std)

    forward = _predict

    def action_value(self, observation: PyTorchObs, action: Tensor) -> Tensor:
        """
        Discounted return ``[B]`` that the smaller of the twin values expects.

        :param observation: raw images ``[B, C, H, W]``
        :param action: ``[B, A]`` in [-1, 1]
        """
        return self.critic(self.encode(observation), action).amin(dim=0)


class DrQv2(OffPolicyLearner):
    """
    DrQ-v2 as a Stable-Baselines3 algorithm, with its published hyper-parameters.

    Two things are ours: the convolutions are those of DiffTORI and TD-MPC, so that a comparison has one encoder, and
    images are scaled to [0, 1] rather than [-0.5, 0.5].

    Arguments that are not listed here are Stable-Baselines3's.

    :param policy: ``"CnnPolicy"`` or a subclass of :class:`DrQv2Policy`
    :param env: environment with images as observations and a ``Box`` action space
    :param learning_rate: of both optimizers
    :param learning_starts: agent steps of uniformly random actions
    :param tau: step of the moving average of the values
    :param train_freq: agent steps between updates
    :param action_noise: added to actions on top of the scheduled noise
    :param replay_buffer_class: of several-step returns
    :param replay_buffer_kwargs: its keyword arguments besides ``n_steps`` and ``gamma``
    :param return_steps: n, steps of rewards before a target's value
    :param exploration_initial_std: noise at the start, in units of the [-1, 1] box; falls linearly
    :param exploration_final_std: noise from ``schedule_steps`` on
    :param schedule_steps: agent steps of that fall; published: 100,000 for easy tasks, 500,000 for medium ones
    :param noise_clip: greatest noise on actions in both losses
    :param image_shift: greatest shift of images in pixels; None for a 21st of the width, 4 at 84
    :param policy_kwargs: see :class:`DrQv2Policy`
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"CnnPolicy": DrQv2Policy}
    algorithm: ClassVar[str] = "DrQv2"
    policy: DrQv2Policy
    live_settings: ClassVar[frozenset[str]] = OffPolicyLearner.live_settings.union(
        ("exploration_final_std", "exploration_initial_std", "schedule_steps"),
        ("image_shift", "noise_clip", "return_steps"),
    )

    def __init__(
        self,
        policy: str | type[DrQv2Policy],
        env: GymEnv | str | None = None,
        learning_rate: float | Schedule = 1e-4,
        buffer_size: int = 1_000_000,
        learning_starts: int = 2000,
        batch_size: int = 256,
        tau: float = 0.01,
        gamma: float = 0.99,
        train_freq: int | tuple[int, str] = 2,
        gradient_steps: int = 1,
        action_noise: ActionNoise | None = None,
        replay_buffer_class: type[ReplayBuffer] | None = None,
        replay_buffer_kwargs: dict[str, Any] | None = None,
        *,
        return_steps: int = 3,
        exploration_initial_std: float = 1.0,
        exploration_final_std: float = 0.1,
        schedule_steps: int = 100_000,
        noise_clip: float = 0.3,
        image_shift: int | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        env = self._checked_env(env, verbose)
        is_default = "features_extractor_class" not in (policy_kwargs or {})
        if env is not None and is_default and len(env.observation_space.shape or ()) != 3:
            raise ValueError(
                f"DrQv2 reads images, got {env.observation_space}: make_env(id, obs='pixels') shows nothing else; "
                "DiffTORI, TDMPC and Stable-Baselines3's learners read other observations."
            )
        twice = sorted({"n_steps", "gamma"} & set(replay_buffer_kwargs or ()))
        if twice:
            raise ValueError(f"DrQv2 sets {twice} of its replay itself: give return_steps and gamma to DrQv2.")
        super().__init__(
            policy,
            env,
            learning_rate,
            buffer_size,
            learning_starts,
            batch_size,
            tau,
            gamma,
            train_freq,
            gradient_steps,
            action_noise=action_noise,
            replay_buffer_class=replay_buffer_class or FrameNStepReplayBuffer,
            replay_buffer_kwargs=replay_buffer_kwargs,
            policy_kwargs=policy_kwargs,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            device=device,
            seed=seed,
            sde_support=False,
            supported_action_spaces=(spaces.Box,),
            support_multi_env=True,
        )
        self.return_steps = return_steps
        self.exploration_initial_std, self.exploration_final_std = exploration_initial_std, exploration_final_std
        self.schedule_steps, self.noise_clip, self.image_shift = schedule_steps, noise_clip, image_shift
        self.saved_by = self.algorithm
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        self._settled = False
        self._check_policy_kwargs({"exploration_std"})
        super()._setup_model()
        assert self.replay_buffer is not None
        self._check_replay(self.replay_buffer)
        self._follow("gamma")
        self._settled = True

    def _follow(self, name: str) -> None:
        super()._follow(name)
        if name in ("gamma", "return_steps"):  # the replay sums up rewards
            replay: Any = self.replay_buffer
            replay.gamma, replay.n_steps = self.gamma, self.return_steps

    def _check_replay(self, replay: ReplayBuffer) -> None:
        if not isinstance(replay, NStepReplayBuffer):
            raise ValueError(
                f"DrQv2 expects a replay of several-step returns, a NStepReplayBuffer, got a {type(replay).__name__}: "
                "leave replay_buffer_class out, or load what DrQv2 has saved."
            )
        super()._check_replay(replay)

    def exploration_std(self) -> float:
        """Standard deviation of the noise at this agent step."""
        progress = min(self.num_timesteps / self.schedule_steps, 1.0) if self.schedule_steps > 0 else 1.0
        return self.exploration_initial_std + progress * (self.exploration_final_std - self.exploration_initial_std)

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        self.policy.exploration_std = self.exploration_std()
        return super()._sample_action(learning_starts, action_noise, n_envs)

    def train(self, gradient_steps: int, batch_size: int = 256) -> None:
        """Update convolutions and values, then the actor, ``gradient_steps`` times, with ``batch_size`` transitions."""
        assert self.replay_buffer is not None
        self.policy.set_training_mode(True)
        self._update_learning_rate([self.policy.critic_optimizer, self.policy.actor_optimizer])
        losses = []
        for _ in range(gradient_steps):
            data = self.replay_buffer.sample(batch_size, env=self._vec_normalize_env)
            assert data.discounts is not None
            features = self.policy.encode(self._moved(data.observations))
            with torch.no_grad():
                next_features = self.policy.encode(self._moved(data.next_observations))
                next_action = self._noisy_action(next_features)
                next_value = self.policy.critic_target(next_features, next_action).amin(dim=0)
                target = data.rewards[:, 0] + (1 - data.dones[:, 0]) * data.discounts[:, 0] * next_value
            values = self.policy.critic(features, data.actions)  # [n_critics, B]
            critic_loss = F.mse_loss(values, target.expand_as(values), reduction="none").mean(dim=1).sum()
            _descend(self.policy.critic_optimizer, critic_loss)

            features = features.detach()
            actor_loss = -self.policy.critic(features, self._noisy_action(features)).amin(dim=0).mean()
            _descend(self.policy.actor_optimizer, actor_loss)
            polyak_update(self.policy.critic.parameters(), self.policy.critic_target.parameters(), self.tau)
            self._n_updates += 1
            losses.append(torch.stack([critic_loss.detach(), actor_loss.detach(), target.mean()]))
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        if losses:
            means = torch.stack(losses).mean(dim=0).tolist()
            for name, value in zip(("critic_loss", "actor_loss", "value_target"), means, strict=True):
                self.logger.record(f"train/{name}", value)

    def _moved(self, images: Tensor) -> Tensor:
        return random_shift(images, default_shift(images.shape[-1]) if self.image_shift is None else self.image_shift)

    def _noisy_action(self, features: Tensor) -> Tensor:
        return self.policy.sample(features, self.exploration_std(), self.noise_clip)

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", "policy.critic_optimizer", "policy.actor_optimizer"], []


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step along the gradient in the optimizer's own parameters."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        parameter.grad = gradient
    optimizer.step()
