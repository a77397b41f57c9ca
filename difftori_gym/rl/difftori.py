"""DiffTORI for reinforcement learning, as a Stable-Baselines3 off-policy algorithm."""

from __future__ import annotations

import io
import pathlib
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule

from difftori_gym.learning import refuse_renamed, split_planner_kwargs
from difftori_gym.learning.finite import check_finite_observation, check_finite_transition
from difftori_gym.learning.memory_errors import out_of_memory_explained
from difftori_gym.learning.transfers import LateResults
from difftori_gym.rl.captured_update import CapturedUpdater
from difftori_gym.rl.exploration import CorrelatedNoise, Exploration, NoiseModes, PlanningSchedule, RewardedSteps
from difftori_gym.rl.from_demonstrations import FromDemonstrations
from difftori_gym.rl.losses import LossCoefficients
from difftori_gym.rl.planning import Planner
from difftori_gym.rl.policies import CnnPolicy, DiffTORIPolicy, MlpPolicy, MultiInputPolicy, PlanState
from difftori_gym.rl.sequence_buffer import SequenceSampling, check_buffer_class
from difftori_gym.rl.tensor_collection import TensorCollection, buffer_class_for
from difftori_gym.rl.update import UpdateSettings

# The paper's solver, with few iterations, which stay close to the policy prior: docs/results.md.
_OPTIMIZER: dict[str, Any] = dict(solver="lm", max_iterations=10, step_size=1e-3, damping=0.5)
_OF_UPDATES = ("n_steps", "policy_delay", "target_update_interval", "clipped_double_q")
_PLANNER: dict[str, Any] = dict(init="policy", num_prior_samples=0, compile=False, horizon_initial=1)


class DiffTORI(FromDemonstrations):
    """
    Differentiable trajectory optimisation as a policy (Wan et al. 2024, arXiv 2402.05421).

    A latent model (encoder, dynamics, reward, values) is learned as in TD-MPC. Actions come from optimising an action
    sequence under it, and a policy-gradient loss is back-propagated through that optimiser into the model.

    :param policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"`` or a subclass of ``DiffTORIPolicy``
    :param env: environment with a bounded ``Box`` action space, or the id of a registered one
    :param learning_rate: of all three optimizers; a function of the remaining progress is accepted
    :param buffer_size: transitions kept
    :param learning_starts: agent steps of uniformly random actions before the first update
    :param batch_size: windows per update
    :param tau: step of the moving averages towards the learned networks
    :param gamma: discount
    :param train_freq: agent steps between updates, as in Stable-Baselines3
    :param gradient_steps: updates each time; -1 for as many as steps were collected
    :param action_noise: added to actions on top of the scheduled exploration noise
    :param replay_buffer_class: a subclass of the sequence buffers
    :param replay_buffer_kwargs: its keyword arguments, e.g. ``priority_exponent`` and ``importance_exponent``
    :param optimize_memory_usage: store each observation once (needs
        ``replay_buffer_kwargs=dict(handle_timeout_termination=False)``, as in Stable-Baselines3)
    :param n_steps: steps of reward in the targets of all values, at most ``horizon``; fewer where a window ends
    :param horizon: steps that are planned, and transitions in a training window
    :param schedule_steps: agent steps over which the planned horizon grows and exploration falls
    :param exploration_kwargs: settings of :class:`~difftori_gym.rl.exploration.Exploration`: ``initial_std=0.5``,
        ``final_std=0.2`` (four times TD-MPC's, because this planner's actions have no spread of their own as MPPI's
        elites do), ``correlation=0.0`` and others
    :param target_policy_noise: standard deviation of the noise that smooths value targets and prior; None for the
        final exploration noise
    :param planner_kwargs: how it plans: settings of :class:`~difftori_gym.trajopt.TrajectoryOptimizer` (``solver``,
        here ``"lm"`` with ``max_iterations=10, step_size=1e-3, damping=0.5, bounds="project"``; ``backward_mode``, how
        the policy-gradient loss is differentiated through it, here ``"truncated"`` with
        ``backward_num_iterations=5``), and of :class:`~difftori_gym.rl.planning.Planner` (``init``, the start,
        ``"policy"``, ``"zero"``, ``"random"`` or ``"warm"``; ``compile``, for GPUs, see docs/solvers.md), and
        ``horizon_initial``, the steps planned at the start, here 1, which grow linearly to ``horizon``
    :param reward_scale: factor on the rewards that are learned from, so that values stay well below the solver's
        ``residual_offset`` of 1000 (in the control suite they are below 100). Planned values are in this unit.
    :param reward_coef: weight of the reward loss; 0 switches a loss off, here and below
    :param value_coef: weight of the latent value loss
    :param consistency_coef: weight of the latent dynamics loss
    :param termination_coef: weight of the termination loss, which applies once an episode has terminated
    :param rho: each further step of a window counts this much less
    :param pg_coef: weight of the policy-gradient loss through the optimiser; 0 gives the paper's ablation
    :param pg_freq: updates between two policy-gradient losses
    :param pg_batch_size: states of the replay batch that it plans from
    :param pg_max_grad_ratio: its gradient is clipped to this multiple of the model gradient's norm before it joins it;
        None adds the whole of it, as in the paper
    :param imitation_coef: weight, times the size of the values, of the prior's squared distance to plans (after BMPC)
    :param max_grad_norm: norm that every other gradient is clipped to
    :param policy_delay: updates between two of the policy prior
    :param target_update_interval: updates between two steps of the moving averages
    :param clipped_double_q: whether targets take the least of the values (TD3) or their mean (BRO)
    :param policy_kwargs: see :class:`~difftori_gym.rl.policies.DiffTORIPolicy`
    :param stats_window_size: episodes that logged returns are averaged over
    :param tensorboard_log: folder of the tensorboard log
    :param verbose: 0 none, 1 info, 2 debug
    :param seed: of all random generators
    :param device: ``"auto"``, ``"cpu"``, ``"cuda"``
    :raises ValueError: for spaces or settings that cannot work, with expected, got, remedy
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": MlpPolicy,
        "CnnPolicy": CnnPolicy,
        "MultiInputPolicy": MultiInputPolicy,
    }
    policy: DiffTORIPolicy
    algorithm: ClassVar[str] = "DiffTORI"
    records: ClassVar[tuple[str, ...]] = ("planner", "update_settings", "schedule", "exploration")
    exploration_defaults: ClassVar[dict[str, Any]] = {}
    #: What updates the policy's networks, and the optimizers of the policy that it moves.
    updater_class: ClassVar[type[Any]] = CapturedUpdater
    optimizers: ClassVar[tuple[str, ...]] = ("optimizer", "pi_optimizer", "raw_critic_optimizer")
    live_settings: ClassVar[frozenset[str]] = TensorCollection.live_settings | {
        "exploration_kwargs",
        "horizon",
        "planner_kwargs",
        "target_policy_noise",
        *_OF_UPDATES,
        *records,
    }
    resume_attributes = ("_plan_state", "_plan_restart", "_tensor_plan", "_updater.means.sums", "_shown")

    def __init__(
        self,
        policy: str | type[DiffTORIPolicy],
        env: GymEnv | str | None = None,
        learning_rate: float | Schedule = 1e-3,
        buffer_size: int = 1_000_000,
        learning_starts: int = 1000,
        batch_size: int = 256,
        tau: float = 0.01,
        gamma: float = 0.99,
        train_freq: int | tuple[int, str] = 1,
        gradient_steps: int = 1,
        action_noise: ActionNoise | None = None,
        replay_buffer_class: type[ReplayBuffer] | None = None,
        replay_buffer_kwargs: dict[str, Any] | None = None,
        optimize_memory_usage: bool = False,
        n_steps: int = 1,
        *,
        horizon: int = 5,
        schedule_steps: int = 25_000,
        exploration_kwargs: dict[str, Any] | None = None,
        target_policy_noise: float | None = None,
        planner_kwargs: dict[str, Any] | None = None,
        reward_scale: float = 1.0,
        reward_coef: float = 0.5,
        value_coef: float = 0.1,
        consistency_coef: float = 2.0,
        termination_coef: float = 1.0,
        rho: float = 0.5,
        pg_coef: float = 1.0,
        pg_freq: int = 5,
        pg_batch_size: int = 64,
        pg_max_grad_ratio: float | None = 0.1,
        imitation_coef: float = 0.0,
        max_grad_norm: float = 10.0,
        policy_delay: int = 1,
        target_update_interval: int = 2,
        clipped_double_q: bool = True,
        policy_kwargs: dict[str, Any] | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
        **renamed: Any,
    ) -> None:
        refuse_renamed(renamed, own=_PLANNER, whose=self.algorithm)
        env = self._checked_env(env, verbose)
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
            replay_buffer_class=replay_buffer_class,
            replay_buffer_kwargs=replay_buffer_kwargs,
            optimize_memory_usage=optimize_memory_usage,
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
        self.n_steps, self.horizon, self.target_policy_noise = n_steps, horizon, target_policy_noise
        self.policy_delay, self.target_update_interval = policy_delay, target_update_interval
        self.clipped_double_q = clipped_double_q
        self.exploration_kwargs = {} if exploration_kwargs is None else exploration_kwargs
        self.planner_kwargs = {} if planner_kwargs is None else planner_kwargs
        self.schedule = PlanningSchedule(1, horizon, schedule_steps)
        self._make_records()
        self.update_settings = UpdateSettings(
            coefficients=LossCoefficients(reward_coef, value_coef, consistency_coef, termination_coef, rho),
            reward_scale=reward_scale,
            max_grad_norm=max_grad_norm,
            pg_coef=pg_coef,
            pg_freq=pg_freq,
            pg_batch_size=pg_batch_size,
            pg_max_grad_ratio=pg_max_grad_ratio,
            imitation_coef=imitation_coef,
        )
        self._noise, self._noise_modes, self._rewarded_steps = CorrelatedNoise(), NoiseModes(), RewardedSteps()
        self._plan_state: PlanState | None = None
        self._plan_restart: np.ndarray | None = None
        self._schedule_step, self._step_is_stored = 0, True
        self.saved_by = self.algorithm
        if _init_setup_model:
            self._setup_model()

    def _make_records(self) -> None:
        """What ``exploration_kwargs`` and ``planner_kwargs`` ask for."""
        self.exploration = Exploration.of(
            self.exploration_kwargs, defaults=self.exploration_defaults, whose=self.algorithm
        )
        self.planner, horizon_initial = self._make_planner()
        self.schedule = replace(self.schedule, horizon_initial=horizon_initial)
        self._made_with = dict(self.exploration_kwargs), dict(self.planner_kwargs)

    def _make_planner(self) -> tuple[Planner, int]:
        """:return: the planner, and the horizon that it starts with"""
        optimizer, own = split_planner_kwargs(
            self.planner_kwargs, defaults=_OPTIMIZER, own=_PLANNER, whose=self.algorithm
        )
        horizon_initial = own.pop("horizon_initial")
        return Planner(optimizer, discount=self.gamma, **own), horizon_initial

    def _setup_model(self) -> None:
        self._settled = False
        self._check_policy_kwargs({"planner", "horizon", "exploration_std"})
        if self.replay_buffer_class is None:
            self.replay_buffer_class = buffer_class_for(self.env, self.observation_space)
        check_buffer_class(self.replay_buffer_class)
        self._gather_settings()
        # The planner is the algorithm's to configure; policy_kwargs stays what the user wrote.
        written = self.policy_kwargs
        self.policy_kwargs = {"planner": self.planner, **written}
        n_steps, self.n_steps = self.n_steps, 1  # of Stable-Baselines3's own buffers
        try:
            super()._setup_model()
        finally:
            self.policy_kwargs, self.n_steps = written, n_steps
        self._updater = self.updater_class(self.policy, self.update_settings)
        self._move_schedules()
        self._settled = True

    def _follow(self, name: str) -> None:
        super()._follow(name)
        if name not in DiffTORI.live_settings - TensorCollection.live_settings | {"gamma", "tau"}:
            return
        self._settled = False  # the records are set anew
        try:
            self._gather_settings()
        finally:
            self._settled = True
        self.policy.planner, self._updater.settings = self.planner, self.update_settings
        self._move_schedules()

    def _gather_settings(self) -> None:
        """As on any algorithm of Stable-Baselines3, these may be set on the object or by ``load``."""
        self.schedule = replace(self.schedule, horizon=self.horizon)
        if (self.exploration_kwargs, self.planner_kwargs) != self._made_with:
            self._make_records()
        if not 1 <= self.n_steps <= self.horizon:
            raise ValueError(
                f"{self.algorithm} takes targets from windows of horizon={self.horizon} steps: expected n_steps from 1 "
                f"to {self.horizon}, got {self.n_steps!r}."
            )
        self.planner = replace(self.planner, discount=self.gamma)  # which may be one of the user's own class
        noise = self.exploration.final_std if self.target_policy_noise is None else self.target_policy_noise
        own = {name: getattr(self, name) for name in _OF_UPDATES}
        self.update_settings = replace(self.update_settings, discount=self.gamma, tau=self.tau, noise_std=noise, **own)

    def _move_schedules(self) -> None:
        """Planning horizon and exploration noise at the agent step of the last action: a loaded model has the same."""
        step = self._schedule_step
        progress = self.schedule.progress(self._rewarded_steps.count if self.exploration.after_reward else step)
        self.policy.horizon = self.schedule.horizon_at(step)
        self.policy.exploration_std = self.exploration.std_at(progress)
        self.policy.exploration = self.exploration
        self._free_plans(step)

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "run",
        progress_bar: bool = False,
    ) -> Any:
        if not self._step_is_stored:
            # A callback ended the last run between a step and its storing: the environment is ahead of _last_obs.
            self._last_obs, self._step_is_stored = None, True
        if reset_num_timesteps or self._last_obs is None:
            # The environment is about to be reset: what is stored next does not follow from what was stored last.
            assert isinstance(self.replay_buffer, SequenceSampling)
            self.replay_buffer.end_episodes()
            self._plan_state = self._plan_restart = self._tensor_plan = None
        prepared = super()._setup_learn(total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar)
        assert self._last_obs is not None
        check_finite_observation(self._last_obs, self.observation_space, batched=True)
        return prepared

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        assert isinstance(self.action_space, spaces.Box)
        assert self._last_obs is not None
        noise = self._correlated_noise(learning_starts, (n_envs, *self.action_space.shape))
        if self._acts_as_cloned(learning_starts):
            cloned = self._cloned_action(self.policy.obs_to_tensor(self._last_obs)[0], noise)
            scaled = cloned.cpu().numpy().reshape(-1, *self.action_space.shape)
        elif self.num_timesteps < learning_starts:
            random = np.array([self.action_space.sample() for _ in range(n_envs)])
            scaled = self.policy.scale_action(random) if noise is None else noise.clip(-1, 1)
        else:
            self._schedule_step = self.num_timesteps
            self._move_schedules()
            action, self._plan_state = self.policy.predict(
                self._last_obs, self._plan_state, self._plan_restart, deterministic=noise is not None
            )
            scaled = self.policy.scale_action(action)
            if noise is not None:
                scaled = np.clip(scaled + self.policy.exploration_std * noise, -1, 1)
        if action_noise is not None:
            scaled = np.clip(scaled + action_noise(), -1, 1)
        self._step_is_stored = False
        return self.policy.unscale_action(scaled), scaled

    def _store_transition(
        self,
        replay_buffer: ReplayBuffer,
        buffer_action: np.ndarray,
        new_obs: np.ndarray | dict[str, np.ndarray],
        reward: np.ndarray,
        dones: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        check_finite_transition(new_obs, reward, infos, self.observation_space)
        self._note_step(reward, dones, infos)
        self._plan_restart = np.array(dones, dtype=bool)
        super()._store_transition(replay_buffer, buffer_action, new_obs, reward, dones, infos)
        self._step_is_stored = True

    def train(self, gradient_steps: int, batch_size: int = 256) -> None:
        """
        Update model, prior and Q-tilde on replayed windows.

        :param gradient_steps: number of updates
        :param batch_size: windows per update
        """
        self.policy.set_training_mode(True)
        self._update_learning_rate([getattr(self.policy, name) for name in self.optimizers])
        if self.exploration.catch_up and self._n_updates == 0:
            gradient_steps += self.num_timesteps
        priorities = LateResults(self._update_priorities)  # on a GPU one update late
        for _ in range(gradient_steps):
            batch = self._sample_windows(batch_size)
            self._n_updates += 1
            with out_of_memory_explained(batch_size=batch_size, pg_batch_size=self.update_settings.pg_batch_size):
                priorities.put(batch.indices, self._updater.update(batch, self._n_updates))
        priorities.settle()
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def dump_logs(self) -> None:
        """Write the log; training terms are means over the updates since the last time."""
        for name, value in self._updater.means.pop().items():
            self.logger.record(f"train/{name}", value)
        self.logger.record("rollout/horizon", self.policy.horizon)
        self.logger.record("rollout/exploration_std", self.policy.exploration_std)
        super().dump_logs()

    def load_replay_buffer(self, path: str | pathlib.Path | io.BufferedIOBase, truncate_last_traj: bool = True) -> None:
        """See the parent; also refuses a replay that cannot be asked for windows."""
        super().load_replay_buffer(path, truncate_last_traj)
        assert isinstance(self.replay_buffer, SequenceSampling)
        if truncate_last_traj:
            self.replay_buffer.end_episodes()

    def _check_replay(self, replay: ReplayBuffer) -> None:
        check_buffer_class(type(replay))
        super()._check_replay(replay)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_updater", "_plan_state", "_plan_restart", "_tensor_plan"]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", *(f"policy.{name}" for name in self.optimizers)], []
