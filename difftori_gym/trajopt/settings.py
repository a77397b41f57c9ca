"""What can be chosen about a solve, on the ground of the package: every solver reads this record, and it knows none."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any, Literal, TypeVar, cast, get_args

from torch import Tensor

from difftori_gym.trajopt.objective import FastObjective
from difftori_gym.trajopt.solution import BackwardMode, Bounds, Solution, WallGradient

SolverName = Literal["lm", "theseus", "adam", "newton", "mppi", "cem"]
Solve = Callable[[FastObjective, Tensor, "Settings"], Solution]
"""A solver: objective, start ``[B, H, A]`` and settings in, solution out."""
Solver = SolverName | Solve
SAMPLING_SOLVERS = frozenset({"mppi", "cem"})

# Settings that are left out, where they differ from lm's.
SOLVER_DEFAULTS: dict[str, dict[str, float | None]] = {
    "adam": dict(max_iterations=None, step_size=0.5, num_starts=6),
    "newton": dict(max_iterations=5),
    "mppi": dict(max_iterations=6),
    "cem": dict(max_iterations=6),
}
OTHERWISE: dict[str, float | None] = dict(max_iterations=10, step_size=1e-3, num_starts=1)

CHOICES = dict(
    bounds=(None, *get_args(Bounds)), wall_gradient=get_args(WallGradient), backward_mode=get_args(BackwardMode)
)
LEAST = dict(max_iterations=0, backward_num_iterations=1, num_starts=1, num_samples=1, num_elites=1)
POSITIVE = ("step_size", "damping", "stationarity_tolerance", "temperature", "min_std", "max_std")

Same = TypeVar("Same", bound="Settings")


@dataclass(frozen=True)
class Settings:
    """
    Settings of a trajectory optimiser.

    :param solver: ``"adam"`` projected ascent with momentum and shrinking steps, which also closes in on creases;
        ``"lm"`` closed-form Levenberg-Marquardt, the paper's; ``"theseus"`` the same iteration by Theseus (the extra
        ``difftori-gym[theseus]``); ``"newton"`` with the exact Hessian in a trust region; ``"mppi"`` and ``"cem"``
        sampling, not differentiable; or a solver of your own, a function ``(objective, actions, settings) -> Solution``
        (docs/solvers.md)
    :param max_iterations: iterations of the solver, at least 0 (then the start is the answer). Left out, here and
        below, the solver chooses: adam by the number n = H * A of unknowns, 8 + 3.1 sqrt(n), which is what trained
        models took; lm and theseus 10, newton 5, mppi and cem 6.
    :param step_size: positive; factor on each step (lm, theseus: 1e-3), or how far the first step moves an action
        (adam: 0.5)
    :param damping: added to the curvature, positive (lm, theseus)
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
        _check(self)

    def differentiates(self, index: int) -> bool:
        """Whether the backward mode keeps the graph of iteration ``index``, counted from 0."""
        if self.backward_mode == "truncated":
            return index >= self.max_iterations - self.backward_num_iterations
        return self.backward_mode == "unroll"

    def replace(self: Same, **changes: Any) -> Same:
        """A copy with other settings; what the solver had chosen for itself stays."""
        return replace(self, **changes)


def _check(settings: Settings) -> None:
    _check_solver(settings.solver)
    for name, choices in CHOICES.items():
        if getattr(settings, name) not in choices:
            raise ValueError(
                f"TrajectoryOptimizer needs {name} to be one of {_listed(choices)}, got {getattr(settings, name)!r}."
            )
    for name, least in LEAST.items():
        if name != "max_iterations" or settings.max_iterations is not None:
            _check_integer(settings, name, least)
    for name in POSITIVE:
        _check_real(settings, name, "> 0", lambda value: value > 0)
    _check_real(settings, "residual_offset", "above every value", lambda value: True)
    _check_real(settings, "momentum", "in [0, 1)", lambda value: 0 <= value < 1)
    if settings.min_std > settings.max_std:
        raise ValueError(f"TrajectoryOptimizer needs min_std <= max_std, got {settings.min_std} > {settings.max_std}.")
    if settings.solver == "theseus" and settings.bounds == "project":
        raise ValueError(
            "TrajectoryOptimizer needs bounds=None or 'clamp' for solver='theseus', got 'project': Theseus knows "
            "no box. Use solver='lm' to keep every iterate inside it."
        )
    if settings.solver in SAMPLING_SOLVERS and settings.backward_mode == "implicit":
        raise ValueError(
            f"TrajectoryOptimizer needs backward_mode='none' for the sampling solver {settings.solver!r}, got "
            "'implicit': draws are not differentiable. Use solver='newton' or 'adam', or train without a "
            "derivative of the plan."
        )


def _check_solver(solver: Any) -> None:
    if isinstance(solver, str) and solver in get_args(SolverName):
        return
    if isinstance(solver, str) or not callable(solver) or isinstance(solver, type):
        raise ValueError(
            f"TrajectoryOptimizer needs solver to be one of {_listed(get_args(SolverName))}, got {solver!r}: or hand "
            "over a function (objective, actions, settings) -> Solution of your own."
        )
    try:
        hash(solver)
    except TypeError as error:
        raise ValueError(
            f"TrajectoryOptimizer needs a solver that is hashable, got {solver!r}: settings are compared and hashed. "
            "Use a function, or a dataclass with frozen=True."
        ) from error


def _listed(choices: tuple[Any, ...]) -> str:
    return ", ".join(repr(choice) for choice in choices)


# Numbers become plain ones: a numpy scalar makes arrays of tensors.
def _check_integer(settings: Settings, name: str, least: int) -> None:
    value = getattr(settings, name)
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
        raise ValueError(f"TrajectoryOptimizer needs an integer {name} >= {least}, got {value!r}.")
    object.__setattr__(settings, name, int(value))


def _check_real(settings: Settings, name: str, wanted: str, holds: Callable[[float], bool]) -> None:
    value = getattr(settings, name)
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not holds(value):
        raise ValueError(f"TrajectoryOptimizer needs a finite number {name} {wanted}, got {value!r}.")
    object.__setattr__(settings, name, float(value))
