"""The imagined return as an objective for a trajectory optimiser, with a fast gradient."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from difftori_gym.models.compiled_gradient import compiled_value_and_gradient
from difftori_gym.models.latent_linearization import linearize_latent_return
from difftori_gym.models.latent_model import LatentModel, latent_return
from difftori_gym.models.manual_imagination import Buffers, Imagination, imagination_of
from difftori_gym.models.manual_layers import run


class LatentObjective:
    """
    Action sequences ``[B, H, A]`` -> imagined returns ``[B]`` from given latent states, see :func:`latent_return`.

    Called, it is differentiable in everything. :meth:`value_and_gradient` gives numbers only, several times faster.

    :param model: what is imagined with; its weights must not change while the objective is in use
    :param z0: latent states ``[B, Z]``
    :param discount: per-step discount, in (0, 1]
    :param compile: whether :meth:`value_and_gradient` is compiled by ``torch.compile``, where that is possible
    """

    def __init__(self, model: LatentModel, z0: Tensor, *, discount: float, compile: bool = False) -> None:
        self.model, self.z0, self.discount, self.compile = model, z0, discount, compile
        self._buffers: Buffers | None = None
        self._token = object()

    def __call__(self, actions: Tensor) -> Tensor:
        """
        :param actions: ``[B, H, A]`` in [-1, 1]
        :return: returns ``[B]``, differentiable in ``z0``, ``actions`` and the model's parameters; nan for a latent
            state that is not finite, which gets no gradient and gives none
        """
        # Kept out of the networks: in their backward 0 * nan would otherwise reach the weights all samples share.
        z0 = torch.where(self._whole[:, None], self.z0, 0.0)
        values = latent_return(self.model, z0, actions, discount=self.discount)
        return torch.where(self._whole, values, torch.nan)

    def repeat(self, n: int) -> LatentObjective:
        """
        :param n: number of copies, at least 1
        :return: the objective of ``n`` copies of the batch, one after the other
        """
        return LatentObjective(self.model, self.z0.repeat(n, 1), discount=self.discount, compile=self.compile)

    def value_and_gradient(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        """
        :param actions: ``[B, H, A]`` in [-1, 1]
        :return: returns ``[B]`` and their gradient in the actions ``[B, H, A]``, both without a graph
        """
        if self.compile:
            found = compiled_value_and_gradient(self.model, self.z0, actions, discount=self.discount)
            if found is not None:
                return found
        if self._imagination is None or torch.is_autocast_enabled(actions.device.type):
            return self._by_autograd(actions)
        with torch.inference_mode():  # less bookkeeping than no_grad: a tenth of the time and more at batch 1
            buffers = self._imagined(actions)
            run(buffers.backward)
        # Made outside, the results are ordinary tensors.
        return buffers.returns(), buffers.action_gradients.clone(memory_format=torch.contiguous_format)

    def value_only(self, actions: Tensor) -> Tensor:
        """
        :param actions: ``[B, H, A]`` in [-1, 1]
        :return: returns ``[B]`` without a graph, faster than a call
        """
        if self.compile or self._imagination is None or torch.is_autocast_enabled(actions.device.type):
            with torch.no_grad():
                return self(actions)
        with torch.inference_mode():
            buffers = self._imagined(actions)
        return buffers.returns()

    def _imagined(self, actions: Tensor) -> Buffers:
        assert self._imagination is not None
        if self._buffers is None or self._buffers.actions.shape != actions.shape:
            self._buffers = self._imagination.buffers(self.model, self.z0, actions, self.discount)
        self._buffers.serve(self._token, self.z0)
        self._buffers.actions.copy_(actions)
        run(self._buffers.forward)
        return self._buffers

    def differentiable_value_and_gradient(self, actions: Tensor) -> tuple[Tensor, Tensor] | None:
        """
        :param actions: ``[B, H, A]`` in [-1, 1]
        :return: returns ``[B]`` and their gradient in the actions ``[B, H, A]``, both with a graph that can be
            differentiated once, several times faster than autograd's; None for a model that has to be left to autograd
        """
        if self._imagination is None or torch.is_autocast_enabled(actions.device.type):
            return None
        return linearize_latent_return(self.model, self.z0, actions, discount=self.discount)

    @cached_property
    def _imagination(self) -> Imagination | None:
        return imagination_of(self.model)

    @cached_property
    def _whole(self) -> Tensor:
        """Mask ``[B]`` of latent states that are finite."""
        return torch.isfinite(self.z0.detach()).all(-1)

    def _by_autograd(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            point = actions.detach().requires_grad_()
            value = self(point)
            (gradient,) = torch.autograd.grad(value.sum(), point)
        return value.detach(), gradient
