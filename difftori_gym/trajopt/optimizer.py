"""The one call of this package: an objective and a start in, a solution out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal

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


@dataclass(frozen=True)
class TrajectoryOptimizer:
    """
    Settings of a trajectory optimiser, and the call that runs it.

        optimizer = TrajectoryOptimizer(solver="lm", max_iterations=20)
        solution = optimizer(objective, actions)

    Every sample of a batch is a problem of its own: solving ``B`` of them together equals solving each alone.

    :param solver: ``"lm"`` closed-form Levenberg-Marquardt; ``"theseus"`` the same iteration by Theseus (the extra
        ``difftori-gym[theseus]``); ``"gradient"`` projected gradient ascent with a step of its own for each sample;
        ``"adam"`` the same with momentum and shrinking steps, which also closes in on creases;
        ``"newton"`` with the exact Hessian in a trust region; ``"mppi"`` and ``"cem"`` sampling, not differentiable;
        or a solver of your own, a function ``(objective, actions, settings) -> Solution`` (docs/solvers.md)
    :param max_iterations: iterations of the solver, at least 0 (then the start is the answer)
    :param step_size: positive; factor on each step (lm, theseus), or how far the first step moves the steepest action,
        later ones being as long as pays off (gradient)
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
        zero, and random ones (all but mppi and cem)
    :param num_samples: sequences valued per iteration (mppi, cem)
    :param num_elites: best sequences the distribution is refitted to (mppi, cem)
    :param temperature: inverse temperature of the elites' weights (mppi)
    :param momentum: share of the old mean kept at each refit, in [0, 1) (mppi, cem)
    :param min_std: least standard deviation of the samples (mppi, cem)
    :param max_std: initial and greatest standard deviation (mppi, cem)
    :raises ValueError: for a setting outside its range, naming the setting, the range and the value
    """

    solver: Solver = "lm"
    max_iterations: int = 10
    step_size: float = 1e-3
    damping: float = 0.5
    adaptive_damping: bool = False
    residual_offset: float = 1000.0
    bounds: Bounds | None = "project"
    wall_gradient: WallGradient = "exact"
    backward_mode: BackwardMode = "truncated"
    backward_num_iterations: int = 5
    stationarity_tolerance: float = 1e-3
    num_starts: int = 1
    num_samples: int = 512
    num_elites: int = 64
    temperature: float = 0.5
    momentum: float = 0.1
    min_std: float = 0.05
    max_std: float = 2.0

    def __post_init__(self) -> None:
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
            graph, used wherever no graph is needed, and ``differentiable_value_and_gradient``: the same with a graph
            that can be differentiated once, or None. It may offer ``repeat``: n -> the same objective for n copies of
            the batch, one after the other, ``[n * B, H, A]`` -> ``[n * B]``; then several starts are solved as one
            batch.
        :param actions: start ``[B, H, A]``, in [-1, 1] unless ``bounds=None`` (on a CPU this is checked); for
            ``backward_mode="unroll"`` the solution is differentiable in it too
        :param candidates: further sequences ``[N, B, H, A]``: for a sampling solver beside its draws, for the others
            further starts, where an entry that is not finite is taken from ``actions``
        :param generator: randomness of a sampling solver, and of random starts
        :return: the solution; numbers that are not finite are data (``num_failed``), never an exception
        :raises ValueError: if ``actions`` or the objective's values have another shape or dtype, if the objective
            does not depend on the actions, if ``candidates`` have another shape or dtype, or if a start lies outside
            the box; nan, infinities and numbers from 1e6 on are data there too
        """
        check_start(actions, self.bounds)
        if candidates is not None:
            check_candidates(candidates, actions, self.bounds)
        checked = CheckedObjective(objective)
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
        :param changes: settings by name
        :return: a copy with these settings
        """
        return TrajectoryOptimizer(**{**{f.name: getattr(self, f.name) for f in fields(self)}, **changes})
