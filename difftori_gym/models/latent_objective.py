"""The imagined return as an objective for a trajectory optimiser, with a fast gradient."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from difftori_gym.models.call_lists import Modules, Parts, ScanObjective
from difftori_gym.models.compiled_gradient import compiled_value_and_gradient
from difftori_gym.models.latent_model import LatentModel, latent_return
from difftori_gym.models.mlp import EnsembleCritic
from difftori_gym.models.powers import powers


class LatentObjective(ScanObjective):
    """
    Action sequences ``[B, H, A]`` -> imagined returns ``[B]`` from given latent states, see :func:`latent_return`.

    Called, it is differentiable in everything. :meth:`value_and_gradient` gives numbers only, several times faster.

    :param model: what is imagined with; its weights must not change while the objective is in use
    :param z0: latent states ``[B, Z]``
    :param discount: per-step discount, in (0, 1]
    :param compile: whether :meth:`value_and_gradient` is compiled by ``torch.compile``, where that is possible
    """

    def __init__(self, model: LatentModel, z0: Tensor, *, discount: float, compile: bool = False) -> None:
        super().__init__(model, modules_of(model), z0, discount)
        self.model, self.compile = model, compile

    def __call__(self, actions: Tensor) -> Tensor:
        """
        Actions ``[B, H, A]`` in [-1, 1] -> returns ``[B]``, differentiable in ``z0``, actions and the model's
        parameters.

        They are nan for a latent state that is not finite, which gets no gradient and gives none.
        """
        # Kept out of the networks: in their backward 0 * nan would otherwise reach the weights all samples share.
        z0 = torch.where(self._whole[:, None], self.z0, 0.0)
        imagined = latent_return if self._modules is None else _latent_return_of_rows
        return torch.where(self._whole, imagined(self.model, z0, actions, discount=self.discount), torch.nan)

    def repeat(self, n: int) -> LatentObjective:
        """The objective of ``n`` copies of the batch, one after the other."""
        return LatentObjective(self.model, self.z0.repeat(n, 1), discount=self.discount, compile=self.compile)

    def value_and_gradient(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        if self.compile:
            found = compiled_value_and_gradient(self.model, self.z0, actions, discount=self.discount)
            if found is not None:
                return found
        return super().value_and_gradient(actions)

    def value_only(self, actions: Tensor) -> Tensor:
        if self.compile:
            with torch.no_grad():
                return self(actions)
        return super().value_only(actions)

    @cached_property
    def _whole(self) -> Tensor:
        """Mask ``[B]`` of latent states that are finite."""
        return torch.isfinite(self.z0.detach()).all(-1)


def modules_of(model: LatentModel) -> Modules | None:
    """The model's networks; None for a subclass that joins them in another way."""
    own = all(getattr(type(model), name) is getattr(LatentModel, name) for name in ("next", "Q", "pi", "survival"))
    if not own or type(model.critic) is not EnsembleCritic:
        return None
    return Parts(
        head=[model.reward],
        dynamics=[model.dynamics],
        termination=[model.termination] if model.episodic else None,
        prior=[model.actor],
        critics=[*model.critic.members],
    )


def _latent_return_of_rows(model: LatentModel, z0: Tensor, actions: Tensor, *, discount: float) -> Tensor:
    """:func:`latent_return` with all rewards in one call, and all terminations: less to record and to differentiate."""
    batch, horizon, _ = actions.shape
    z, inputs, entered = z0, [], []
    for action in actions.unbind(dim=1):  # [B, A]
        inputs.append(torch.cat([z, action], dim=-1))
        z = model.dynamics(inputs[-1])
        entered.append(z)
    rewards, value = model.reward(torch.cat(inputs)).view(horizon, batch), model.Q(z, model.pi(z)).amin(dim=0)
    weights = powers(discount, horizon + 1, actions)  # [H + 1, 1]
    if model.episodic:
        logits = model.termination(torch.cat(entered)).view(horizon, batch)
        # The logarithms are added up: a product's derivative would wait for the device, to look for zeros.
        survived = F.logsigmoid(-logits).cumsum(dim=0).exp()
        weights = weights * torch.cat([torch.ones_like(survived[:1]), survived])
    return (weights * torch.cat([rewards, value[None]])).sum(dim=0)
