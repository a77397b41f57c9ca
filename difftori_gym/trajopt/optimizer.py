"""The one call of this package: an objective and a start in, a solution out."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal, cast

import torch
from torch import Tensor

from difftori_gym.trajopt import adam, cem, gradient, implicit, levenberg_marquardt, mppi, multi_start, newton
from difftori_gym.trajopt.solution import BackwardMode, Bounds, Objective, Solution, Solve, WallGradient
from difftori_gym.trajopt.validation import (
    CheckedObjective,
    check_candidates,
    check_settings,
    check_solution,
    check_start,
)

SolverName = Literal["lm", "theseus", "gradient", "adam", "newton", "mppi", "cem"]
Solver = SolverName | Solve


def _theseus(objective: Objective, actions: Tensor, settings: TrajectoryOptimizer) -> Solution:
    from difftori_gym.trajopt import theseus_backend  # an optional package, and seconds to import

    return theseus_backend.solve(objective, actions, settings)


SOLVERS: dict[str, Callable[..., Solution]] = {
    "lm": levenberg_marquardt.solve,
    "theseus": _theseus,
    "gradient": gradient.solve,
    "adam": adam.solve,
    "newton": newton.solve,
    "mppi": mppi.solve,
    "cem": cem.solve,
}
SAMPLING_SOLVERS = frozenset({"mppi", "cem"})

# Settings that are left out, where they differ from lm's.
SOLVER_DEFAULTS: dict[str, dict[str, float | None]] = {
    "gradient": dict(max_iterations=None, step_size=0.1),
    "adam": dict(max_iterations=None, step_size=0.5, num_starts=6),
    "newton": dict(max_iterations=5),
    "mppi": dict(max_iterations=6),
    "cem": dict(max_iterations=6),
}
OTHERWISE: dict[str, float | None] = dict(max_iterations=10, step_size=1e-3, num_starts=1)


@dataclass(frozen=True)
class TrajectoryOptimizer:
    """
    Settings of a trajectory optimiser, and the call that runs it.

        optimizer = TrajectoryOptimizer()
        solution = optimizer(objective, actions)

    Every sample of a batch is a problem of its own: solving ``B`` of them together equals solving each alone.

    The default, ``"adam"`` from six starts, is what reaches most in least time (benchmarks/README.md, trained models).
    DiffTORI trains with the paper's ``"lm"`` and few iterations, which stay close to the policy prior: what is
    optimised further is also what a model that is still being learned has wrong (docs/results.md).

    :param solver: ``"adam"`` projected ascent with momentum and shrinking steps, which also closes in on creases;
        ``"lm"`` closed-form Levenberg-Marquardt, the paper's; ``"theseus"`` the same iteration by Theseus (the extra
        ``difftori-gym[theseus]``); ``"gradient"`` projected gradient ascent with a step of its own for each sample;
        ``"newton"`` with the exact Hessian in a trust region; ``"mppi"`` and ``"cem"`` sampling, not differentiable;
        or a solver of your own, a function ``(objective, actions, settings) -> Solution`` (docs/solvers.md)
    :param max_iterations: iterations of the solver, at least 0 (then the start is the answer). Left out, here and
        below, the solver chooses: adam and gradient by the number n = H * A of unknowns, 8 + 3.1 sqrt(n), which is what
        trained models took; lm and theseus 10, newton 5, mppi and cem 6.
    :param step_size: positive; factor on each step (lm, theseus: 1e-3), or how far the first step moves an action: each
        (adam: 0.5), or the steepest one, later steps being as long as pays off (gradient: 0.1)
    :param damping: added to the curvature, positive (lm, theseus)
    :param adaptive_damping: a damping for each sample, which starts at ``damping``, shrinks after a step that improved
        the sample and grows after one that did not, which is taken back (lm)
    :param residual_offset: c of the residual c - objective; must exceed every value the objective can take, or steps
        change their sign (lm, theseus)
    :param bounds: ``None`` leaves iterates free, ``"project"`` keeps every iterate in [-1, 1] and ignores gradient that
        pushes against a wall, ``"clamp"`` shows the objective clamped actions, as DiffTORI's released code does
    :param wall_gradient: derivative of the projection at a wall, see :func:`difftori_gym.trajopt.iterates.project`
    :param backward_mode: ``"unroll"`` differentiates every iteration, ``"truncated"`` the last
        ``backward_num_iterations``, ``"implicit"`` the maximum by the implicit function theorem, ``"none"`` nothing.
        Which one to choose: docs/solvers.md.
    :param backward_num_iterations: iterations that ``"truncated"`` differentiates, at least 1
    :param stationarity_tolerance: greatest distance from a maximum, in units of actions, at which ``"implicit"``
        differentiates a sample, positive
    :param num_starts: starts per sample, of which the best solution is kept, at least 1: the given one, ``candidates``,
        zero, and random ones (all but mppi and cem; adam: 6, else 1)
    :param num_samples: sequences valued per iteration (mppi, cem)
    :param num_elites: best sequences the distribution is refitted to (mppi, cem)
    :param temperature: inverse temperature of the elites' weights (mppi)
    :param momentum: share of the old mean kept at each refit, in [0, 1) (mppi, cem)
    :param min_std: least standard deviation of the samples (mppi, cem)
    :param max_std: initial and greatest standard deviation (mppi, cem)
    :raises ValueError: for a setting outside its range, naming the setting, the range and the value
    """

    solver: Solver = "adam"
    max_iterations: int = cast(int, None)  # chosen below, as the others like it
    step_size: float = cast(float, None)
    damping: float = 0.5
    adaptive_damping: bool = False
    residual_offset: float = 1000.0
    bounds: Bounds | None = "project"
    wall_gradient: WallGradient = "exact"
    backward_mode: BackwardMode = "truncated"
    backward_num_iterations: int = 5
    stationarity_tolerance: float = 1e-3
    num_starts: int = cast(int, None)
    num_samples: int = 512
    num_elites: int = 64
    temperature: float = 0.5
    momentum: float = 0.1
    min_std: float = 0.05
    max_std: float = 2.0

    def __post_init__(self) -> None:
        own = SOLVER_DEFAULTS.get(self.solver, {}) if isinstance(self.solver, str) else {}
        if self.max_iterations == 0:  # the start is the answer, and no other one
            own = {**own, "num_starts": 1}
        for name, value in {**OTHERWISE, **own}.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        check_settings(self, tuple(SOLVERS), SAMPLING_SOLVERS)

    def differentiates(self, index: int) -> bool:
        """
        :param index: iteration, from 0
        :return: whether the backward mode keeps the graph of that iteration
        """
        if self.backward_mode == "truncated":
            return index >= self.max_iterations - self.backward_num_iterations
        return self.backward_mode == "unroll"

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

        :param objective: action sequences ``[B, H, A]`` -> values ``[B]``, each value depending on its own sample only.
            It may offer ``value_and_gradient``: actions -> values ``[B]`` and their gradient ``[B, H, A]`` without a
            graph, used wherever no graph is needed; ``value_only``: actions -> values without a graph, used for the
            last iterate; and ``differentiable_value_and_gradient``: values and gradient with a graph that can be
            differentiated once, or None. It may offer ``repeat``: n -> the same objective for n copies of the batch,
            one after the other, ``[n * B, H, A]`` -> ``[n * B]``; then several starts are solved as one batch.
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
        if self.max_iterations is None:
            return _sized(self, actions.shape[1:].numel())._maximise(checked, actions, candidates, generator)
        return self._maximise(checked, actions, candidates, generator)

    def _maximise(
        self, checked: CheckedObjective, actions: Tensor, candidates: Tensor | None, generator: torch.Generator | None
    ) -> Solution:
        if self.solver in SAMPLING_SOLVERS:
            return SOLVERS[str(self.solver)](checked, actions, self, candidates, generator)
        if self.backward_mode == "implicit":
            solution = self.replace(backward_mode="none")._solve(checked, actions, candidates, generator)
            return implicit.differentiate(checked, solution, self)
        return self._solve(checked, actions, candidates, generator)

    def _solve(
        self, objective: Objective, actions: Tensor, candidates: Tensor | None, generator: torch.Generator | None
    ) -> Solution:
        solver = SOLVERS[self.solver] if isinstance(self.solver, str) else self._own_solver
        if self.num_starts == 1 and candidates is None:
            return solver(objective, actions, self)
        starts = multi_start.gather_starts(actions, candidates, self.num_starts, generator, self.bounds)
        return multi_start.solve(solver, objective, starts, self)

    @staticmethod
    def _own_solver(objective: Objective, actions: Tensor, settings: TrajectoryOptimizer) -> Solution:
        assert not isinstance(settings.solver, str)
        return check_solution(settings.solver(objective, actions, settings), actions)

    def replace(self, **changes: Any) -> TrajectoryOptimizer:
        """
        :param changes: settings by name; what the solver had chosen for itself stays
        :return: a copy with these settings
        """
        return TrajectoryOptimizer(**{**{f.name: getattr(self, f.name) for f in fields(self)}, **changes})


@functools.lru_cache(maxsize=256)
def _sized(settings: TrajectoryOptimizer, n: int) -> TrajectoryOptimizer:
    """:return: the settings with as many iterations as ``n`` unknowns ask for"""
    return settings.replace(max_iterations=8 + round(3.1 * math.sqrt(n)))
