"""
What a planner maximises, imagined step by step, with its gradient in the actions.

sum_{t<H} discount^t c_t h(z_t, a_t) + discount^H c_H min_k Q_k(z_H, pi(z_H)), with z_{t+1} = d(z_t, a_t) and c_t the
probability of having survived on entering z_1 to z_t. End and survival may be missing, and so may the dynamics: then
the head reads all actions at once.

To make the lists takes as long as two or three evaluations, so they are kept from plan to plan, by thread and as long
as their owner lives; states and the few weights that are kept a second time are written anew.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from difftori_gym.models.call_lists.layers import Copies, Operation
from difftori_gym.models.call_lists.networks import Network, Pass, has_hooks, layers_of, network_of
from difftori_gym.models.powers import powers

MOST_ROWS, MOST_SHAPES = 64, 8
"""Larger batches, and more shapes than these, are not kept: their memory is not small any more."""

_kept = threading.local()
T = TypeVar("T")


@dataclass(frozen=True)
class Parts(Generic[T]):
    """
    What is imagined with: modules, one or several side by side, or networks made of them.

    :param head: (z_t, a_t) -> term h ``[B, 1]``
    :param dynamics: (z_t, a_t) -> next state ``[B, Z]``; None for a head that reads (z_0, a_0 ... a_H) at once
    :param termination: state -> logit of having terminated on entering it ``[B, 1]``, None if nothing ever does
    :param prior: state -> action at the end, before its tanh; None for no end
    :param critics: (state, action) -> values of the end ``[B, N]``; None for no end
    :param shared: so many inputs of the head's first layer are replaced by what it makes of them, see ``linear``
    """

    head: T
    dynamics: T | None = None
    termination: T | None = None
    prior: T | None = None
    critics: T | None = None
    shared: int = 0

    def present(self) -> dict[str, T]:
        """What there is, by name."""
        return {name: part for name, part in vars(self).items() if part is not None and name != "shared"}


Modules = Parts[Sequence[nn.Module]]


def scans_of(owner: nn.Module, modules: Modules) -> Scans | None:
    """What is kept for ``owner``, made anew if layers or weights are others than before; None if it is for autograd."""
    if not hasattr(_kept, "by_owner"):
        _kept.by_owner = WeakKeyDictionary()
    found: Scans | None = _kept.by_owner.get(owner)
    if found is None or found.state != _State(modules):
        _kept.by_owner[owner] = found = Scans(modules)
    return None if found.networks is None else found


class _State:
    """Layers, hooks, weights and their places in memory."""

    def __init__(self, modules: Modules) -> None:
        parts = modules.present().values()
        self._layers = [layer for part in parts for module in part for layer in layers_of(module)]
        self._weights = [weight for layer in self._layers for weight in layer._parameters.values()]
        # As long as they live, which is as long as this does, nothing else has their ids.
        self._ids = [(id(layer), has_hooks(layer)) for layer in self._layers]
        self._places = [None if each is None else (id(each), each.data_ptr(), each.dtype) for each in self._weights]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _State) and self._ids == other._ids and self._places == other._places


class Scans:
    """Lists of calls for the shapes that there were."""

    def __init__(self, modules: Modules) -> None:
        self.state = _State(modules)
        made: dict[str, Any] = {name: network_of(part) for name, part in modules.present().items()}
        made["head"] = network_of(modules.head, shared=modules.shared)
        if modules.prior is not None:
            made["prior"] = network_of(modules.prior, nn.Tanh())
        self.networks: Parts[Network] | None = None if None in made.values() else Parts(**made)
        self._by_shape: dict[object, Scan] = {}

    def scan(self, z0: Tensor, actions: Tensor, discount: float) -> Scan:
        """The lists for states ``[B, Z]``, actions ``[B, H, A]`` and discount, made of shapes and kept."""
        assert self.networks is not None
        key = (actions.shape, z0.shape, actions.dtype, z0.dtype, z0.device, discount)
        scan = self._by_shape.get(key) or Scan(self.networks, z0, actions, discount)
        if len(actions) <= MOST_ROWS:
            if len(self._by_shape) == MOST_SHAPES and key not in self._by_shape:
                self._by_shape.clear()
            self._by_shape[key] = scan
        return scan


class Scan:
    """
    What the networks read and write, views of it, and the calls in order, for one shape of states and actions.

    Row t < H of the inputs is (z_t, a_t) and row H is (z_H, pi(z_H)), so each network finds its input in one piece;
    only dynamics need one step after the other. The gradients have the same rows.
    """

    def __init__(self, networks: Parts[Network], z0: Tensor, actions: Tensor, discount: float) -> None:
        (batch, horizon, action_dim), state_dim = actions.shape, z0.shape[1]
        steps, width = (1, horizon * action_dim) if networks.dynamics is None else (horizon, action_dim)
        rows = steps + (networks.critics is not None)
        first = torch.cat([z0, actions.reshape(batch, steps, width)[:, 0]], dim=-1)  # raises if the two do not fit
        both = first.repeat(2, rows, 1, 1)  # inputs and gradients [rows, B, Z + A]
        of_states, of_actions = both.split([state_dim, width], dim=-1)
        self._inputs, self._gradients = both.unbind()
        self._states, self._state_gradients = of_states.unbind()
        self._last_action, self._last_action_gradient = of_actions[:, -1].unbind()  # [B, A]
        sequences = of_actions[:, :steps].transpose(1, 2).view(2, *actions.shape)
        self.actions, self.action_gradients = sequences.unbind()  # [B, H, A]

        self._discounts = powers(discount, rows, first)  # [rows, 1]
        self._weights = self._discounts.repeat(1, batch)  # of each term [rows, B]
        self._terms = torch.empty_like(self._weights)
        self._survives = networks.termination is not None
        self._copies = Copies()
        passes = [*self._steps(networks), *self._survival(networks), self._head(networks, steps), *self._end(networks)]
        self._forward = [call for forward, _ in passes for call in forward]
        self._both_ways = self._forward + [call for _, backward in reversed(passes) for call in backward]
        self._served: object | None = None

    def _steps(self, networks: Parts[Network]) -> list[Pass]:
        """Dynamics, one row after the other."""
        if networks.dynamics is None:
            return []
        states, gradients = self._states[1:], self._state_gradients[1:]
        each = zip(self._inputs[:-1], states, gradients, self._gradients[:-1], strict=True)
        return [networks.dynamics.place(*memory, self._copies) for memory in each]

    def _survival(self, networks: Parts[Network]) -> list[Pass]:
        """What each term counts: discount times the probabilities of having survived so far."""
        if networks.termination is None or len(self._weights) == 1:
            return []
        states, gradients = (rows[1:].view(-1, rows.shape[-1]) for rows in (self._states, self._state_gradients))
        weights, counted = self._weights[1:], torch.empty_like(self._weights)
        logits, to_logits, survived, later = weights.new_empty(4, *weights.shape).unbind()
        ahead, back = networks.termination.place(
            states, logits.view(-1, 1), to_logits.view(-1, 1), gradients, self._copies
        )
        forward: list[Operation] = [
            *ahead,
            logits.neg_,
            partial(torch.sigmoid, logits, out=survived),
            partial(torch.cumprod, survived, 0, out=weights),
            partial(weights.mul_, self._discounts[1:]),
        ]
        # With s = sigmoid(-l), d log s = -(1 - s) dl: a logit takes this share of all that comes later.
        minus_all_later = -weights.new_ones(len(counted), len(counted)).triu()[1:]
        backward: list[Operation] = [
            partial(torch.mul, self._weights, self._terms, out=counted),
            partial(torch.mm, minus_all_later, counted, out=later),
            partial(torch.addcmul, later, later, survived, value=-1.0, out=to_logits),
            *back,
        ]
        return [(forward, backward)]

    def _head(self, networks: Parts[Network], steps: int) -> Pass:
        """All terms at once; backward, the first to write gradients of its rows, as the critics are of theirs."""
        rows = self._inputs[:steps].flatten(0, 1), self._terms[:steps].view(-1, 1), self._weights[:steps].view(-1, 1)
        into = self._gradients[:steps].flatten(0, 1)
        return networks.head.place(*rows, into, self._copies, add=False, fixed=not self._survives)

    def _end(self, networks: Parts[Network]) -> list[Pass]:
        """The prior's action in the last state, and the least of the values of both."""
        if networks.prior is None or networks.critics is None:
            return []
        action, copies, to_state = self._last_action, self._copies, self._state_gradients[-1]
        prior = networks.prior.place(self._states[-1], action, self._last_action_gradient, to_state, copies)
        values, shares = action.new_empty(2, len(action), len(networks.critics.columns[0])).unbind()
        ahead, back = networks.critics.place(self._inputs[-1], values, shares, self._gradients[-1], copies, add=False)
        # The least value of each sample, nan before all numbers, receives the weight of the end.
        least, end = action.new_zeros(len(action), 1, dtype=torch.long), self._terms[-1, :, None]
        choose = partial(torch.min, values, 1, keepdim=True, out=(end, least))
        give = partial(shares.scatter_, 1, least, self._weights[-1, :, None])
        return [prior, ([*ahead, choose], [shares.zero_, give, *back])]

    def run(self, token: object, z0: Tensor, actions: Tensor, gradient: bool) -> None:
        """
        Fill in values, and the gradient ``[B, H, A]`` in :attr:`action_gradients` if it is wanted.

        States and weights are written down only for another ``token``, which stands for the caller, than last time.
        """
        if self._served is not token:
            self._served = token
            self._states[0].copy_(z0)
            for call in self._copies.due:
                call()
        self.actions.copy_(actions)
        for call in self._both_ways if gradient else self._forward:
            call()

    def values(self) -> Tensor:
        """Of the last actions ``[B]``."""
        if self._survives:
            return (self._weights * self._terms).sum(0)
        return torch.mv(self._terms.t(), self._discounts[:, 0])
