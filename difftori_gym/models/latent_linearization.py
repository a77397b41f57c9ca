"""The imagined return and its gradient in the actions, both differentiable once more, by hand-written passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from difftori_gym.models.latent_model import LatentModel
from difftori_gym.models.manual_curvature import NetworkTape, parameter_gradients
from difftori_gym.models.manual_gradient import covered_layers

Pass = Callable[[NetworkTape, Tensor], Tensor]


def linearize_latent_return(
    model: LatentModel, z0: Tensor, actions: Tensor, *, discount: float
) -> tuple[Tensor, Tensor]:
    """
    :func:`latent_return` and its gradient, with a graph that can be differentiated once, but not twice.

    :param model: built of networks that :func:`covered_layers` covers, and not episodic
    :param z0: latent states ``[B, Z]``
    :param actions: action sequences ``[B, H, A]`` in [-1, 1]
    :param discount: per-step discount, in (0, 1]
    :return: returns ``[B]`` and their gradient in the actions ``[B, H, A]``, differentiable in ``actions``, ``z0`` and
        the model's parameters
    """
    networks = (model.dynamics, model.reward, model.actor, *model.critic.members)
    parameters = chain.from_iterable(network.parameters() for network in networks)
    value, gradient = _Linearization.apply(model, discount, actions, z0, *parameters)  # type: ignore[no-untyped-call]
    return value, gradient


class _Linearization(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, model: LatentModel, discount: float, actions: Tensor, z0: Tensor, *parameters: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.tape = tape = _ReturnTape(model, actions, discount)
        value, gradient = tape.forward(z0, actions), tape.backward()
        ctx.usable = torch.isfinite(value) & torch.isfinite(gradient.sum(dim=(1, 2)))
        return value, gradient

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, value_weight: Tensor, direction: Tensor) -> tuple[Tensor | None, ...]:
        tape, usable = ctx.tape, ctx.usable
        for_actions, for_z0 = tape.derivative(value_weight, direction)
        for_parameters: Sequence[Tensor | None] = [None] * (len(ctx.needs_input_grad) - 4)
        if any(ctx.needs_input_grad[4:]):
            # Zero times what is broken would not be zero. Another device is not asked, because it had to be waited for.
            all_usable = usable.device.type == "cpu" and bool(usable.all())
            for_parameters = tape.parameter_gradients(None if all_usable else usable)
        return None, None, for_actions, for_z0, *for_parameters


class _ReturnTape:
    """
    One evaluation of the return: passes of values, gradients, tangents and tangents of gradients, in this order.

    :param model: what is imagined with
    :param actions: ``[B, H, A]``, for its shape
    :param discount: per-step discount
    """

    def __init__(self, model: LatentModel, actions: Tensor, discount: float) -> None:
        self._batch, horizon, _ = actions.shape
        self._latent_dim = model.latent_dim
        self._networks = (model.dynamics, model.reward, model.actor, *model.critic.members)
        self._dynamics = [_tape(model.dynamics) for _ in range(horizon)]
        self._reward = _tape(model.reward)
        self._prior = _tape(model.actor, nn.Tanh())
        self._critics = [_tape(member) for member in model.critic.members]
        weights = actions.new_tensor([discount**t for t in range(horizon + 1)])  # [H + 1]
        self._reward_weight = weights[:-1, None].expand(-1, self._batch)  # [H, B]
        self._value_weight = weights[-1]
        self._shares: list[Tensor | None] = []  # of each critic in the return [B, 1], None if it has none

    def forward(self, z0: Tensor, actions: Tensor) -> Tensor:
        rewards, values = self._ahead(NetworkTape.forward, z0, actions)
        stacked = torch.stack(values)  # [n_critics, B, 1]
        least, chosen = stacked.min(dim=0)
        if self._batch == 1 and chosen.device.type == "cpu":
            only = int(chosen)
            share = self._value_weight.expand_as(chosen)
            self._shares = [share if k == only else None for k in range(len(values))]
        else:
            self._shares = [(chosen == k) * self._value_weight for k in range(len(values))]
        return (self._reward_weight * rewards.view_as(self._reward_weight)).sum(0) + self._value_weight * least.squeeze(
            1
        )

    def backward(self) -> Tensor:
        """:return: gradient in the actions ``[B, H, A]``"""
        return self._back(NetworkTape.backward, self._reward_weight, self._shares)[0]

    def derivative(self, value_weight: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
        """
        :param value_weight: c ``[B]``
        :param direction: u ``[B, H, A]``
        :return: derivative of c v + u.g in the actions ``[B, H, A]`` and in the latent states ``[B, Z]``
        """
        self._ahead(NetworkTape.tangent, direction.new_zeros(self._batch, self._latent_dim), direction)
        shares = [None if share is None else share * value_weight[:, None] for share in self._shares]
        return self._back(NetworkTape.tangent_backward, self._reward_weight * value_weight, shares)

    def parameter_gradients(self, usable: Tensor | None) -> list[Tensor | None]:
        """
        :param usable: mask ``[B]`` of samples that count, None if all do
        :return: derivative of c v + u.g in the parameters of dynamics, reward, prior and critics
        """
        calls = [self._dynamics, [self._reward], [self._prior]]
        calls += [[] if share is None else [critic] for critic, share in zip(self._critics, self._shares, strict=True)]
        gradients: list[Tensor | None] = []
        for network, tapes in zip(self._networks, calls, strict=True):
            gradients += parameter_gradients(tapes, usable) if tapes else [None for _ in network.parameters()]
        return gradients

    def _ahead(self, run: Pass, z: Tensor, actions: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Rewards ``[H * B, 1]`` and values ``[B, 1]`` by critic, or their tangents."""
        steps = []
        for dynamics, action in zip(self._dynamics, actions.unbind(1), strict=True):
            steps.append(torch.cat([z, action], dim=1))
            z = run(dynamics, steps[-1])
        rewards = run(self._reward, torch.cat(steps))
        last = torch.cat([z, run(self._prior, z)], dim=1)
        # Of the tangents only those that the return depends on.
        shares = self._shares or [z] * len(self._critics)
        return rewards, [
            run(critic, last) for critic, share in zip(self._critics, shares, strict=True) if share is not None
        ]

    def _back(self, run: Pass, reward_weight: Tensor, shares: Sequence[Tensor | None]) -> tuple[Tensor, Tensor]:
        """Gradients in the actions ``[B, H, A]`` and in z0 ``[B, Z]``, or their tangents."""
        by_critic = [
            run(critic, share) for critic, share in zip(self._critics, shares, strict=True) if share is not None
        ]
        last = by_critic[0] if len(by_critic) == 1 else torch.stack(by_critic).sum(0)
        z, prior = last.split([self._latent_dim, last.shape[1] - self._latent_dim], dim=1)
        z = z + run(self._prior, prior)
        of_steps = run(self._reward, reward_weight.reshape(-1, 1)).view(*reward_weight.shape, -1)  # [H, B, Z + A]
        actions = []
        for dynamics, of_step in zip(reversed(self._dynamics), reversed(of_steps.unbind()), strict=True):
            step = run(dynamics, z) + of_step
            z, action = step.split([self._latent_dim, step.shape[1] - self._latent_dim], dim=1)
            actions.append(action)
        return torch.stack(actions[::-1], dim=1), z


def _tape(network: nn.Module, *more: nn.Module) -> NetworkTape:
    layers = covered_layers(network)
    assert layers is not None
    return NetworkTape([*layers, *more])
