"""What a user hands to the optimiser, checked once per call: settings, starts, objectives, solvers of one's own."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor

from difftori_gym.trajopt.iterates import BROKEN, HIGH, LOW
from difftori_gym.trajopt.solution import BackwardMode, Bounds, Objective, Solution, WallGradient

if TYPE_CHECKING:
    from difftori_gym.trajopt.optimizer import TrajectoryOptimizer

ROUNDING = 1e-4
"""So far outside the box a start is still taken for one that lies on the wall."""

LEAST = dict(max_iterations=0, backward_num_iterations=1, num_starts=1, num_samples=1, num_elites=1)
POSITIVE = ("step_size", "damping", "stationarity_tolerance", "temperature", "min_std", "max_std")


def check_settings(settings: TrajectoryOptimizer, solvers: Collection[str], sampling: Collection[str]) -> None:
    """
    :param settings: its numbers become plain ones: a numpy scalar makes arrays of tensors
    :param solvers: names of solvers
    :param sampling: those that draw and are not differentiable
    :raises ValueError: for a setting outside its range, or two that exclude each other
    """
    _check_solver(settings.solver, solvers)
    _check_choice(settings, "bounds", (None, *get_args(Bounds)))
    _check_choice(settings, "wall_gradient", get_args(WallGradient))
    _check_choice(settings, "backward_mode", get_args(BackwardMode))
    _check_choice(settings, "adaptive_damping", (False, True))
    for name, least in LEAST.items():
        if name != "max_iterations" or settings.max_iterations is not None:
            _check_integer(settings, name, least)
    for name in POSITIVE:
        _check_real(settings, name, "> 0", lambda value: value > 0)
    _check_real(settings, "residual_offset", "above every value", lambda value: True)
    _check_real(settings, "momentum", "in [0, 1)", lambda value: 0 <= value < 1)
    if settings.min_std > settings.max_std:
        raise ValueError(f"TrajectoryOptimizer needs min_std <= max_std, got {settings.min_std} > {settings.max_std}.")
    if settings.solver == "theseus":
        _check_theseus(settings)
    if settings.solver in sampling and settings.backward_mode == "implicit":
        raise ValueError(
            f"TrajectoryOptimizer needs backward_mode='none' for the sampling solver {settings.solver!r}, got "
            "'implicit': draws are not differentiable. Use solver='newton' or 'gradient', or train without a "
            "derivative of the plan."
        )


def _check_solver(solver: Any, solvers: Collection[str]) -> None:
    listed = ", ".join(repr(each) for each in solvers)
    if isinstance(solver, str) and solver in solvers:
        return
    if isinstance(solver, str) or not callable(solver) or isinstance(solver, type):
        raise ValueError(
            f"TrajectoryOptimizer needs solver to be one of {listed}, got {solver!r}: or hand over a function "
            "(objective, actions, settings) -> Solution of your own."
        )
    try:
        hash(solver)
    except TypeError as error:
        raise ValueError(
            f"TrajectoryOptimizer needs a solver that is hashable, got {solver!r}: settings are compared and hashed. "
            "Use a function, or a dataclass with frozen=True."
        ) from error


def _check_theseus(settings: TrajectoryOptimizer) -> None:
    if settings.adaptive_damping:
        raise ValueError(
            "TrajectoryOptimizer needs adaptive_damping=False for solver='theseus', got True: Theseus is here the "
            "reference with constant damping. Use solver='lm'."
        )
    if settings.bounds == "project":
        raise ValueError(
            "TrajectoryOptimizer needs bounds=None or 'clamp' for solver='theseus', got 'project': Theseus knows "
            "no box. Use solver='lm' to keep every iterate inside it."
        )


def _check_choice(settings: TrajectoryOptimizer, name: str, choices: tuple[Any, ...]) -> None:
    if getattr(settings, name) not in choices:
        listed = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"TrajectoryOptimizer needs {name} to be one of {listed}, got {getattr(settings, name)!r}.")


def _check_integer(settings: TrajectoryOptimizer, name: str, least: int) -> None:
    value = getattr(settings, name)
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
        raise ValueError(f"TrajectoryOptimizer needs an integer {name} >= {least}, got {value!r}.")
    object.__setattr__(settings, name, int(value))


def _check_real(settings: TrajectoryOptimizer, name: str, wanted: str, holds: Callable[[float], bool]) -> None:
    value = getattr(settings, name)
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not holds(value):
        raise ValueError(f"TrajectoryOptimizer needs a finite number {name} {wanted}, got {value!r}.")
    object.__setattr__(settings, name, float(value))


def check_start(actions: Tensor, bounds: Bounds | None) -> None:
    """
    :param actions: start
    :param bounds: treatment of the box
    :raises ValueError: unless it is ``[B, H >= 1, A >= 1]``, float32 or float64, and inside the box if there is one
    """
    if actions.dim() != 3 or 0 in actions.shape[1:] or actions.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"A start needs shape [batch, horizon >= 1, action_dim >= 1] and dtype float32 or float64, "
            f"got {list(actions.shape)} {actions.dtype}: add the missing dimension or cast."
        )
    _check_inside(actions, bounds, "A start")


def check_candidates(candidates: Tensor, actions: Tensor, bounds: Bounds | None) -> None:
    """
    :param candidates: further starts
    :param actions: the start ``[B, H, A]``
    :param bounds: treatment of the box
    :raises ValueError: unless they are ``[N, B, H, A]``, of the start's dtype, and inside the box if there is one
    """
    if candidates.dim() != 4 or candidates.shape[1:] != actions.shape or candidates.dtype != actions.dtype:
        raise ValueError(
            f"candidates need shape [N, {', '.join(map(str, actions.shape))}] and dtype {actions.dtype}, got "
            f"{list(candidates.shape)} {candidates.dtype}: put the number of sequences first, or cast."
        )
    _check_inside(candidates, bounds, "candidates")


def _check_inside(actions: Tensor, bounds: Bounds | None, what: str) -> None:
    # On another device the answer would have to be waited for, at every solve: there the start is brought into the
    # box without a word. Numbers that nobody can mean are data, repaired and counted as failed.
    if bounds is None or actions.device.type != "cpu" or not actions.numel():
        return
    numbers = actions.detach()
    least, greatest = torch.aminmax(numbers)
    if least.item() >= LOW - ROUNDING and greatest.item() <= HIGH + ROUNDING:  # False for nan
        return
    outside = ((numbers.abs() > HIGH + ROUNDING) & (numbers.abs() < BROKEN)).nonzero()
    if len(outside):
        place = outside[0].tolist()
        raise ValueError(
            f"{what} inside [-1, 1] is needed for bounds={bounds!r}, got {numbers[tuple(place)].item():g} at "
            f"{place} and {len(outside)} such numbers in all: scale or clamp them, or use bounds=None."
        )


class CheckedObjective:
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
    def value_only(self) -> Callable[[Tensor], Tensor] | None:
        """The same numbers without the gradient, if they are to be had faster than by a call."""
        return self._value_only if hasattr(self._objective, "value_only") else None

    @property
    def differentiable_value_and_gradient(self) -> Callable[[Tensor], tuple[Tensor, Tensor] | None] | None:
        """The same numbers with a graph that can be differentiated once, or None."""
        return self._differentiable if hasattr(self._objective, "differentiable_value_and_gradient") else None

    @property
    def repeat(self) -> Callable[[int], CheckedObjective] | None:
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
        self._check_gradient("value_and_gradient", gradient, actions)
        return values, gradient

    def _value_only(self, actions: Tensor) -> Tensor:
        values: Tensor = self._objective.value_only(actions)  # type: ignore[attr-defined]
        self._check(values, actions)
        return values

    def _differentiable(self, actions: Tensor) -> tuple[Tensor, Tensor] | None:
        found = self._objective.differentiable_value_and_gradient(actions)  # type: ignore[attr-defined]
        if found is None:
            return None
        values, gradient = found
        self._check(values, actions)
        self._check_gradient("differentiable_value_and_gradient", gradient, actions)
        return values, gradient

    def _repeat(self, n: int) -> CheckedObjective:
        return CheckedObjective(self._objective.repeat(n))  # type: ignore[attr-defined]

    @staticmethod
    def _check_gradient(method: str, gradient: Tensor, actions: Tensor) -> None:
        if gradient.shape != actions.shape:
            raise ValueError(
                f"An objective's {method} needs to return a gradient of shape {list(actions.shape)}, got "
                f"{list(gradient.shape)}: one number per action."
            )

    @staticmethod
    def _check(values: Tensor, actions: Tensor) -> None:
        if not isinstance(values, Tensor):
            raise ValueError(f"An objective needs to return a tensor, got {type(values).__name__}: compute with torch.")
        if values.shape != actions.shape[:1] or values.dtype != actions.dtype:
            raise ValueError(
                f"An objective needs to return one value per sample, shape [{actions.shape[0]}] {actions.dtype}, got "
                f"{list(values.shape)} {values.dtype} for actions {list(actions.shape)}: sum over time, squeeze, cast."
            )


def check_solution(solution: Any, actions: Tensor) -> Solution:
    """
    :param solution: what a user's own solver returned
    :param actions: the start it was given ``[B, H, A]``
    :return: the same
    :raises ValueError: if it is no :class:`Solution`, or a field has another shape
    """
    if not isinstance(solution, Solution):
        raise ValueError(
            f"A solver needs to return a Solution, got {type(solution).__name__}: "
            "difftori_gym.trajopt.iterates.IterateRecord makes one from the iterates."
        )
    batch = actions.shape[0]
    wanted = dict(actions=actions.shape, best_actions=actions.shape, values=(batch,), failed=(batch,))
    for name, shape in wanted.items():
        if getattr(solution, name).shape != shape:
            raise ValueError(
                f"A solver needs to return {name} of shape {list(shape)}, got {list(getattr(solution, name).shape)}."
            )
    if solution.history.dim() != 2 or solution.history.shape[0] != batch:
        raise ValueError(
            f"A solver needs to return history of shape [{batch}, iterations + 1], got {list(solution.history.shape)}."
        )
    return solution
