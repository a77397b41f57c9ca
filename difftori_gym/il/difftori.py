"""DiffTORI for imitation learning, as a Stable-Baselines3 algorithm."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

from stable_baselines3.common.type_aliases import GymEnv, Schedule

from difftori_gym.il.demonstrations import Demonstrations
from difftori_gym.il.difftori_network import DiffTORINetwork, Init, ObjectiveName
from difftori_gym.il.learner import ImitationAlgorithm
from difftori_gym.il.policies import ImitationPolicy, NoiseLifetime, aliases_of
from difftori_gym.il.schedules import CosineSchedule
from difftori_gym.learning import refuse_renamed, split_planner_kwargs
from difftori_gym.trajopt import TrajectoryOptimizer
from difftori_gym.trajopt.settings import SAMPLING_SOLVERS, Solver

_OPTIMIZER: dict[str, Any] = dict(
    solver="lm",
    max_iterations=10,
    step_size=1e-3,
    damping=1.0,
    bounds="project",
    wall_gradient="inward",
    backward_mode="truncated",
    backward_num_iterations=5,
    num_starts=1,
)
_PLANNER: dict[str, Any] = dict(init="base_policy")


class DiffTORIImitationPolicy(ImitationPolicy):
    """
    Arguments that are not listed here are those of :class:`DiffTORIImitation` and of
    - ``trajectory_optimizer``: the solver and its settings
    - ``net_arch``: hidden sizes of posterior, score and dynamics
    - ``activation_fn``: activation of the hidden layers

    :class:`~difftori_gym.il.policies.ImitationPolicy`.

    :param init: start of the optimisation, ``"base_policy"``, ``"zero"`` or ``"random"``
    :raises ValueError: also for ``init="base_policy"`` without one
    """

    network_class = DiffTORINetwork

    def __init__(self, *args: Any, init: Init = "zero", **kwargs: Any) -> None:
        if init == "base_policy" and kwargs.get("base") is None:
            raise ValueError("DiffTORIImitationPolicy needs base= for init='base_policy', got None.")
        super().__init__(*args, init=init, **kwargs)


class DiffTORIImitation(ImitationAlgorithm):
    """
    A conditional variational autoencoder whose decoder is a trajectory optimiser (Wan et al. 2024, arXiv 2402.05421).

    A posterior encodes the demonstrated actions into a latent; the decoder maximises a learned objective of
    observations, latent and actions, started from a base policy; the squared error of its result is back-propagated
    through the solver. When acting, the latent is drawn from the prior.

    Sizes, window, learning rate and loss weights are those of the released MetaWorld code.
    The settings of the solver are ours, see docs/imitation.md. Further keyword arguments are those of
    :class:`~difftori_gym.il.learner.ImitationAlgorithm`.

    :param policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"`` or a subclass of its policy
    :param env: environment, the id of a registered one, or None
    :param demonstrations: what to learn from
    :param base_policy: any imitation learner or policy of the same environment, for ``init="base_policy"``
    :param learning_rate: a number, or a function of the remaining progress
    :param batch_size: windows per gradient step
    :param n_obs_steps: observations a plan is a function of
    :param horizon: planned actions H, at least 1
    :param n_action_steps: how many of them are executed before the next plan
    :param objective: ``"chunk"`` one network scores the sequence (released code), ``"latent"`` a score per step under
        learned latent dynamics (paper)
    :param latent_dim: size of the latent; 0 switches it off
    :param num_latents: latents tried per plan, of which the best objective is kept
    :param noise_lifetime: whether a latent is drawn once an ``"episode"`` or per ``"chunk"``
    :param planner_kwargs: how it plans: ``init``, the start, ``"base_policy"``, ``"zero"`` or ``"random"``, and
        settings of :class:`~difftori_gym.trajopt.TrajectoryOptimizer`, whose solver must be differentiable. Here
        ``solver="lm", max_iterations=10, step_size=1e-3, damping=1.0, bounds="project"``; ``wall_gradient="inward"``,
        a surrogate that lets the loss pull actions off the walls of the box; and ``backward_mode="truncated"`` with
        ``backward_num_iterations=5``, how the loss is differentiated through the solver.
    :param discount: per-step discount of the ``"latent"`` objective
    :param start_noise: standard deviation of noise on the start in training
    :param action_coef: weight of the squared error
    :param kl_coef: weight beta of the divergence
    :param ema_decay: greatest decay of the moving average of the weights that acts; None: the trained weights act
    :raises ValueError: for spaces, windows, settings, demonstrations or a base policy that do not fit
    """

    algorithm: ClassVar[str] = "DiffTORIImitation"
    policy_settings = (
        *ImitationAlgorithm.policy_settings,
        *("objective", "latent_dim", "num_latents", "discount", "start_noise", "action_coef", "kl_coef"),
    )
    records: ClassVar[tuple[str, ...]] = ("trajectory_optimizer",)
    policy_aliases = aliases_of(DiffTORIImitationPolicy)

    def __init__(
        self,
        policy: str | type[DiffTORIImitationPolicy],
        env: GymEnv | str | None = None,
        demonstrations: Demonstrations | None = None,
        *,
        base_policy: ImitationAlgorithm | ImitationPolicy | None = None,
        learning_rate: float | Schedule = CosineSchedule(1e-4, final=1e-6),
        batch_size: int = 128,
        n_obs_steps: int = 2,
        horizon: int = 4,
        n_action_steps: int = 3,
        objective: ObjectiveName = "chunk",
        latent_dim: int = 64,
        num_latents: int = 1,
        noise_lifetime: NoiseLifetime = "episode",
        planner_kwargs: dict[str, Any] | None = None,
        discount: float = 0.99,
        start_noise: float = 0.0,
        action_coef: float = 3000.0,
        kl_coef: float = 10.0,
        ema_decay: float | None = 0.9999,
        **kwargs: Any,
    ) -> None:
        known = inspect.signature(ImitationAlgorithm).parameters
        unknown = {name: value for name, value in kwargs.items() if name not in known}
        refuse_renamed(unknown, own=_PLANNER, whose=self.algorithm)
        self.planner_kwargs = {} if planner_kwargs is None else planner_kwargs
        init = self._planner()[1]
        self.objective = objective
        self.latent_dim, self.num_latents = latent_dim, num_latents
        self.discount, self.start_noise = discount, start_noise
        self.action_coef, self.kl_coef = action_coef, kl_coef
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
            noise_lifetime=noise_lifetime,
            base_policy=base_policy if init == "base_policy" else None,
            **kwargs,
        )

    def _planner(self) -> tuple[TrajectoryOptimizer, Init]:
        """The optimiser and the start that ``planner_kwargs`` ask for."""
        optimizer, own = split_planner_kwargs(
            self.planner_kwargs, defaults=_OPTIMIZER, own=_PLANNER, whose=self.algorithm
        )
        return optimizer, own["init"]

    def _setup_model(self) -> None:
        optimizer, init = self._planner()
        _check_settings(self.objective, init, optimizer.solver, self.latent_dim, self.num_latents)
        if init == "base_policy" and self.base_spec is None:
            raise ValueError(
                "DiffTORIImitation needs a base policy for init='base_policy', got None: pass base_policy=, any "
                "trained imitation learner of the same environment, or choose planner_kwargs=dict(init='zero') or "
                "'random'."
            )
        if init != "base_policy":
            self.base_spec = None  # a loaded one would be carried along unused
        super()._setup_model()

    def _policy_settings(self) -> dict[str, Any]:
        optimizer, init = self._planner()
        return {**super()._policy_settings(), "trajectory_optimizer": optimizer, "init": init}


def _check_settings(objective: str, init: str, solver: Solver, latent_dim: int, num_latents: int) -> None:
    for name, value, choices in (
        ("objective", objective, ("chunk", "latent")),
        ("init", init, ("base_policy", "zero", "random")),
    ):
        if value not in choices:
            raise ValueError(f"DiffTORIImitation needs {name} to be one of {', '.join(choices)}, got {value!r}.")
    if solver in SAMPLING_SOLVERS:
        raise ValueError(
            f"DiffTORIImitation learns through its solver and needs a differentiable one, got {solver!r}: "
            "use 'lm', 'adam', 'newton' or 'theseus'."
        )
    if latent_dim < 0 or num_latents < 1:
        raise ValueError(
            f"DiffTORIImitation needs latent_dim >= 0 and num_latents >= 1, got {latent_dim} and {num_latents}."
        )
