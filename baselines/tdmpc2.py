"""TD-MPC2 (Hansen, Su and Wang 2024, arXiv 2310.16828), for a single task with continuous actions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.common.vec_env import VecEnv
from torch.optim import Optimizer

from ..learning import refuse_renamed, split_planner_kwargs
from ..rl import DiffTORI
from ..rl.planning import Planner
from ..trajopt.settings import SAMPLING_SOLVERS
from .tdmpc2_planning import TDMPC2Planner
from .tdmpc2_policies import TDMPC2CnnPolicy, TDMPC2MultiInputPolicy, TDMPC2Policy
from .tdmpc2_update import TDMPC2Settings, TDMPC2Updater

_OPTIMIZER: dict[str, Any] = dict(
    solver="mppi",
    backward_mode="none",
    num_samples=512,
    num_elites=64,
    temperature=0.5,
    momentum=0.0,
    min_std=0.05,
    max_std=2.0,
)
_PLANNER: dict[str, Any] = dict(num_prior_samples=24, horizon_initial=None)
_UNIFORM: dict[str, Any] = dict(priority_exponent=0.0, importance_exponent=0.0)
_EPISODE_LENGTH = 500


class TDMPC2(DiffTORI):
    """
    TD-MPC2 as a Stable-Baselines3 algorithm, with the hyper-parameters of its released code.

    Collection, replay, files and the call of the planner are :class:`~difftori_gym.rl.DiffTORI`'s. Networks, losses,
    targets, the policy prior and what MPPI maximises are TD-MPC2's.

    Further keyword arguments are those of :class:`~difftori_gym.rl.DiffTORI`, except the settings of its
    policy-gradient loss and ``target_policy_noise``. ``replay_buffer_kwargs`` begin with ``priority_exponent=0.0,
    importance_exponent=0.0``: windows are drawn uniformly. ``exploration_kwargs`` begin with ``initial_std=0.05,
    final_std=0.05, catch_up=True``: what is drawn from MPPI is all of the noise, and the first update is preceded by as
    many as there were agent steps.

    :param policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"`` or a subclass of
        :class:`~difftori_gym.baselines.tdmpc2_policies.TDMPC2Policy`
    :param env: as in DiffTORI
    :param learning_rate: of both optimizers; the encoder has 0.3 of it
    :param learning_starts: agent steps of uniformly random actions; None for five episodes, at least 1000
    :param gamma: discount; None for that of the episode's length T, 1 - 5 / T within [0.95, 0.995]
    :param gradient_steps: updates each time; -1 for as many as steps were collected
    :param horizon: steps that are planned, and transitions in a training window
    :param episode_length: T, agent steps of an episode; None for what the environment's ``spec`` tells, and 500, as in
        the control suite with every action repeated once, if it tells nothing
    :param planner_kwargs: how it plans, settings of :class:`~difftori_gym.trajopt.TrajectoryOptimizer` for ``"mppi"``
        (here ``max_iterations=6``, 8 from 20 dimensions of the action on, ``num_samples=512``, ``num_elites=64``,
        ``temperature=0.5``, ``momentum=0.0``, ``min_std=0.05``, ``max_std=2.0``) or ``"cem"``, and
        ``num_prior_samples=24``, rollouts of the policy prior among the samples, and ``horizon_initial``, steps planned
        at the start, None for ``horizon``
    :param reward_coef: weight of the cross-entropy of the reward; 0 switches a loss off, here and below
    :param value_coef: weight of the cross-entropy of the values
    :param consistency_coef: weight of the latent dynamics loss
    :param entropy_coef: weight of the policy prior's entropy
    :param max_grad_norm: norm that gradients are clipped to
    :param target_update_interval: updates between two steps of the moving average of the values
    :raises ValueError: also for another kind of solver, or settings of a policy-gradient loss
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": TDMPC2Policy,
        "CnnPolicy": TDMPC2CnnPolicy,
        "MultiInputPolicy": TDMPC2MultiInputPolicy,
    }
    algorithm: ClassVar[str] = "TDMPC2"
    exploration_defaults: ClassVar[dict[str, Any]] = dict(initial_std=0.05, final_std=0.05, catch_up=True)
    updater_class: ClassVar[type[Any]] = TDMPC2Updater
    optimizers: ClassVar[tuple[str, ...]] = ("optimizer", "pi_optimizer")

    def __init__(
        self,
        policy: str | type[TDMPC2Policy],
        env: GymEnv | str | None = None,
        learning_rate: float | Schedule = 3e-4,
        *,
        learning_starts: int | None = None,
        gamma: float | None = None,
        gradient_steps: int = -1,
        horizon: int = 3,
        episode_length: int | None = None,
        planner_kwargs: dict[str, Any] | None = None,
        reward_coef: float = 0.1,
        value_coef: float = 0.1,
        consistency_coef: float = 20.0,
        entropy_coef: float = 1e-4,
        max_grad_norm: float = 20.0,
        target_update_interval: int = 1,
        _init_setup_model: bool = True,
        **kwargs: Any,
    ) -> None:
        refused = sorted(name for name in kwargs if name.startswith("pg_") or name == "imitation_coef")
        if refused:
            raise ValueError(f"TDMPC2 has no policy-gradient loss: remove {refused}.")
        moved = {name: value for name, value in kwargs.items() if name in {**_OPTIMIZER, **_PLANNER}}
        refuse_renamed(moved, own=_PLANNER, whose=self.algorithm)
        env = self._checked_env(env, kwargs.get("verbose", 0))
        self.episode_length = _episode_length(env) if episode_length is None else episode_length
        if not self.episode_length >= 1:
            raise ValueError(f"TDMPC2 needs episode_length >= 1, got {episode_length!r}.")
        super().__init__(
            policy,
            env,
            learning_rate,
            learning_starts=max(1000, 5 * self.episode_length) if learning_starts is None else learning_starts,
            gamma=min(max(1.0 - 5.0 / self.episode_length, 0.95), 0.995) if gamma is None else gamma,
            gradient_steps=gradient_steps,
            horizon=horizon,
            planner_kwargs=planner_kwargs,
            reward_coef=reward_coef,
            value_coef=value_coef,
            consistency_coef=consistency_coef,
            max_grad_norm=max_grad_norm,
            target_update_interval=target_update_interval,
            pg_coef=0.0,
            _init_setup_model=False,
            **kwargs,
        )
        self.update_settings = TDMPC2Settings(**vars(self.update_settings), entropy_coef=entropy_coef)
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        self._settled = False
        self.replay_buffer_kwargs = {**_UNIFORM, **(self.replay_buffer_kwargs or {})}
        super()._setup_model()

    def _make_planner(self) -> tuple[Planner, int]:
        space = getattr(self, "action_space", None)
        iterations = 8 if space is not None and get_action_dim(space) >= 20 else 6
        optimizer, own = split_planner_kwargs(
            self.planner_kwargs,
            defaults=dict(_OPTIMIZER, max_iterations=iterations),
            own=_PLANNER,
            whose=self.algorithm,
        )
        if optimizer.solver not in SAMPLING_SOLVERS:
            raise ValueError(
                f"TDMPC2 plans by sampling, with solver 'mppi' or 'cem', got {optimizer.solver!r}: use DiffTORI."
            )
        horizon_initial = own.pop("horizon_initial")
        if own["num_prior_samples"] >= optimizer.num_samples:
            raise ValueError(
                f"TDMPC2 needs num_prior_samples below num_samples={optimizer.num_samples}, which they are among, got "
                f"{own['num_prior_samples']!r}."
            )
        return TDMPC2Planner(optimizer, discount=self.gamma, **own), horizon_initial or self.horizon

    def _gather_settings(self) -> None:
        if self.target_policy_noise is not None:
            raise ValueError(
                f"TDMPC2 draws the actions in its targets from the policy prior: remove target_policy_noise, got "
                f"{self.target_policy_noise!r}."
            )
        super()._gather_settings()
        if self.planner_kwargs.get("horizon_initial") is None:
            self.schedule = replace(self.schedule, horizon_initial=self.horizon)

    def _update_learning_rate(self, optimizers: list[Optimizer] | Optimizer) -> None:
        super()._update_learning_rate(optimizers)
        for optimizer in [optimizers] if isinstance(optimizers, Optimizer) else optimizers:
            for group in optimizer.param_groups:
                group["lr"] *= group.get("lr_scale", 1.0)


def _episode_length(env: GymEnv | None) -> int:
    """Of the environment's time limit, if it tells one."""
    try:
        spec: Any = env.get_attr("spec", 0)[0] if isinstance(env, VecEnv) else getattr(env, "spec", None)
    except AttributeError:
        spec = None
    return getattr(spec, "max_episode_steps", None) or _EPISODE_LENGTH
