"""
The imagined return of a latent model and its gradient as lists of calls, kept from plan to plan.

To make them takes as long as two or three evaluations, so an agent that plans at every step makes them once: for the
next plan latent states are written into the same memory, and the few weights that are kept a second time are read
anew. What is kept belongs to one thread, and goes with the model.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from difftori_gym.models.latent_model import LatentModel
from difftori_gym.models.manual_ensemble import ensemble_with_backward
from difftori_gym.models.manual_gradient import Network, with_backward
from difftori_gym.models.manual_layers import Operation, layers_of, run, tanh_backward

MOST_ROWS, MOST_SHAPES = 64, 8
"""Larger batches, and more shapes than these, are not kept: their memory is not small any more."""

_kept = threading.local()


def imagination_of(model: LatentModel) -> Imagination | None:
    """
    :param model: any
    :return: its networks with their backward passes; None if they are for autograd
    """
    if model.episodic:  # survival probabilities multiply the terms
        return None
    if not hasattr(_kept, "by_model"):
        _kept.by_model = WeakKeyDictionary()
    found: Imagination | None = _kept.by_model.get(model)
    if found is None or not found.fits(model):
        networks = _networks(model)
        if networks is None:
            return None
        _kept.by_model[model] = found = Imagination(model, networks)
    return found


def _networks(model: LatentModel) -> list[Network] | None:
    with torch.inference_mode():
        each = [*map(with_backward, (model.dynamics, model.reward, model.actor))]
        each.append(ensemble_with_backward([*model.critic.members]))
    networks = [network for network in each if network is not None]
    return networks if len(networks) == len(each) else None


def _layers(model: LatentModel) -> Iterator[nn.Module]:
    for network in (model.dynamics, model.reward, model.actor, *model.critic.members):
        yield from layers_of(network)


class Imagination:
    """
    A latent model's networks with their backward passes, and the memory they were placed in.

    :param model: is not kept, only its layers
    :param networks: dynamics, reward, actor and all critics
    """

    def __init__(self, model: LatentModel, networks: list[Network]) -> None:
        self._networks, self._num_critics = networks, len(model.critic.members)
        self._layers = list(_layers(model))
        self._weights = [weight for layer in self._layers for weight in layer._parameters.values()]
        self._where = [_where(weight) for weight in self._weights]
        self._buffers: dict[object, Buffers] = {}

    def fits(self, model: LatentModel) -> bool:
        """
        :param model: the one it was made for
        :return: whether layers and weights are still the same objects in the same memory, and no hooks have come
        """
        layers = list(_layers(model))
        if len(layers) != len(self._layers) or any(a is not b for a, b in zip(layers, self._layers, strict=True)):
            return False
        if any(layer._forward_hooks or layer._forward_pre_hooks for layer in layers):
            return False
        weights = [weight for layer in layers for weight in layer._parameters.values()]
        same = zip(weights, self._weights, self._where, strict=True)
        return all(weight is kept and _where(weight) == where for weight, kept, where in same)

    def buffers(self, model: LatentModel, z0: Tensor, actions: Tensor, discount: float) -> Buffers:
        """
        :param model: the one it was made for
        :param z0: latent states ``[B, Z]``
        :param actions: ``[B, H, A]``
        :param discount: per-step discount, in (0, 1]
        :return: memory for these shapes
        """
        if len(actions) > MOST_ROWS:
            return Buffers(z0, actions, _networks(model) or [], self._num_critics, discount)
        key = (actions.shape, z0.shape, actions.dtype, z0.dtype, z0.device, discount)
        if key not in self._buffers:
            if len(self._buffers) == MOST_SHAPES:  # the networks, too, keep something for every number of rows
                self._networks = _networks(model) or []
                self._buffers.clear()
            self._buffers[key] = Buffers(z0, actions, self._networks, self._num_critics, discount)
        return self._buffers[key]


def _where(weight: Tensor | None) -> object:
    return None if weight is None else (weight.data_ptr(), weight.dtype)


class Buffers:
    """
    What the networks read and write, and views of it, made once for a shape of actions.

    Row t < H of the inputs is (z_t, a_t) and row H is (z_H, pi(z_H)), so each network finds its input in one piece; the
    gradients have the same rows.

    :param z0: latent states ``[B, Z]``
    :param actions: ``[B, H, A]``, for its shape
    :param networks: dynamics, reward, actor and all critics
    :param num_critics: their number
    :param discount: per-step discount, in (0, 1]
    """

    def __init__(self, z0: Tensor, actions: Tensor, networks: list[Network], num_critics: int, discount: float) -> None:
        (batch, horizon, action_dim), latent_dim = actions.shape, z0.shape[1]
        first = torch.cat([z0, actions[:, 0]], dim=-1)  # [B, Z + A]; raises if the two do not fit
        both = first.repeat(2, horizon + 1, 1, 1)  # inputs and gradients [H + 1, B, Z + A]
        inputs, self.all_gradients = both.unbind()
        self.inputs, self.gradients = inputs.unbind(), self.all_gradients.unbind()
        self.step_inputs, self.step_gradients = (
            both[:, :-1].view(2, horizon * batch, first.shape[1]).unbind()
        )  # [H * B, Z + A]
        latents, actions = both.split([latent_dim, action_dim], dim=-1)
        self.latents, self.latent_gradients = latents[0].unbind(), latents[1].unbind()
        self.actions, self.action_gradients = actions[:, :-1].transpose(1, 2).unbind()  # [B, H, A]
        self.prior, self.prior_gradient = actions[:, -1].unbind()  # [B, A]

        terms = first.new_empty(horizon + 1, batch, 1)  # rewards, and the value of the end
        self.terms, self.rewards, self.final = terms.squeeze(-1), terms[:-1].view(-1, 1), terms[-1]
        self.weights = first.new_tensor([discount**t for t in range(horizon + 1)])
        weights = self.weights[:, None, None].expand_as(terms)
        self.reward_weights, self.final_weight = weights[:-1].reshape(-1, 1), weights[-1].contiguous()
        self.values, self.shares = first.new_empty(2, batch, num_critics).unbind()
        self._place(*networks)
        self._copies = [network.copies for network in networks]
        self._served: object | None = None

    def serve(self, token: object, z0: Tensor) -> None:
        """
        Write latent states and weights down, unless that was last done for the same caller.

        :param token: stands for the caller
        :param z0: latent states ``[B, Z]``
        """
        if self._served is token:
            return
        self._served = token
        self.latents[0].copy_(z0)
        for copies in self._copies:
            run(copies)

    def _place(self, dynamics: Network, reward: Network, actor: Network, critics: Network) -> None:
        """All operations in order. Only the dynamics need one step after the other, the reward takes all at once."""
        steps = [
            dynamics.place(self.inputs[t], self.latents[t + 1], self.latent_gradients[t + 1], self.gradients[t])
            for t in range(len(self.inputs) - 1)
        ]
        rewards = reward.place(self.step_inputs, self.rewards, self.reward_weights, self.step_gradients)
        before_tanh = torch.empty_like(self.prior, memory_format=torch.contiguous_format)
        prior = actor.place(self.latents[-1], self.prior, before_tanh, self.latent_gradients[-1])
        values = critics.place(self.inputs[-1], self.values, self.shares, self.gradients[-1])

        # The least critic of each sample, nan before all numbers, receives the terminal weight.
        least = torch.zeros_like(self.final, dtype=torch.long)
        self.forward: list[Operation] = [operation for each in (*steps, rewards, prior) for operation in each.forward]
        self.forward += [self.prior.tanh_, *values.forward]
        self.forward.append(partial(torch.min, self.values, 1, keepdim=True, out=(self.final, least)))

        self.backward: list[Operation] = [self.all_gradients.zero_, self.shares.zero_]
        self.backward += [partial(self.shares.scatter_, 1, least, self.final_weight), *values.backward]
        self.backward.append(tanh_backward(self.prior_gradient, self.prior, before_tanh))
        self.backward += [operation for each in (prior, rewards, *reversed(steps)) for operation in each.backward]

    def returns(self) -> Tensor:
        """:return: what the last run forward imagined ``[B]``"""
        return torch.mv(self.terms.t(), self.weights)
