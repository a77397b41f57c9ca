"""Scores of action sequences as objectives for a trajectory optimiser, with fast gradients."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from difftori_gym.models.cvae import ChunkScore, LatentScore
from difftori_gym.models.manual_gradient import Layer, Network, layers_with_backward, with_backward


class ChunkObjective:
    """
    Action sequences ``[B, H, A]`` -> scores ``[B]`` in view of given conditions, see :class:`ChunkScore`.

    Called, it is differentiable in everything. :meth:`value_and_gradient` gives numbers only, several times faster: the
    share of the first layer that does not depend on the actions, most of it, is computed once.

    :param score: its weights must not change while the objective is in use
    :param condition: ``[B, C]``
    """

    def __init__(self, score: ChunkScore, condition: Tensor) -> None:
        self.score, self.condition = score, condition
        first = score.network[0]
        assert isinstance(first, nn.Linear)
        body = score.network[1:]
        assert isinstance(body, nn.Sequential)
        self._first, self._body = first, body
        # Not when it is asked for: that may be where no graph is recorded.
        self._conditioned = F.linear(condition, first.weight[:, : score.condition_dim], first.bias)  # [B, hidden]

    def __call__(self, actions: Tensor) -> Tensor:
        """
        :param actions: ``[B, H, A]`` in [-1, 1]
        :return: scores ``[B]``, differentiable in ``condition``, ``actions`` and the score's parameters
        """
        weight = self._first.weight[:, self.score.condition_dim :]
        return self._body(self._conditioned + F.linear(actions.flatten(1), weight)).squeeze(-1)

    def repeat(self, n: int) -> ChunkObjective:
        """
        :param n: number of copies, at least 1
        :return: the objective of ``n`` copies of the batch, one after the other
        """
        return ChunkObjective(self.score, self.condition.repeat(n, 1))

    @torch.no_grad()
    def value_and_gradient(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        """
        :param actions: ``[B, H, A]`` in [-1, 1]
        :return: scores ``[B]`` and their gradient in the actions ``[B, H, A]``, both without a graph
        """
        if self._fast is None or torch.is_autocast_enabled(actions.device.type):
            return _by_autograd(self, actions)
        constant, weight, layers, ones = self._fast
        x = torch.addmm(constant, actions.flatten(1), weight.t())
        backwards: list[Callable[[Tensor], Tensor]] = []
        for layer in layers:
            x, backward = layer(x)
            backwards.append(backward)
        gradient = ones
        for backward in reversed(backwards):
            gradient = backward(gradient)
        return x.squeeze(-1), torch.mm(gradient, weight).view_as(actions)

    @cached_property
    def _fast(self) -> tuple[Tensor, Tensor, list[Layer], Tensor] | None:
        """Conditioned first layer, its weight for the actions, the layers above with their backward passes, ones."""
        with torch.no_grad():
            layers = layers_with_backward(list(self._body))
            if layers is None:
                return None
            weight = self._first.weight[:, self.score.condition_dim :].detach().contiguous()
            constant = self._conditioned.detach()
            return constant, weight, layers, constant.new_ones(len(constant), 1)


class LatentScoreObjective:
    """
    Action sequences ``[B, H, A]`` -> sums of scores ``[B]`` from given conditions, see :class:`LatentScore`.

    :param score: its weights must not change while the objective is in use
    :param condition: ``[B, C]``
    """

    def __init__(self, score: LatentScore, condition: Tensor) -> None:
        self.score, self.condition = score, condition
        self._first_state = score.encoder(condition)  # [B, Z]; not when it is asked for, see ChunkObjective

    def __call__(self, actions: Tensor) -> Tensor:
        """
        :param actions: ``[B, H, A]`` in [-1, 1]
        :return: scores ``[B]``, differentiable in ``condition``, ``actions`` and the score's parameters
        """
        return self.score.scores_from(self._first_state, actions)

    def repeat(self, n: int) -> LatentScoreObjective:
        """
        :param n: number of copies, at least 1
        :return: the objective of ``n`` copies of the batch, one after the other
        """
        return LatentScoreObjective(self.score, self.condition.repeat(n, 1))

    @torch.no_grad()
    def value_and_gradient(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        """
        :param actions: ``[B, H, A]`` in [-1, 1]
        :return: scores ``[B]`` and their gradient in the actions ``[B, H, A]``, both without a graph
        """
        if self._networks is None or torch.is_autocast_enabled(actions.device.type):
            return _by_autograd(self, actions)
        dynamics, score = self._networks
        batch, horizon = actions.shape[:2]
        z = self._first_state.detach()
        state_dim = z.shape[1]
        # Row t is (z_t, a_t), and the gradients have the same rows.
        inputs = torch.cat([z.new_empty(horizon, batch, state_dim), actions.transpose(0, 1)], dim=-1)
        inputs[0, :, :state_dim] = z
        steps = []
        for t in range(horizon - 1):
            reached = z.new_empty(batch, state_dim)
            steps.append(dynamics(inputs[t], reached))
            inputs[t + 1, :, :state_dim] = reached
        scores = z.new_empty(horizon * batch, 1)
        backward = score(inputs.view(horizon * batch, -1), scores)

        weights = self.score.discount ** torch.arange(horizon, dtype=z.dtype, device=z.device)
        gradients = torch.zeros_like(inputs)
        backward(weights[:, None, None].expand(horizon, batch, 1).reshape(-1, 1), gradients.view(horizon * batch, -1))
        for t in reversed(range(horizon - 1)):
            steps[t](gradients[t + 1, :, :state_dim], gradients[t])
        return torch.mv(scores.view(horizon, batch).t(), weights), gradients[..., state_dim:].transpose(0, 1)

    @cached_property
    def _networks(self) -> tuple[Network, Network] | None:
        with torch.no_grad():
            dynamics, score = with_backward(self.score.dynamics), with_backward(self.score.score)
        return None if dynamics is None or score is None else (dynamics, score)


def _by_autograd(objective: ChunkObjective | LatentScoreObjective, actions: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        point = actions.detach().requires_grad_()
        value = objective(point)
        (gradient,) = torch.autograd.grad(value.sum(), point, retain_graph=True)
    return value.detach(), gradient
