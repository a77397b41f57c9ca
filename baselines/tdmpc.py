"""TD-MPC (Hansen et al. 2022, arXiv 2203.04955): the same latent model and training, planned with MPPI."""

from __future__ import annotations

from typing import Any, ClassVar

from stable_baselines3.common.type_aliases import GymEnv, Schedule

from ..learning import refuse_renamed, split_planner_kwargs
from ..rl import DiffTORI, DiffTORIPolicy
from ..rl.planning import Planner
from ..trajopt.settings import SAMPLING_SOLVERS

_OPTIMIZER: dict[str, Any] = dict(
    solver="mppi",
    max_iterations=6,
    backward_mode="none",
    num_samples=512,
    num_elites=64,
    temperature=0.5,
    momentum=0.1,
    max_std=2.0,
)
_PLANNER: dict[str, Any] = dict(init="warm", mixture_coef=0.05, horizon_initial=1)


class TDMPC(DiffTORI):
    """
    TD-MPC as a Stable-Baselines3 algorithm.

    Model, losses, replay and schedules are :class:`~difftori_gym.rl.DiffTORI`'s, without the policy-gradient loss and
    Q-tilde; the planner is MPPI through the same seam. A comparison with DiffTORI isolates the planner.

    Further keyword arguments are those of :class:`~difftori_gym.rl.DiffTORI`, except the settings of its solver and
    of its policy-gradient loss; ``exploration_kwargs`` begin with ``final_std=0.05``.

    :param policy: as in DiffTORI
    :param env: as in DiffTORI
    :param learning_rate: of both optimizers
    :param planner_kwargs: how it plans, settings of :class:`~difftori_gym.trajopt.TrajectoryOptimizer` for ``"mppi"``
        (here ``max_iterations=6`` refits of ``num_samples=512`` sequences to ``num_elites=64``, ``temperature=0.5``,
        ``momentum=0.1``, ``max_std=2.0``, ``min_std`` the final exploration noise) or ``"cem"``, and
        ``mixture_coef=0.05``, the share of the sequences that are noisy rollouts of the policy prior, ``init="warm"``,
        the initial mean: as in TD-MPC the previous one shifted by one step
    :raises ValueError: also for another kind of solver, or settings of a policy-gradient loss
    """

    algorithm: ClassVar[str] = "TDMPC"
    exploration_defaults: ClassVar[dict[str, Any]] = dict(final_std=0.05)

    def __init__(
        self,
        policy: str | type[DiffTORIPolicy],
        env: GymEnv | str | None = None,
        learning_rate: float | Schedule = 1e-3,
        *,
        planner_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        refused = sorted(name for name in kwargs if name.startswith("pg_"))
        if refused:
            raise ValueError(f"TDMPC has no policy-gradient loss: remove {refused}.")
        moved = {name: value for name, value in kwargs.items() if name in {**_OPTIMIZER, **_PLANNER}}
        refuse_renamed(moved, own=_PLANNER, whose=self.algorithm)
        super().__init__(policy, env, learning_rate, planner_kwargs=planner_kwargs, pg_coef=0.0, **kwargs)

    def _make_planner(self) -> tuple[Planner, int]:
        defaults = {**_OPTIMIZER, "min_std": self.exploration.final_std}
        optimizer, own = split_planner_kwargs(
            self.planner_kwargs, defaults=defaults, own=_PLANNER, whose=self.algorithm
        )
        if optimizer.solver not in SAMPLING_SOLVERS:
            raise ValueError(
                f"TDMPC plans by sampling, with solver 'mppi' or 'cem', got {optimizer.solver!r}: use DiffTORI."
            )
        num_prior_samples = int(own.pop("mixture_coef") * optimizer.num_samples)
        horizon_initial = own.pop("horizon_initial")
        return Planner(optimizer, discount=self.gamma, num_prior_samples=num_prior_samples, **own), horizon_initial
