"""The imagined return as an objective for a trajectory optimiser, with a fast gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from difftori_gym.models.latent_model import LatentModel, latent_return
from difftori_gym.models.manual_gradient import Backward, tanh, with_backward


class LatentObjective:
    """
    Action sequences ``[B, H, A]`` -> imagined returns ``[B]`` from given latent states, see :func:`latent_return`.

    Called, it is differentiable in everything. :meth:`value_and_gradient` gives numbers only, several times faster.

    :param model: what is imagined with; its weights must not change while the objective is in use
    :param z0: latent states ``[B, Z]``
    :param discount: per-step discount, in (0, 1]
    """

    def __init__(self, model: LatentModel, z0: Tensor, *, discount: float) -> None:
        self.model, self.z0, self.discount = model, z0, discount
        # An episodic objective multiplies by survival probabilities; autograd takes that one.
        networks = [] if model.episodic else [model.dynamics, model.reward, model.actor, *model.critic.members]
        layers = [with_backward(network) for network in networks]
        known = [layer for layer in layers if layer is not None]
        self._layers = known if len(known) == len(networks) else []

    def __call__(self, actions: Tensor) -> Tensor:
        """
        :param actions: ``[B, H, A]`` in [-1, 1]
        :return: returns ``[B]``, differentiable in ``z0``, ``actions`` and the model's parameters
        """
        return latent_return(self.model, self.z0, actions, discount=self.discount)

    def value_and_gradient(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        """
        :param actions: ``[B, H, A]`` in [-1, 1]
        :return: returns ``[B]`` and their gradient in the actions ``[B, H, A]``, both without a graph
        """
        if not self._layers:
            return self._by_autograd(actions)
        with torch.no_grad():
            return self._by_hand(actions)

    def _by_autograd(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            point = actions.detach().requires_grad_()
            value = self(point)
            (gradient,) = torch.autograd.grad(value.sum(), point)
        return value.detach(), gradient

    def _by_hand(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        dynamics, reward, actor, *critics = self._layers
        latent_dim, horizon = self.model.latent_dim, actions.shape[1]
        z = self.z0.detach()
        steps: list[tuple[Backward, Backward]] = []
        total = torch.zeros_like(z[:, :1])
        weight = 1.0
        for t in range(horizon):
            x = torch.cat([z, actions[:, t]], dim=-1)
            r, reward_backward = reward(x)
            z, dynamics_backward = dynamics(x)
            total = torch.add(total, r, alpha=weight)  # [B, 1]
            weight *= self.discount
            steps.append((dynamics_backward, reward_backward))

        raw, actor_backward = actor(z)
        action, tanh_backward = tanh(raw)
        x = torch.cat([z, action], dim=-1)
        values, backwards = zip(*(critic(x) for critic in critics), strict=True)
        joined = torch.cat(values, dim=-1)  # [B, n_critics]
        least, chosen = joined.min(dim=-1, keepdim=True)
        total = torch.add(total, least, alpha=weight)

        # Backwards: the least critic of each sample receives the terminal weight.
        share = torch.zeros_like(joined).scatter_(1, chosen, weight)  # [B, n_critics]
        grad_x = sum(backward(share[:, k : k + 1]) for k, backward in enumerate(backwards))
        assert isinstance(grad_x, Tensor)
        grad_z = grad_x[:, :latent_dim] + actor_backward(tanh_backward(grad_x[:, latent_dim:]))
        gradients = []
        for t in reversed(range(horizon)):
            weight /= self.discount
            dynamics_backward, reward_backward = steps[t]
            grad_x = dynamics_backward(grad_z) + reward_backward(torch.full_like(total, weight))
            grad_z = grad_x[:, :latent_dim]
            gradients.append(grad_x[:, latent_dim:])
        gradients.reverse()
        return total[:, 0], torch.stack(gradients, dim=1)
