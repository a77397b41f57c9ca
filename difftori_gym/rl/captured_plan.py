"""Plans to act on, recorded as CUDA graphs on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from weakref import WeakKeyDictionary

import torch
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import Tensor, nn

from difftori_gym.learning.captured import Captured
from difftori_gym.models.call_lists.fresh import fresh_lists
from difftori_gym.observations import entries, from_entries
from difftori_gym.rl.planning import Planner
from difftori_gym.trajopt import Solution

Plan = Callable[[PyTorchObs, Tensor | None], Solution]
"""An observation, and the last plan or None -> a plan without a graph of autograd's and without random draws."""

# Not in the policy, which is copied and saved.
_captured: WeakKeyDictionary[nn.Module, Captured] = WeakKeyDictionary()
_COLUMNS = ("actions", "best_actions", "values", "history", "num_failed", "failed")


def is_recordable(planner: Planner) -> bool:
    """
    Whether a plan is the same operations every time. Not of Newton's method, which waits for the device, of solvers and
    planners of one's own, which may do anything, and of a compiled gradient, which is recorded by the compiler.
    """
    return type(planner) is Planner and planner.optimizer.solver in ("lm", "adam") and not planner.compile


def captured_plan(
    owner: nn.Module, plan: Plan, key: Hashable, observation: PyTorchObs, previous: Tensor | None
) -> Solution:
    """
    :param owner: its recordings are kept as long as it lives
    :param plan: makes the plan, from the owner's weights
    :param key: what else the plan depends on
    :param observation: ``[B, ...]`` or a dictionary of such
    :param previous: last plans ``[B, H, A]``
    :return: what ``plan`` returns
    """
    parts = entries(observation)
    inputs = [*parts.values(), *([] if previous is None else [previous])]

    def function(tensors: Sequence[Tensor]) -> list[Tensor]:
        given = from_entries(dict(zip(parts, tensors, strict=False)))
        with fresh_lists():
            solution = plan(given, None if previous is None else tensors[-1])
        return [getattr(solution, name) for name in _COLUMNS]

    def reads() -> Iterator[Tensor]:
        yield from owner.parameters()
        yield from owner.buffers()

    found = recordings_of(owner)(function, inputs, (key, tuple(parts), previous is None), reads=reads)
    return Solution(**dict(zip(_COLUMNS, found, strict=True)))


def records_plans(owner: nn.Module, planner: Planner, device: torch.device) -> bool:
    """:return: whether plans of this planner on this device are recorded, or will be"""
    return is_recordable(planner) and recordings_of(owner).records(device)


def recordings_of(owner: nn.Module) -> Captured:
    """:return: those of a policy's plans"""
    found = _captured.get(owner)
    if found is None:
        _captured[owner] = found = Captured("The plan")
    return found
