"""The one call of this package: an objective and a start in, a solution out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from difftori_gym.trajopt import cem, gradient, implicit, levenberg_marquardt, mppi, multi_start, newton
from difftori_gym.trajopt.solution import BackwardMode, Bounds, Objective, Solution, WallGradient

Solver = Literal["lm", "theseus", "gradient", "newton", "mppi", "cem"]


def _theseus(objective: Objective, actions: Tensor, settings: TrajectoryOptimizer) -> Solution:
    from difftori_gym.trajopt import theseus_backend  # an optional package, and seconds to import

    return theseus_backend.solve(objective, actions, settings)


SOLVERS: dict[str, Callable[..., Solution]] = {
    "lm": levenberg_marquardt.solve,
    "theseus": _theseus,
    "gradient": gradient.solve,
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
        ``"newton"`` with the exact Hessian in a trust region; ``"mppi"`` and ``"cem"`` sampling, not differentiable
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
        self._check_choice("solver", tuple(SOLVERS))
        self._check_choice("bounds", (None, *get_args(Bounds)))
        self._check_choice("wall_gradient", get_args(WallGradient))
        self._check_choice("backward_mode", get_args(BackwardMode))
        at_least = dict(max_iterations=0, backward_num_iterations=1, num_starts=1, num_samples=1, num_elites=1)
        for name, least in at_least.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
                raise ValueError(f"TrajectoryOptimizer needs an integer {name} >= {least}, got {value!r}.")
            object.__setattr__(self, name, int(value))  # not a numpy scalar, which makes arrays of tensors
        for name in ("step_size", "damping", "stationarity_tolerance", "temperature", "min_std", "max_std"):
            self._check_real(name, "> 0", lambda value: value > 0)
        self._check_real("residual_offset", "above every value", lambda value: True)
        self._check_real("momentum", "in [0, 1)", lambda value: 0 <= value < 1)
        self._check_choice("adaptive_damping", (False, True))
        if self.adaptive_damping and self.solver == "theseus":
            raise ValueError(
                "TrajectoryOptimizer needs adaptive_damping=False for solver='theseus', got True: Theseus is here the "
                "reference with constant damping. Use solver='lm'."
            )
        if self.min_std > self.max_std:
            raise ValueError(f"TrajectoryOptimizer needs min_std <= max_std, got {self.min_std} > {self.max_std}.")
        if self.solver in SAMPLING_SOLVERS and self.backward_mode == "implicit":
            raise ValueError(
                f"TrajectoryOptimizer needs backward_mode='none' for the sampling solver {self.solver!r}, got "
                "'implicit': draws are not differentiable. Use solver='newton' or 'gradient', or train without a "
                "derivative of the plan."
            )
        if self.solver == "theseus" and self.bounds == "project":
            raise ValueError(
                "TrajectoryOptimizer needs bounds=None or 'clamp' for solver='theseus', got 'project': Theseus knows "
                "no box. Use solver='lm' to keep every iterate inside it."
            )

    def _check_real(self, name: str, wanted: str, holds: Callable[[float], bool]) -> None:
        value = getattr(self, name)
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or not holds(value):
            raise ValueError(f"TrajectoryOptimizer needs a finite number {name} {wanted}, got {value!r}.")
        object.__setattr__(self, name, float(value))

    def _check_choice(self, name: str, choices: tuple[Any, ...]) -> None:
        if getattr(self, name) not in choices:
            listed = ", ".join(repr(choice) for choice in choices)
            raise ValueError(f"TrajectoryOptimizer needs {name} to be one of {listed}, got {getattr(self, name)!r}.")

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
        :param actions: start ``[B, H, A]``; for ``backward_mode="unroll"`` the solution is differentiable in it too
        :param candidates: further sequences ``[N, B, H, A]``: for a sampling solver beside its draws, for the others
            further starts, where an entry that is not finite is taken from ``actions``
        :param generator: randomness of a sampling solver, and of random starts
        :return: the solution; numbers that are not finite are data (``num_failed``), never an exception
        :raises ValueError: if ``actions`` or the objective's values have another shape or dtype, if the objective
            does not depend on the actions, or if ``candidates`` have another shape
        """
        if actions.dim() != 3 or 0 in actions.shape[1:] or actions.dtype not in (torch.float32, torch.float64):
            raise ValueError(
                f"A start needs shape [batch, horizon >= 1, action_dim >= 1] and dtype float32 or float64, "
                f"got {list(actions.shape)} {actions.dtype}: add the missing dimension or cast."
            )
        checked = _CheckedObjective(objective)
        if candidates is not None and (candidates.dim() != 4 or candidates.shape[1:] != actions.shape):
            raise ValueError(
                f"candidates need shape [N, {', '.join(map(str, actions.shape))}], got {list(candidates.shape)}: "
                "put the number of sequences first."
            )
        if self.solver in SAMPLING_SOLVERS:
            return SOLVERS[self.solver](checked, actions, self, candidates, generator)
        if self.backward_mode == "implicit":
            solution = self.replace(backward_mode="none")._solve(checked, actions, candidates, generator)
            return implicit.differentiate(checked, solution, self)
        return self._solve(checked, actions, candidates, generator)

    def _solve(
        self, objective: Objective, actions: Tensor, candidates: Tensor | None, generator: torch.Generator | None
    ) -> Solution:
        solver = SOLVERS[self.solver]
        if self.num_starts == 1 and candidates is None:
            return solver(objective, actions, self)
        starts = multi_start.gather_starts(actions, candidates, self.num_starts, generator)
        return multi_start.solve(solver, objective, starts, self)

    def replace(self, **changes: Any) -> TrajectoryOptimizer:
        """
        :param changes: settings by name
        :return: a copy with these settings
        """
        return TrajectoryOptimizer(**{**{f.name: getattr(self, f.name) for f in fields(self)}, **changes})


class _CheckedObjective:
    """An objective whose answer has the shape a solver needs, or an error that says what is wrong with it."""

    def __init__(self, objective: Objective) -> None:
        self._objective = objective

    # Properties and not attributes: a stored bound method is a reference cycle, which would keep what the objective
    # captured until the collector runs.

    @property
    def value_and_gradient(self) -> Callable[[Tensor], tuple[Tensor, Tensor]] | None:
        """Numbers without a graph, from an objective that computes them faster than autograd does."""
        return self._value_and_gradient if hasattr(self._objective, "value_and_gradient") else None

    @property
    def differentiable_value_and_gradient(self) -> Callable[[Tensor], tuple[Tensor, Tensor] | None] | None:
        """The same numbers with a graph for one backward pass."""
        return getattr(self._objective, "differentiable_value_and_gradient", None)

    @property
    def repeat(self) -> Callable[[int], _CheckedObjective] | None:
        """The same objective for several copies of the batch."""
        return self._repeat if hasattr(self._objective, "repeat") else None

    def __call__(self, actions: Tensor) -> Tensor:
        values = self._objective(actions)
        self._check(values, actions)
        if actions.requires_grad and torch.is_grad_enabled() and not values.requires_grad:
            raise ValueError(
                "An objective needs to be differentiable in the actions, got values without a graph: "
                "remove torch.no_grad(), torch.inference_mode(), .detach() or numpy from it."
            )
        return values

    def _value_and_gradient(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        values, gradient = self._objective.value_and_gradient(actions)  # type: ignore[attr-defined]
        self._check(values, actions)
        if gradient.shape != actions.shape:
            raise ValueError(
                f"An objective's value_and_gradient needs to return a gradient of shape {list(actions.shape)}, got "
                f"{list(gradient.shape)}: one number per action."
            )
        return values, gradient

    def _repeat(self, n: int) -> _CheckedObjective:
        return _CheckedObjective(self._objective.repeat(n))  # type: ignore[attr-defined]

    @staticmethod
    def _check(values: Tensor, actions: Tensor) -> None:
        if not isinstance(values, Tensor):
            raise ValueError(f"An objective needs to return a tensor, got {type(values).__name__}: compute with torch.")
        if values.shape != actions.shape[:1] or values.dtype != actions.dtype:
            raise ValueError(
                f"An objective needs to return one value per sample, shape [{actions.shape[0]}] {actions.dtype}, got "
                f"{list(values.shape)} {values.dtype} for actions {list(actions.shape)}: sum over time, squeeze, cast."
            )
