"""Scores of action sequences as objectives for a trajectory optimiser, with fast gradients."""

from __future__ import annotations

from functools import cached_property, partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from difftori_gym.models.cvae import ChunkScore, LatentScore
from difftori_gym.models.manual_gradient import Network, with_backward
from difftori_gym.models.manual_layers import (
    Layer,
    Operation,
    backward_in_turn,
    layers_with_backward,
    place_in_turn,
    run,
)


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
        fast = self._fast
        with torch.inference_mode():
            fast.actions.copy_(actions)
            run(fast.operations)
        # Made outside, the results are ordinary tensors.
        return fast.scores.clone(), fast.gradient.clone()

    @cached_property
    def _fast(self) -> _ChunkBuffers | None:
        with torch.inference_mode():
            layers = layers_with_backward(list(self._body))
            if layers is None:
                return None
            weight = self._first.weight[:, self.score.condition_dim :].contiguous()
            last = self._body[-1]
            assert isinstance(last, nn.Linear)
            shape = len(self.condition), self.score.horizon, self.score.action_dim
            return _ChunkBuffers(self._conditioned.detach(), weight, layers, last.weight, shape)


class _ChunkBuffers:
    """
    What the network reads and writes, and its operations in order.

    :param conditioned: what the first layer makes of the condition ``[B, hidden]``
    :param weight: of the first layer for the actions ``[hidden, H A]``
    :param layers: those above
    :param score_weight: of the last one ``[1, hidden]``
    :param shape: of the actions, B, H and A
    """

    def __init__(
        self, conditioned: Tensor, weight: Tensor, layers: list[Layer], score_weight: Tensor, shape: tuple[int, ...]
    ) -> None:
        actions, gradient = conditioned.new_empty(2, len(conditioned), weight.shape[1]).unbind()
        self.actions, self.gradient = actions.view(shape), gradient.view(shape)
        hidden = torch.empty_like(conditioned)
        placed = place_in_turn(layers, hidden)
        self.scores = placed[-1].y.squeeze(-1)  # [B]
        # The score is the last layer's output, so what its input receives is that layer's weight, for every sample.
        reached, backward = backward_in_turn(placed[:-1], score_weight.expand(len(conditioned), -1))
        self.operations: list[Operation] = [
            partial(torch.addmm, conditioned, actions, weight.t(), out=hidden),
            *(operation for each in placed for operation in each.forward),
            *backward,
            partial(torch.mm, reached, weight, out=gradient),
        ]


class LatentScoreObjective:
    """
    Action sequences ``[B, H, A]`` -> sums of scores ``[B]`` from given conditions, see :class:`LatentScore`.

    :param score: its weights must not change while the objective is in use
    :param condition: ``[B, C]``
    """

    def __init__(self, score: LatentScore, condition: Tensor) -> None:
        self.score, self.condition = score, condition
        self._first_state = score.encoder(condition)  # [B, Z]; not when it is asked for, see ChunkObjective
        self._buffers: _Buffers | None = None

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
        with torch.inference_mode():
            if self._buffers is None or self._buffers.actions.shape != actions.shape:
                state, discount = self._first_state.detach(), self.score.discount
                self._buffers = _Buffers(state, actions, *self._networks, discount)
            buffers = self._buffers
            buffers.actions.copy_(actions)
            buffers.run()
        # Made outside, the results are ordinary tensors.
        value = torch.mv(buffers.scores.view(actions.shape[1], -1).t(), buffers.weights)
        return value, buffers.action_gradients.clone(memory_format=torch.contiguous_format)

    @cached_property
    def _networks(self) -> tuple[Network, Network] | None:
        with torch.no_grad():
            dynamics, score = with_backward(self.score.dynamics), with_backward(self.score.score)
        return None if dynamics is None or score is None else (dynamics, score)


class _Buffers:
    """
    What the networks read and write, and views of it, made once for a shape of actions.

    Row t of the inputs is (z_t, a_t), and the gradients have the same rows.

    :param state: first states ``[B, Z]``
    :param actions: ``[B, H, A]``, for its shape
    :param dynamics: of the states
    :param score: of a state and an action
    :param discount: per-step discount, in (0, 1]
    """

    def __init__(self, state: Tensor, actions: Tensor, dynamics: Network, score: Network, discount: float) -> None:
        (batch, horizon, action_dim), state_dim = actions.shape, state.shape[1]
        first = torch.cat([state, actions[:, 0]], dim=-1)  # [B, Z + A]; raises if the two do not fit
        both = first.repeat(2, horizon, 1, 1)  # inputs and gradients [H, B, Z + A]
        inputs, self._gradients = both.unbind()
        states, of_actions = both.split([state_dim, action_dim], dim=-1)
        self.actions, self.action_gradients = of_actions.transpose(1, 2).unbind()  # [B, H, A]

        self.scores = first.new_empty(horizon * batch, 1)
        self.weights = first.new_tensor([discount**t for t in range(horizon)])
        gradients, (into, out_of) = self._gradients.unbind(), states.unbind()
        steps = [dynamics.place(inputs[t], into[t + 1], out_of[t + 1], gradients[t]) for t in range(horizon - 1)]
        rows, row_gradients = both.view(2, horizon * batch, -1).unbind()
        scores = score.place(rows, self.scores, self.weights.repeat_interleave(batch)[:, None], row_gradients)
        self._forward = [operation for each in (*steps, scores) for operation in each.forward]
        self._backward = [operation for each in (scores, *reversed(steps)) for operation in each.backward]

    def run(self) -> None:
        """Forward and backward."""
        run(self._forward)
        self._gradients.zero_()
        run(self._backward)


def _by_autograd(objective: ChunkObjective | LatentScoreObjective, actions: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        point = actions.detach().requires_grad_()
        value = objective(point)
        (gradient,) = torch.autograd.grad(value.sum(), point, retain_graph=True)
    return value.detach(), gradient
