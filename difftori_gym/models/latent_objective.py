"""The imagined return as an objective for a trajectory optimiser, with a fast gradient."""

from __future__ import annotations

from functools import cached_property, partial

import torch
from torch import Tensor

from difftori_gym.models.compiled_gradient import compiled_value_and_gradient
from difftori_gym.models.latent_linearization import linearize_latent_return
from difftori_gym.models.latent_model import LatentModel, latent_return
from difftori_gym.models.manual_ensemble import ensemble_with_backward
from difftori_gym.models.manual_gradient import Network, with_backward
from difftori_gym.models.manual_layers import Operation, run, tanh_backward


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
        self._buffers: _Buffers | None = None

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
        if not self._networks or torch.is_autocast_enabled(actions.device.type):
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
        if self.compile or not self._networks or torch.is_autocast_enabled(actions.device.type):
            with torch.no_grad():
                return self(actions)
        with torch.inference_mode():
            buffers = self._imagined(actions)
        return buffers.returns()

    def _imagined(self, actions: Tensor) -> _Buffers:
        if self._buffers is None or self._buffers.actions.shape != actions.shape:
            num_critics = len(self.model.critic.members)
            self._buffers = _Buffers(self.z0, actions, self._networks, num_critics, self.discount)
        self._buffers.actions.copy_(actions)
        run(self._buffers.forward)
        return self._buffers

    def differentiable_value_and_gradient(self, actions: Tensor) -> tuple[Tensor, Tensor] | None:
        """
        :param actions: ``[B, H, A]`` in [-1, 1]
        :return: returns ``[B]`` and their gradient in the actions ``[B, H, A]``, both with a graph that can be
            differentiated once, several times faster than autograd's; None for a model that has to be left to autograd
        """
        if not self._networks or torch.is_autocast_enabled(actions.device.type):
            return None
        return linearize_latent_return(self.model, self.z0, actions, discount=self.discount)

    @cached_property
    def _whole(self) -> Tensor:
        """Mask ``[B]`` of latent states that are finite."""
        return torch.isfinite(self.z0.detach()).all(-1)

    @cached_property
    def _networks(self) -> list[Network]:
        """Dynamics, reward, actor and all critics with their backward passes; empty if they are for autograd."""
        model = self.model
        if model.episodic:  # survival probabilities multiply the terms
            return []
        with torch.inference_mode():
            each = [*map(with_backward, (model.dynamics, model.reward, model.actor))]
            each.append(ensemble_with_backward([*model.critic.members]))
        networks = [network for network in each if network is not None]
        return networks if len(networks) == len(each) else []

    def _by_autograd(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            point = actions.detach().requires_grad_()
            value = self(point)
            (gradient,) = torch.autograd.grad(value.sum(), point)
        return value.detach(), gradient


class _Buffers:
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

    def _place(self, dynamics: Network, reward: Network, actor: Network, critics: Network) -> None:
        """All operations in order. Only the dynamics need one step after the other, the reward takes all at once."""
        steps = [
            dynamics(self.inputs[t], self.latents[t + 1], self.latent_gradients[t + 1], self.gradients[t])
            for t in range(len(self.inputs) - 1)
        ]
        rewards = reward(self.step_inputs, self.rewards, self.reward_weights, self.step_gradients)
        before_tanh = torch.empty_like(self.prior, memory_format=torch.contiguous_format)
        prior = actor(self.latents[-1], self.prior, before_tanh, self.latent_gradients[-1])
        values = critics(self.inputs[-1], self.values, self.shares, self.gradients[-1])

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
