"""``planner_kwargs``: solver and start of a learner's planner, in one dictionary."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from difftori_gym.trajopt import TrajectoryOptimizer

#: Settings of exploration as they were spelled before ``exploration_kwargs``.
_OF_EXPLORATION = ("exploration_initial_std", "exploration_final_std", "exploration_correlation")
_OF_OPTIMIZER = tuple(field.name for field in fields(TrajectoryOptimizer))
#: What another solver than the learner's own chooses for itself.
_OF_SOLVER = ("max_iterations", "step_size", "damping")


def split_planner_kwargs(
    given: Mapping[str, Any] | None, *, defaults: Mapping[str, Any], own: Mapping[str, Any], whose: str
) -> tuple[TrajectoryOptimizer, dict[str, Any]]:
    """
    :param given: the user's ``planner_kwargs``
    :param defaults: the learner's own settings of its optimiser
    :param own: further settings that the learner's planner has, with their defaults
    :param whose: name of the learner, for messages
    :return: the optimiser, and the further settings
    :raises ValueError: on a setting that there is not, or one outside its range
    """
    given = dict(given or {})
    known = (*_OF_OPTIMIZER, *own)
    refuse_unknown(given, known, f"{whose}: planner_kwargs has no setting")
    if given.get("solver", defaults["solver"]) not in (defaults["solver"], "theseus"):
        defaults = {name: value for name, value in defaults.items() if name not in _OF_SOLVER}
    of_optimizer = {name: value for name, value in given.items() if name not in own}
    further = {name: given.get(name, value) for name, value in own.items()}
    return TrajectoryOptimizer(**{**defaults, **of_optimizer}), further


def refuse_unknown(given: Mapping[str, Any], known: Collection[str], what: str) -> None:
    """:raises ValueError: for a name that is not known, after the words ``what``; proposes those that are close"""
    for name in given:
        if name not in known:
            close = get_close_matches(str(name), known) or sorted(known)
            raise ValueError(f"{what} {name!r}. Did you mean: {', '.join(close)}?")


def refuse_renamed(arguments: Mapping[str, Any], *, own: Mapping[str, Any], whose: str) -> None:
    """:raises TypeError: for arguments that a constructor does not know, telling where those that have moved went"""
    explored = [name for name in arguments if name in _OF_EXPLORATION]
    if explored:
        spelled = ", ".join(f"{name.removeprefix('exploration_')}={arguments[name]!r}" for name in explored)
        raise TypeError(f"{whose}: settings of exploration are one argument now: exploration_kwargs=dict({spelled}).")
    moved = [name for name in arguments if name in (*_OF_OPTIMIZER, *own)]
    if moved:
        spelled = ", ".join(f"{name}={arguments[name]!r}" for name in moved)
        raise TypeError(f"{whose}: settings of the planner are one argument now: planner_kwargs=dict({spelled}).")
    if arguments:
        raise TypeError(f"{whose}.__init__() got an unexpected keyword argument {next(iter(arguments))!r}")
