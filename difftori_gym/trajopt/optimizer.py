"""The one call of this package: an objective and a start in, a solution out."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from difftori_gym.trajopt import adam, cem, implicit, levenberg_marquardt, mppi, multi_start, newton
from difftori_gym.trajopt.objective import CheckedObjective, FastObjective, Objective
from difftori_gym.trajopt.settings import SAMPLING_SOLVERS, Settings
from difftori_gym.trajopt.solution import Solution
from difftori_gym.trajopt.validation import check_candidates, check_solution, check_start


def _theseus(objective: FastObjective, actions: Tensor, settings: Settings) -> Solution:
    from difftori_gym.trajopt import theseus_backend  # an optional package, and seconds to import

    return theseus_backend.solve(objective, actions, settings)


SOLVERS: dict[str, Callable[..., Solution]] = {
    "lm": levenberg_marquardt.solve,
    "theseus": _theseus,
    "adam": adam.solve,
    "newton": newton.solve,
    "mppi": mppi.solve,
    "cem": cem.solve,
}


class TrajectoryOptimizer(Settings):
    """
    A trajectory optimiser: its :class:`~difftori_gym.trajopt.Settings`, which are its arguments, and the call.

        optimizer = TrajectoryOptimizer()
        solution = optimizer(objective, actions)

    Every sample of a batch is a problem of its own: solving ``B`` of them together equals solving each alone.

    The default, ``"adam"`` from six starts, is what reaches most in least time (benchmarks/README.md, trained models).
    DiffTORI trains with the paper's ``"lm"`` and few iterations, which stay close to the policy prior: what is
    optimised further is also what a model that is still being learned has wrong (docs/results.md).
    """

    def __call__(
        self,
        objective: Objective,
        actions: Tensor,
        *,
        candidates: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Solution:
        """
        Maximise ``objective`` from ``actions``.

        :param objective: action sequences ``[B, H, A]`` -> values ``[B]``, each value depending on its own sample only;
            it may offer more, see :class:`~difftori_gym.trajopt.FastObjective`
        :param actions: start ``[B, H, A]``, in [-1, 1] unless ``bounds=None`` (on a CPU this is checked); for
            ``backward_mode="unroll"`` the solution is differentiable in it too
        :param candidates: further sequences ``[N, B, H, A]``: for a sampling solver beside its draws, for the others
            further starts, where an entry that is not finite is taken from ``actions``
        :param generator: randomness of a sampling solver, and of random starts, which without one are always the same
        :return: the solution; numbers that are not finite are data (``num_failed``), never an exception
        :raises ValueError: if ``actions`` or the objective's values have another shape or dtype, if the objective
            does not depend on the actions, if ``candidates`` have another shape or dtype, or if a start lies outside
            the box; nan, infinities and numbers from 1e6 on are data there too
        """
        check_start(actions, self.bounds)
        if candidates is not None:
            check_candidates(candidates, actions, self.bounds)
        checked = CheckedObjective(objective)
        settings = sized(self, actions.shape[1:].numel()) if self.max_iterations is None else self
        if settings.solver in SAMPLING_SOLVERS:
            return SOLVERS[str(settings.solver)](checked, actions, settings, candidates, generator)
        if settings.backward_mode == "implicit":
            solution = settings.replace(backward_mode="none")._solve(checked, actions, candidates, generator)
            return implicit.differentiate(checked, solution, settings)
        return settings._solve(checked, actions, candidates, generator)

    def _solve(
        self, objective: FastObjective, actions: Tensor, candidates: Tensor | None, generator: torch.Generator | None
    ) -> Solution:
        solver = SOLVERS[self.solver] if isinstance(self.solver, str) else _own_solver
        if self.num_starts == 1 and candidates is None:
            return solver(objective, actions, self)
        starts = multi_start.gather_starts(actions, candidates, self.num_starts, generator, self.bounds)
        return multi_start.solve(solver, objective, starts, self)


def _own_solver(objective: FastObjective, actions: Tensor, settings: Settings) -> Solution:
    assert not isinstance(settings.solver, str)
    return check_solution(settings.solver(objective, actions, settings), actions)


@functools.lru_cache(maxsize=256)
def sized(settings: TrajectoryOptimizer, n: int) -> TrajectoryOptimizer:
    """The settings with as many iterations as ``n`` unknowns ask for."""
    return settings.replace(max_iterations=8 + round(3.1 * math.sqrt(n)))
