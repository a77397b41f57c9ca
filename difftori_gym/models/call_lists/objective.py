"""Objectives of a trajectory optimiser whose numbers come from lists of calls."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor, nn

from difftori_gym.models.call_lists.scan import Modules, Scan, Scans, scans_of


class ScanObjective:
    """
    Action sequences ``[B, H, A]`` -> values ``[B]`` from given states ``z0`` ``[B, Z]``.

    Called, it is differentiable in everything. :meth:`value_and_gradient` and :meth:`value_only` give numbers only,
    several times faster. A subclass has the call. ``owner`` holds the modules, whose weights must not change while the
    objective is in use; they are None if the call is more than that.
    """

    def __init__(self, owner: nn.Module, modules: Modules | None, z0: Tensor, discount: float) -> None:
        self.z0, self.discount = z0, discount
        self._owner, self._modules, self._token = owner, modules, object()
        self._scan: Scan | None = None

    def __call__(self, actions: Tensor) -> Tensor:
        """Actions ``[B, H, A]`` in [-1, 1] -> values ``[B]``, differentiable in everything."""
        raise NotImplementedError

    def value_and_gradient(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Values ``[B]`` and their gradient in the actions ``[B, H, A]``, both without a graph."""
        scan = self._imagined(actions, gradient=True)
        if scan is None:
            return self._by_autograd(actions)
        # Made outside of the inference mode, the results are ordinary tensors.
        return scan.values(), scan.action_gradients.clone(memory_format=torch.contiguous_format)

    def value_only(self, actions: Tensor) -> Tensor:
        """Values ``[B]`` without a graph, faster than a call."""
        scan = self._imagined(actions, gradient=False)
        if scan is not None:
            return scan.values()
        with torch.no_grad():
            return self(actions)

    def _imagined(self, actions: Tensor, gradient: bool) -> Scan | None:
        if self._scans is None or torch.is_autocast_enabled(actions.device.type):
            return None
        with torch.inference_mode():  # less bookkeeping than no_grad: a tenth of the time and more at batch 1
            if self._scan is None or self._scan.actions.shape != actions.shape:
                self._scan = self._scans.scan(self.z0, actions, self.discount)
            self._scan.run(self._token, self.z0, actions, gradient)
        return self._scan

    @cached_property
    def _scans(self) -> Scans | None:
        return None if self._modules is None else scans_of(self._owner, self._modules)

    def _by_autograd(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            point = actions.detach().requires_grad_()
            value = self(point)
            # What the actions have no part in belongs to the objective, and is needed again.
            (gradient,) = torch.autograd.grad(value.sum(), point, retain_graph=True)
        return value.detach(), gradient
