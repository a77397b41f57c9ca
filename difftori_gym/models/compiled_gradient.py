"""
Value and gradient of the imagined return by ``torch.compile``, where a compiler is at hand.

On a GPU it saves most of the time between small kernels; on a CPU the list of calls is as fast without compiling. One
graph serves all batches of two and more of a horizon, and one a batch of one.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from difftori_gym.models.latent_model import LatentModel, latent_return

ValueAndGradient = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""z0 ``[B, Z]`` and actions ``[B, H, A]`` -> returns ``[B]`` and their gradient ``[B, H, A]``, without a graph."""

GRAPH_LIMIT = 64
"""Greatest number of graphs: two for each horizon of the schedule, dtype and kind of device, and some to spare."""

_compiled: WeakKeyDictionary[nn.Module, dict[float, ValueAndGradient]] = WeakKeyDictionary()
_refused: set[str] = set()
_log = logging.getLogger(__name__)


def compiled_value_and_gradient(
    model: LatentModel, z0: Tensor, actions: Tensor, *, discount: float
) -> tuple[Tensor, Tensor] | None:
    """
    Returns ``[B]`` and their gradient ``[B, H, A]`` as of :func:`latent_return`, without a graph.

    None where nothing can be compiled, which is found out once for each kind of device.
    """
    device = actions.device.type
    if device in _refused:
        return None
    per_discount = _compiled.setdefault(model, {})
    if discount not in per_discount:
        per_discount[discount] = _compile(model, discount, device)
    z0, actions = z0.detach(), actions.detach()
    if len(actions) > 1:
        for tensor in (z0, actions):
            torch._dynamo.mark_dynamic(tensor, 0)
    try:
        with torch._dynamo.config.patch(recompile_limit=GRAPH_LIMIT):
            value, gradient = per_discount[discount](z0, actions)
    except Exception as error:  # no compiler, an old one, a device it does not know: each raises its own
        _refused.add(device)
        _log.info("torch.compile failed for %s, the planner goes on without: %s", device, error)
        return None
    # CUDA graphs write the next answer over this one.
    return value.clone(), gradient.clone()


def _compile(model: LatentModel, discount: float, device: str) -> ValueAndGradient:
    reference = weakref.ref(model)  # else the entry in the dictionary would keep its own key alive

    def value_and_gradient(z0: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        def total(point: Tensor) -> tuple[Tensor, Tensor]:
            living = reference()
            assert living is not None
            value = latent_return(living, z0, point, discount=discount)
            return value.sum(), value

        gradient, value = torch.func.grad(total, has_aux=True)(actions)
        return value.detach(), gradient.detach()

    return torch.compile(value_and_gradient, mode="reduce-overhead" if device == "cuda" else None)
