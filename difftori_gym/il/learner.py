"""What every imitation learner is: a Stable-Baselines3 algorithm whose steps are gradient steps on demonstrations."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, ClassVar, NoReturn, TypeVar

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, ProgressBarCallback
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import check_for_correct_spaces
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import Tensor

from difftori_gym.il.dataset import WindowDataset
from difftori_gym.il.demonstrations import Demonstrations
from difftori_gym.il.losses import ImitationLoss
from difftori_gym.il.policies import ImitationPolicy, NoiseLifetime, PolicySpec
from difftori_gym.il.validation import check_same_spaces, check_windows
from difftori_gym.learning.learner import Learner
from difftori_gym.learning.memory_errors import out_of_memory_explained
from difftori_gym.learning.running_means import RunningMeans
from difftori_gym.learning.spaces import check_action_space

SelfImitation = TypeVar("SelfImitation", bound="ImitationAlgorithm")


class ImitationAlgorithm(Learner):
    """
    Base of all imitation learners. ``learn(total_timesteps)`` counts gradient steps; the environment is only for
    callbacks and may be left out, then the demonstrations name the spaces.

    A subclass names its policy in ``policy_aliases``; all it has to say is in the policy's network. Arguments that are
    not listed here are Stable-Baselines3's.

    :param policy: name or class of the policy
    :param env: environment, the id of a registered one, or None
    :param demonstrations: what to learn from; None after loading, until :meth:`set_demonstrations`
    :param learning_rate: a number, or a function of the remaining progress
    :param batch_size: windows per gradient step
    :param n_obs_steps: observations a plan is a function of
    :param horizon: planned actions
    :param n_action_steps: how many of them are executed before the next plan
    :param ema_decay: greatest decay of the moving average of the weights that acts; None: the trained weights act
    :param noise_lifetime: see :class:`~difftori_gym.il.policies.ImitationPolicy`
    :param base_policy: learner or policy whose actions the method starts from; its weights are not changed
    :param cache_base_actions: compute its actions on the demonstrations once and not for every batch
    :param max_grad_norm: norm the gradient is clipped to; None for no clipping
    :param policy_kwargs: keyword arguments of the policy
    :raises ValueError: for spaces, windows, demonstrations or a base policy that do not fit
    """

    policy: ImitationPolicy
    algorithm: ClassVar[str] = "ImitationAlgorithm"
    live_settings: ClassVar[frozenset[str]] = Learner.live_settings.union(
        ("cache_base_actions", "demonstrations", "max_grad_norm")
    )
    #: Arguments of the policy that are the algorithm's to set, and attributes of it.
    policy_settings: ClassVar[tuple[str, ...]] = (
        *("n_obs_steps", "horizon", "n_action_steps", "ema_decay", "noise_lifetime"),
    )
    needs_base_policy: ClassVar[bool] = False
    # what a checkpoint keeps beside the file that ``save`` writes
    resume_attributes: ClassVar[tuple[str, ...]] = (
        "_generator.bit_generator.state",
        "_means.sums",
        "_cached_base_actions",
    )

    def __init__(
        self,
        policy: str | type[ImitationPolicy],
        env: GymEnv | str | None = None,
        demonstrations: Demonstrations | None = None,
        *,
        learning_rate: float | Schedule = 1e-4,
        batch_size: int = 128,
        n_obs_steps: int = 1,
        horizon: int = 1,
        n_action_steps: int = 1,
        ema_decay: float | None = None,
        noise_lifetime: NoiseLifetime = "chunk",
        base_policy: ImitationAlgorithm | ImitationPolicy | None = None,
        cache_base_actions: bool = True,
        max_grad_norm: float | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        check_windows(n_obs_steps, horizon, n_action_steps)
        env = self._checked_env(env, verbose, only_boxes=True)
        is_dict = demonstrations is not None and isinstance(demonstrations.observation_space, spaces.Dict)
        if env is None and is_dict and policy in ("MlpPolicy", "CnnPolicy"):
            raise ValueError(f"You must use `MultiInputPolicy` when working with dict observation space, not {policy}")
        super().__init__(
            policy,
            env,
            learning_rate,
            policy_kwargs=policy_kwargs,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            device=device,
            support_multi_env=True,
            seed=seed,
        )
        self.batch_size = batch_size
        self.n_obs_steps, self.horizon, self.n_action_steps = n_obs_steps, horizon, n_action_steps
        self.ema_decay, self.noise_lifetime = ema_decay, noise_lifetime
        self.cache_base_actions, self.max_grad_norm = cache_base_actions, max_grad_norm
        self.saved_by = self.algorithm
        self._means = RunningMeans()
        self._dataset: WindowDataset | None = None
        self.base_policy = base_policy.policy if isinstance(base_policy, ImitationAlgorithm) else base_policy
        self.base_spec = PolicySpec.of(self.base_policy) if self.base_policy is not None else None
        self.demonstrations = demonstrations
        if env is None and demonstrations is not None:
            self.observation_space, self.action_space = demonstrations.observation_space, demonstrations.action_space
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        self._settled = False
        if getattr(self, "observation_space", None) is None:
            raise ValueError(
                f"{self.algorithm} needs an environment or demonstrations to know the spaces, got neither: pass "
                "demonstrations=..."
            )
        check_action_space(self.action_space, self.algorithm)
        if self.env is None:
            # As Stable-Baselines3 wraps an environment: images with the channels first.
            self.env = self._wrap_env(SpacesVecEnv(self.observation_space, self.action_space))
            self.observation_space, self.n_envs = self.env.observation_space, 1
            self._last_obs = None  # of the environments it was saved with
        if self.needs_base_policy and self.base_spec is None:
            raise ValueError(
                f"{self.algorithm} needs a base policy, got None: pass base_policy=, any trained imitation learner of "
                "the same environment."
            )
        if self.base_policy is not None:
            check_same_spaces(
                self.observation_space,
                self.action_space,
                self.base_policy,
                what=f"base policy {type(self.base_policy).__name__}",
                whose="the environment" if not isinstance(self.env, SpacesVecEnv) else "the demonstrations",
            )
        self._follow("batch_size")
        self._setup_lr_schedule()
        self._generator = np.random.default_rng(self.seed)
        self.set_random_seed(self.seed)
        settings = {"base": self.base_spec, **self._policy_settings()}
        self._check_policy_kwargs(set(settings))
        kwargs = {**settings, **self.policy_kwargs}
        self.policy = self.policy_class(  # type: ignore[assignment]
            self.observation_space, self.action_space, self.lr_schedule, **kwargs
        )
        self.policy.to(self.device)
        if self.base_policy is not None:
            assert self.policy.base is not None
            self.policy.base.load_state_dict(self.base_policy.state_dict())
        if self.demonstrations is not None:
            self.set_demonstrations(self.demonstrations)
            self.policy.network.encoder.normalizer.fit(self.demonstrations)  # type: ignore[operator]
            if self.policy.ema_network is not None:
                self.policy.ema_network.load_state_dict(self.policy.network.state_dict())
        self._settled = True

    def _follow(self, name: str) -> None:
        super()._follow(name)
        if name == "batch_size" and self.batch_size < 1:
            raise ValueError(f"{self.algorithm} needs batch_size >= 1, got {self.batch_size}.")
        if name in ("demonstrations", "cache_base_actions") and self.demonstrations is not None:
            self._dataset = WindowDataset(self.demonstrations, self.policy, self._generator, self.cache_base_actions)

    def _policy_settings(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.policy_settings}

    def set_random_seed(self, seed: int | None = None) -> None:
        """Seed torch, numpy, Python, the action space and the choice of windows; None leaves them as they are."""
        super().set_random_seed(seed)
        if seed is not None:
            self._generator.bit_generator.state = np.random.default_rng(seed).bit_generator.state

    def set_demonstrations(self, demonstrations: Demonstrations) -> None:
        """
        Go on with these demonstrations. Observations stay normalised as they were by the first ones.

        :raises ValueError: if the spaces differ, if an action is not finite or outside its bounds
        """
        self.demonstrations = demonstrations
        if not self._settled:
            self._follow("demonstrations")

    @property
    def _cached_base_actions(self) -> Tensor | None:
        return self._dataset.cached_base_actions if self._dataset is not None else None

    @_cached_base_actions.setter
    def _cached_base_actions(self, answers: Tensor | None) -> None:
        if self._dataset is not None:
            self._dataset.cached_base_actions = answers

    def train(self, gradient_steps: int, batch_size: int = 128) -> None:
        """Make ``gradient_steps`` updates with ``batch_size`` windows each."""
        assert self._dataset is not None
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        parameters = [parameter for group in self.policy.optimizer.param_groups for parameter in group["params"]]
        for _ in range(gradient_steps):
            self.policy.optimizer.zero_grad(set_to_none=True)
            with out_of_memory_explained(batch_size=batch_size, horizon=self.horizon):
                loss = self.policy.network.loss(self._dataset.sample(batch_size))
                loss.total.backward()
            norm = torch.nn.utils.clip_grad_norm_(parameters, self.max_grad_norm or torch.inf)
            if torch.isfinite(norm):
                self.policy.optimizer.step()
            self._n_updates += 1
            self.policy.update_moving_average(self._n_updates)
            self._note(loss, norm)

    def _note(self, loss: ImitationLoss, norm: Tensor) -> None:
        terms = {f"{field.name}_loss" if field.name == "total" else field.name: field.name for field in fields(loss)}
        values = {name: getattr(loss, field).detach() for name, field in terms.items()} | {"grad_norm": norm.detach()}
        for name, value in values.items():
            self._means.add(name, value)

    def dump_logs(self) -> None:
        """Write the log; training terms are means over the gradient steps since the last time."""
        for name, mean in self._means.pop().items():
            self.logger.record(f"train/{name}", mean)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("time/total_timesteps", self.num_timesteps, exclude="tensorboard")
        self.logger.dump(step=self.num_timesteps)

    def learn(
        self: SelfImitation,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 100,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfImitation:
        """
        As in Stable-Baselines3, but that a time step is a gradient step, also for ``callback`` and ``log_interval``.

        :raises ValueError: without demonstrations, as after loading
        """
        if self._dataset is None:
            raise ValueError(
                f"{self.algorithm}.learn needs demonstrations, got none: they are not saved with a model, call "
                "set_demonstrations first."
            )
        name = tb_log_name or self.algorithm
        total, callback = self._setup_learn(total_timesteps, callback, reset_num_timesteps, name, progress_bar)
        callback.on_training_start(locals(), globals())
        while self.num_timesteps < total:
            self._update_current_progress_remaining(self.num_timesteps, total)
            self.train(1, self.batch_size)
            self.num_timesteps += 1
            callback.update_locals(locals())
            if not callback.on_step():
                break
            if log_interval is not None and self.num_timesteps % log_interval == 0:
                self.dump_logs()
        callback.on_training_end()
        return self

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "run",
        progress_bar: bool = False,
    ) -> tuple[int, BaseCallback]:
        # The bar is ours: Stable-Baselines3's counts steps of all environments.
        total, prepared = super()._setup_learn(total_timesteps, callback, reset_num_timesteps, tb_log_name, False)
        if progress_bar:
            prepared = CallbackList([prepared, _GradientStepBar()])
            prepared.init_callback(self)
        return total, prepared

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """As in Stable-Baselines3, with any number of environments."""
        env = self._wrap_env(env, self.verbose)
        check_for_correct_spaces(env, self.observation_space, self.action_space)
        self.n_envs = env.num_envs
        super().set_env(env, force_reset)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "demonstrations", "base_policy", "_dataset", "_generator", "_means"]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", "policy.optimizer"], []


class SpacesEnv(gym.Env[Any, Any]):
    """Stands in for the environment of a learner with demonstrations only: it knows its spaces and cannot be run."""

    def __init__(self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> NoReturn:
        raise ValueError("This model was given demonstrations and no environment: pass env= to run episodes.")


class SpacesVecEnv(DummyVecEnv):
    def __init__(self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
        super().__init__([lambda: SpacesEnv(observation_space, action_space)])


class _GradientStepBar(ProgressBarCallback):
    def _on_step(self) -> bool:
        self.pbar.update(1)
        return True
