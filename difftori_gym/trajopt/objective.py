"""What is maximised: a function of action sequences, and what it may offer beyond being called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

Objective = Callable[[Tensor], Tensor]
"""What to maximise: action sequences ``[B, H, A]`` -> values ``[B]``, sample by sample."""


class FastObjective(Protocol):
    """
    An objective, and four things it may do faster than calls and autograd.

    An objective of yours may have any of the methods. Where one is missing, or returns None, solvers do without.
    """

    def __call__(self, actions: Tensor) -> Tensor:
        """
        :param actions: ``[B, H, A]``
        :return: values ``[B]``, differentiable in the actions and in what the objective captured
        """

    def value_and_gradient(self, actions: Tensor) -> tuple[Tensor, Tensor] | None:
        """:return: values ``[B]`` and their gradient ``[B, H, A]`` without a graph, for iterations that need none"""

    def value_only(self, actions: Tensor) -> Tensor | None:
        """:return: values ``[B]`` without a graph, for the last iterate"""

    def repeat(self, n: int) -> FastObjective | None:
        """:return: the objective of ``n`` copies of the batch, one after the other, ``[n * B, H, A]`` -> ``[n * B]``"""

    def values_of_draws(self, draws: Tensor) -> Tensor | None:
        """:return: values ``[N, B]`` of ``N`` sequences for each sample, ``[N, B, H, A]``, without a graph"""


class CheckedObjective(FastObjective):
    """An objective whose answers have the shape a solver needs, or an error that says what is wrong with them."""

    def __init__(self, objective: Objective) -> None:
        self._objective = objective

    def __call__(self, actions: Tensor) -> Tensor:
        values = _checked(self._objective(actions), actions)
        if actions.requires_grad and torch.is_grad_enabled() and not values.requires_grad:
            raise ValueError(
                "An objective needs to be differentiable in the actions, got values without a graph: "
                "remove torch.no_grad(), torch.inference_mode(), .detach() or numpy from it."
            )
        return values

    def value_and_gradient(self, actions: Tensor) -> tuple[Tensor, Tensor] | None:
        found = self._ask("value_and_gradient", actions)
        if found is None:
            return None
        values, gradient = found
        if gradient.shape != actions.shape:
            raise ValueError(
                f"An objective's value_and_gradient needs to return a gradient of shape {list(actions.shape)}, got "
                f"{list(gradient.shape)}: one number per action."
            )
        return _checked(values, actions), gradient

    def value_only(self, actions: Tensor) -> Tensor | None:
        values = self._ask("value_only", actions)
        return None if values is None else _checked(values, actions)

    def repeat(self, n: int) -> CheckedObjective | None:
        repeated = self._ask("repeat", n)
        return None if repeated is None else CheckedObjective(repeated)

    def values_of_draws(self, draws: Tensor) -> Tensor | None:
        found = self._ask("values_of_draws", draws)
        return None if found is None else _checked(found.flatten(), draws.flatten(0, 1)).view(draws.shape[:2])

    def _ask(self, name: str, argument: Any) -> Any:
        method = getattr(self._objective, name, None)
        return None if method is None else method(argument)


def _checked(values: Tensor, actions: Tensor) -> Tensor:
    if not isinstance(values, Tensor):
        raise ValueError(f"An objective needs to return a tensor, got {type(values).__name__}: compute with torch.")
    if values.shape != actions.shape[:1] or values.dtype != actions.dtype:
        raise ValueError(
            f"An objective needs to return one value per sample, shape [{actions.shape[0]}] {actions.dtype}, got "
            f"{list(values.shape)} {values.dtype} for actions {list(actions.shape)}: sum over time, squeeze, cast."
        )
    return values
