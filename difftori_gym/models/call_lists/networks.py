"""
Networks as lists of calls: ensembles of one member or more, with the gradient of their input.

All members read the same input, so the first layer is one product, and so is what they add to its gradient; activations
and LayerNorm go over all rows at once. The products in between stay one for each member.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from difftori_gym.models.call_lists.layers import LAYERS, Copies, Operation, Placed, linear

Pass = tuple[list[Operation], list[Operation]]
"""Writes outputs, forward; writes gradients, backward, once after each forward."""


@dataclass(frozen=True)
class Network:
    """
    N networks of the same layers, which read the same input and write ``[B, N * m]``: of every layer the N modules.

    The first is linear; so many of its inputs as are ``shared`` are replaced, see :func:`linear`.
    """

    columns: list[list[Any]]
    shared: int = 0

    def place(
        self,
        x: Tensor,
        y: Tensor,
        gradient: Tensor,
        into: Tensor,
        copies: Copies,
        *,
        add: bool = True,
        fixed: bool = False,
    ) -> Pass:
        """
        The calls between input ``[B, n]`` and output ``[B, N * m]``, for as long as memory and weights stay where they
        are.

        The output's ``gradient`` is carried ``into`` the input's, added to what is there if ``add``. If it is
        ``fixed``, a last product is made with the copies.
        """
        first = self.columns[0]
        if len(first) > 1:
            whole = {name: copies.joined(first, name) for name in ("weight", "bias")}
            first = [SimpleNamespace(**whole, out_features=len(first) * first[0].out_features)]
        columns, inputs, placed = [first, *self.columns[1:]], [x], list[Placed]()
        for column in columns:
            x, kind = inputs[-1], LAYERS[type(column[0])] if placed else partial(linear, shared=self.shared, add=add)
            width = len(column) * getattr(column[0], "out_features", 0) or x.shape[1]
            inputs.append(y if column is columns[-1] else x.new_empty(len(x), width))
            placed.append(kind(column, x, inputs[-1], copies))
        backward: list[Operation] = []
        for index in range(len(columns) - 1, -1, -1):
            before = into if index == 0 else torch.empty_like(inputs[index])
            once = fixed and 0 < index == len(columns) - 1 and type(columns[-1][0]) is nn.Linear
            (copies.due if once else backward).extend(placed[index][1](gradient, before))
            gradient = before
        return [call for forward, _ in placed for call in forward], backward


def layers_of(network: nn.Module) -> Iterator[nn.Module]:
    """The layers in order, as far as the network is a nested ``Sequential`` without hooks."""
    if type(network) is nn.Sequential and not has_hooks(network):
        for child in network:
            yield from layers_of(child)
    else:
        yield network


def has_hooks(module: nn.Module) -> bool:
    """Whether a call of the module is more than its ``forward``."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def network_of(members: Sequence[nn.Module], *more: nn.Module, shared: int = 0) -> Network | None:
    """
    N networks of the same layers, and ``more`` layers behind each, to be placed.

    None if a layer is not in :data:`LAYERS` or has a hook, if the first is not linear, or if members differ in more
    than their weights. ``shared`` is for one member.
    """
    rows = [[*layers_of(member), *more] for member in members]
    known = all(type(layer) in LAYERS and not has_hooks(layer) for row in rows for layer in row)
    if not known or any(repr(row) != repr(rows[0]) for row in rows) or [*map(type, rows[0][:1])] != [nn.Linear]:
        return None
    return Network([list(column) for column in zip(*rows, strict=True)], shared)
