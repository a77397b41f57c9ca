"""
Stage d: the networks of many seeds side by side in one process, their layers as batched products.

The learner has no such thing. What is measured is the part of its update that vectorises as it is written: targets,
model loss with its gradient, clipping and Adam, for N seeds by ``torch.func.vmap`` over stacked weights, and beside it
the same for one seed. The policy-gradient loss, the prior's and acting are not in it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from difftori_gym.learning.captured import Captured
from difftori_gym.models import EnsembleCritic, LatentEncoder, LatentModel
from difftori_gym.rl.losses import LossCoefficients, Returns, model_loss, td_target
from gpu_stages.planning import timed
from gpu_stages.stage import WALKER, Stage, heads

FRAMES, REPEAT = 1_000_000, 2
"""Of walker-walk: so many frames, in steps of so many, one update a step."""
LEARNING_RATE, MAX_NORM = 1e-3, 10.0


class _Loss(nn.Module):
    """The model loss of one seed, of tensors, as DiffTORI's update has it."""

    def __init__(self, encoder: LatentEncoder, model: LatentModel) -> None:
        super().__init__()
        self.encoder, self.model = encoder, model
        self.encoder_target, self.critic_target = copy.deepcopy(encoder), copy.deepcopy(model.critic)

    def forward(self, first: Tensor, following: Tensor, actions: Tensor, rewards: Tensor, noise: Tensor) -> Tensor:
        shape, ones = rewards.shape, torch.ones_like(rewards)
        flat = following.flatten(0, 1)
        next_z = self.encoder(flat).unflatten(0, shape).detach()
        next_target = self.encoder_target(flat).unflatten(0, shape).detach()
        last = torch.arange(shape[1], device=rewards.device).expand(shape)
        critic: Any = self.critic_target
        assert isinstance(critic, EnsembleCritic)
        values = td_target(self.model, critic, next_z, Returns(rewards, 0.99 * ones, last), noise=noise)
        none, weights = torch.zeros_like(rewards), torch.ones_like(rewards[:, 0])
        loss = model_loss(
            self.model,
            self.encoder(first),
            actions,
            next_target,
            rewards,
            values,
            none,
            ones,
            ones,
            weights,
            LossCoefficients(),
        )
        return loss.total


class _Flat(nn.Identity):
    def __init__(self, features_dim: int) -> None:
        super().__init__()
        self.features_dim = features_dim


def run(stage: Stage) -> None:
    """:param stage: what is measured with"""
    table = stage.table(
        "d_seeds",
        ("width", "batch", "seeds", "way"),
        ("ms", "updates_of_seeds_per_s", "part_of_seeds_per_hour", "peak_mib"),
    )
    width, batch = stage.choose((128, 128), (8, 4))
    for size, rows in stage.choose(((128, 128), (512, 256)), ((width, batch),)):
        for seeds in stage.choose((1, 8, 32, 128), (1, 3)):
            for manner in ("graph", "eager"):
                key = dict(width=size, batch=rows, seeds=seeds, way=manner)
                stage.row(table, lambda key=key: _measure(stage, **key), 15.0, **key)


def _measure(stage: Stage, *, width: int, batch: int, seeds: int, way: str) -> dict[str, Any]:
    step, inputs = side_by_side(seeds, width, batch, stage.device)
    captured = Captured("The update of seeds")
    found = timed(stage, lambda: captured(step, inputs), way)
    rate = 1000.0 * seeds / found["ms"]
    return dict(
        ms=found["ms"],
        updates_of_seeds_per_s=rate,
        part_of_seeds_per_hour=3600.0 * rate / (FRAMES / REPEAT),
        peak_mib=found["peak_mib"],
    )


def side_by_side(
    seeds: int, width: int, batch: int, device: torch.device, horizon: int = 5
) -> tuple[Any, list[Tensor]]:
    """
    :param seeds: N
    :param width: of the hidden layers
    :param batch: windows of each seed
    :param device: where everything lies
    :param horizon: steps of a window
    :return: a step of all seeds, tensors -> losses ``[N]``, and the tensors
    """
    size, action_size = WALKER
    arch, members = heads(width), list[nn.Module]()
    for seed in range(seeds):
        torch.manual_seed(seed)
        encoder = LatentEncoder(_Flat(size), [256 if width > 64 else width], 50)
        networks = {f"{name}_arch": arch[name] for name in ("dynamics", "reward", "qf", "pi")}
        members.append(_Loss(encoder, LatentModel(50, action_size, **networks)).to(device))
    template = copy.deepcopy(members[0]).to("meta")
    parameters, buffers = torch.func.stack_module_state(members)
    names = [name for name in parameters if name.startswith(("encoder.", "model.")) and "actor" not in name]
    fixed = {name: value.detach() for name, value in parameters.items() if name not in names}
    learned = {name: parameters[name].detach() for name in names}
    means = [torch.zeros_like(value) for value in learned.values()]
    squares = [torch.zeros_like(value) for value in learned.values()]
    counts = [torch.zeros((), device=device) for _ in learned]

    def loss(own: dict[str, Tensor], rest: dict[str, Tensor], kept: dict[str, Tensor], *batch: Tensor) -> Any:
        total = torch.func.functional_call(template, (own, rest, kept), batch)
        return total, total

    gradients_of = torch.func.vmap(torch.func.grad(loss, has_aux=True))

    def step(tensors: Sequence[Tensor]) -> list[Tensor]:
        gradients, losses = gradients_of(learned, fixed, buffers, *tensors)
        found = [gradients[name] for name in names]
        norm = sum(each.flatten(1).square().sum(1) for each in found).sqrt()  # [N], of each seed
        scale = (MAX_NORM / (norm + 1e-6)).clamp(max=1.0)
        for each in found:
            each.mul_(scale.view(-1, *[1] * (each.dim() - 1)))
        torch._foreach_add_(counts, 1.0)
        options = dict(lr=LEARNING_RATE, beta1=0.9, beta2=0.999, weight_decay=0.0, eps=1e-8)
        torch._fused_adam_(
            list(learned.values()), found, means, squares, [], counts, **options, amsgrad=False, maximize=False
        )
        return [losses]

    torch.manual_seed(0)
    shapes = ((size,), (horizon, size), (horizon, action_size), (horizon,), (horizon, action_size))
    return step, [torch.rand(seeds, batch, *shape, device=device) for shape in shapes]
