"""TD-MPC (Hansen et al. 2022, arXiv 2203.04955): the same latent model and training, planned with MPPI."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from stable_baselines3.common.type_aliases import GymEnv, Schedule

from difftori_gym.rl import DiffTORI, DiffTORIPolicy
from difftori_gym.rl.planning import Init
from difftori_gym.trajopt import TrajectoryOptimizer


class TDMPC(DiffTORI):
    """
    TD-MPC as a Stable-Baselines3 algorithm.

    Model, losses, replay and schedules are :class:`~difftori_gym.rl.DiffTORI`'s, without the policy-gradient loss and
    Q-tilde; the planner is MPPI through the same seam. A comparison with DiffTORI isolates the planner.

    Further keyword arguments are those of :class:`~difftori_gym.rl.DiffTORI`, except the settings of its solver and
    of its policy-gradient loss.

    :param policy: as in DiffTORI
    :param env: as in DiffTORI
    :param learning_rate: of both optimizers
    :param max_iterations: refits of the sampling distribution per plan
    :param num_samples: sequences valued per refit
    :param num_elites: best sequences it is refitted to
    :param mixture_coef: share of the sequences that are noisy rollouts of the policy prior
    :param temperature: inverse temperature of the elites' weights
    :param momentum: share of the old mean kept at each refit
    :param max_std: initial and greatest standard deviation of the samples
    :param init: initial mean; ``"warm"`` as in TD-MPC is the previous mean shifted by one step
    """

    algorithm: ClassVar[str] = "TDMPC"

    def __init__(
        self,
        policy: str | type[DiffTORIPolicy],
        env: GymEnv | str | None = None,
        learning_rate: float | Schedule = 1e-3,
        *,
        max_iterations: int = 6,
        num_samples: int = 512,
        num_elites: int = 64,
        mixture_coef: float = 0.05,
        temperature: float = 0.5,
        momentum: float = 0.1,
        max_std: float = 2.0,
        init: Init = "warm",
        exploration_final_std: float = 0.05,
        _init_setup_model: bool = True,
        **kwargs: Any,
    ) -> None:
        refused = sorted(name for name in kwargs if name.startswith("pg_") or name in _SOLVER_SETTINGS)
        if refused:
            raise ValueError(f"TDMPC has neither a gradient-based solver nor a policy-gradient loss: remove {refused}.")
        super().__init__(
            policy,
            env,
            learning_rate,
            init=init,
            exploration_final_std=exploration_final_std,
            pg_coef=0.0,
            _init_setup_model=False,
            **kwargs,
        )
        optimizer = TrajectoryOptimizer(
            solver="mppi",
            max_iterations=max_iterations,
            backward_mode="none",
            num_samples=num_samples,
            num_elites=num_elites,
            temperature=temperature,
            momentum=momentum,
            min_std=exploration_final_std,
            max_std=max_std,
        )
        self.planner = replace(self.planner, optimizer=optimizer, num_prior_samples=int(mixture_coef * num_samples))
        if _init_setup_model:
            self._setup_model()


_SOLVER_SETTINGS = frozenset(
    {"solver", "step_size", "damping", "bounds", "wall_gradient", "backward_mode", "backward_num_iterations"}
)
