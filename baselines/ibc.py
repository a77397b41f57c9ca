"""
Implicit behaviour cloning (Florence et al. 2021, arXiv 2109.00137): a network scores observations and actions, trained
to tell demonstrated actions from others; acting is a search for the best action.

Two published ways of finding others and of searching, each with its published numbers: ``"dfo"``, derivative-free
(``pushing_states/mlp_ebm_best.gin``), and ``"langevin"``, by Langevin dynamics with a penalty on gradients above 1
(``particle/mlp_ebm_langevin_best.gin``). The network is the residual one of the first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from torch import Tensor, nn
from torch.nn import functional as F

from difftori_gym.il.demonstrations import Demonstrations
from difftori_gym.il.learner import ImitationAlgorithm
from difftori_gym.il.losses import ImitationLoss
from difftori_gym.il.networks import ChunkNetwork, ObservationEncoder, TrainingBatch
from difftori_gym.il.policies import ImitationPolicy, aliases_of
from difftori_gym.observations import TensorObs

Sampling = Literal["dfo", "langevin"]
COUNTER_EXAMPLES: dict[str, int] = {"dfo": 256, "langevin": 8}
ACTION_SAMPLES: dict[str, int] = {"dfo": 16384, "langevin": 512}
BOUNDARY_BUFFER = 0.05
DFO_STD, DFO_SHRINKAGE = 0.33, 0.5
LANGEVIN_STEP, LANGEVIN_FINAL_STEP, LANGEVIN_POWER = 0.1, 1e-5, 2.0
LANGEVIN_CLIP = 0.1
GRADIENT_MARGIN = 1.0
LIMIT = 1.0 + BOUNDARY_BUFFER


@dataclass(frozen=True)
class ImplicitLoss(ImitationLoss):
    """
    :param info_nce: cross-entropy of recognising the demonstrated action
    :param gradient_penalty: mean squared excess of gradients, 0 for ``"dfo"``
    :param accuracy: share of samples in which the demonstrated action scores best
    """

    info_nce: Tensor
    gradient_penalty: Tensor
    accuracy: Tensor


class Draws:
    """
    Random numbers for B samples.

    Deterministic ones are the same for all samples and every sequence of calls, so that an answer depends neither on
    earlier ones nor on the rest of the batch; others are of Torch's global generator.
    """

    def __init__(self, batch: int, deterministic: bool, device: torch.device) -> None:
        self._batch, self._device = batch, device
        self._generator = torch.Generator(device).manual_seed(0) if deterministic else None

    def uniform(self, *shape: int) -> Tensor:
        """``[B, *shape]`` in [0, 1)."""
        return self._of(torch.rand, shape)

    def normal(self, *shape: int) -> Tensor:
        """``[B, *shape]``, standard normal."""
        return self._of(torch.randn, shape)

    def _of(self, draw: Callable[..., Tensor], shape: tuple[int, ...]) -> Tensor:
        if self._generator is None:
            return draw(self._batch, *shape, device=self._device)
        return draw(1, *shape, device=self._device, generator=self._generator).expand(self._batch, *shape)


class ResidualScore(nn.Module):
    """Score of a condition and actions, minus the energy: residual blocks of two layers with the activation first."""

    def __init__(self, condition_dim: int, action_dim: int, width: int, depth: int) -> None:
        super().__init__()
        if depth < 2 or depth % 2:
            raise ValueError(f"IBC needs an even depth >= 2, got {depth}.")
        self.condition = nn.Linear(condition_dim, width)
        self.action = nn.Linear(action_dim, width, bias=False)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
            for _ in range(depth // 2)
        )
        self.output = nn.Linear(width, 1)

    def forward(self, condition: Tensor, actions: Tensor) -> Tensor:
        """Condition ``[B, C]`` and actions ``[B, N, action_dim]`` -> scores ``[B, N]``."""
        x = self.condition(condition)[:, None] + self.action(actions)
        for block in self.blocks:
            x = x + block(x)
        return self.output(x).squeeze(-1)


class IBCNetwork(ChunkNetwork):
    def __init__(
        self,
        encoder: ObservationEncoder,
        horizon: int,
        action_dim: int,
        *,
        sampling: Sampling = "dfo",
        width: int = 128,
        depth: int = 8,
        num_counter_examples: int,
        num_action_samples: int,
        num_iterations: int,
    ) -> None:
        super().__init__(encoder, horizon, action_dim)
        self.sampling = sampling
        self.num_counter_examples, self.num_action_samples = num_counter_examples, num_action_samples
        self.num_iterations = num_iterations
        self.score = ResidualScore(self.condition_dim, horizon * action_dim, width, depth)

    def loss(self, batch: TrainingBatch) -> ImplicitLoss:
        """InfoNCE, and for ``"langevin"`` the gradient penalty."""
        condition = self.encoder(batch.observations).flatten(1)
        draws = Draws(len(condition), False, condition.device)
        others = self._uniform(draws, self.num_counter_examples)
        penalty = condition.new_zeros(())
        if self.sampling == "langevin":
            others = langevin(self.score, condition.detach(), others, draws, self.num_iterations)
            penalty = gradient_penalty(self.score, condition, others)
        scores = self.score(condition, torch.cat([batch.actions.flatten(1)[:, None], others], dim=1))
        info_nce = info_nce_loss(scores)
        accuracy = (scores.detach().argmax(dim=1) == 0).float().mean()
        return ImplicitLoss(info_nce + penalty, info_nce.detach(), penalty.detach(), accuracy)

    def chunk(self, observations: TensorObs, noise: Tensor, start: Tensor | None, deterministic: bool) -> Tensor:
        """The best sample that the search found."""
        condition = self.encoder(observations).flatten(1)
        draws = Draws(len(condition), deterministic, condition.device)
        samples = self._uniform(draws, self.num_action_samples)
        search = langevin if self.sampling == "langevin" else derivative_free
        samples = search(self.score, condition, samples, draws, self.num_iterations)
        best = self.score(condition, samples).argmax(dim=1)
        chosen = samples[torch.arange(len(samples), device=samples.device), best]
        return chosen.view(-1, self.horizon, self.action_dim).clamp(-1.0, 1.0)

    def _uniform(self, draws: Draws, count: int) -> Tensor:
        return LIMIT * (2.0 * draws.uniform(count, self.horizon * self.action_dim) - 1.0)


def info_nce_loss(scores: Tensor) -> Tensor:
    """Mean cross-entropy ``[]`` of recognising the demonstrated action, whose score is the first of ``[B, 1 + N]``."""
    return F.cross_entropy(scores, torch.zeros(len(scores), dtype=torch.long, device=scores.device))


@torch.no_grad()
def derivative_free(score: ResidualScore, condition: Tensor, samples: Tensor, draws: Draws, iterations: int) -> Tensor:
    """Resample ``[B, N, action_dim]`` by probability, perturb, and again with smaller perturbations."""
    std = DFO_STD
    for _ in range(iterations):
        cumulative = score(condition, samples).softmax(dim=1).cumsum(dim=1)
        picks = draws.uniform(samples.shape[1]).contiguous()
        index = torch.searchsorted(cumulative, picks).clamp(max=samples.shape[1] - 1)
        samples = samples.take_along_dim(index[:, :, None], dim=1)
        samples = (samples + std * draws.normal(*samples.shape[1:])).clamp(-LIMIT, LIMIT)
        std *= DFO_SHRINKAGE
    return samples


def langevin(score: ResidualScore, condition: Tensor, samples: Tensor, draws: Draws, iterations: int) -> Tensor:
    """Noisy gradient ascent of ``[B, N, action_dim]``, detached, with polynomially falling steps."""
    for index in range(iterations):
        share = 1.0 - index / max(iterations - 1, 1)
        step = (LANGEVIN_STEP - LANGEVIN_FINAL_STEP) * share**LANGEVIN_POWER + LANGEVIN_FINAL_STEP
        with torch.enable_grad():
            point = samples.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(score(condition, point).sum(), point)
        move = step * (0.5 * gradient + draws.normal(*samples.shape[1:]))
        samples = (samples + move.clamp(-LANGEVIN_CLIP, LANGEVIN_CLIP)).clamp(-LIMIT, LIMIT)
    return samples.detach()


def gradient_penalty(score: ResidualScore, condition: Tensor, samples: Tensor) -> Tensor:
    """Mean squared excess ``[]`` of the largest entry of the score's gradient over 1, which weights can learn from."""
    point = samples.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(score(condition, point).sum(), point, create_graph=True)
    return (gradient.abs().amax(dim=-1) - GRADIENT_MARGIN).clamp(min=0.0).square().mean()


class IBCPolicy(ImitationPolicy):
    """
    Further arguments are those of :class:`~difftori_gym.il.policies.ImitationPolicy`.

    - ``width``: of every layer
    - ``depth``: layers

    :param sampling: ``"dfo"`` or ``"langevin"``
    :param num_counter_examples: others that a demonstrated action is compared with; None for the published number
    :param num_action_samples: samples when acting; None for the published number
    :param num_iterations: of the search; None for the published number
    """

    network_class = IBCNetwork

    def __init__(
        self,
        *args: Any,
        sampling: Sampling = "dfo",
        num_counter_examples: int | None = None,
        num_action_samples: int | None = None,
        num_iterations: int | None = None,
        **kwargs: Any,
    ) -> None:
        if sampling not in COUNTER_EXAMPLES:
            raise ValueError(f"IBC needs sampling to be one of {', '.join(COUNTER_EXAMPLES)}, got {sampling!r}.")
        super().__init__(
            *args,
            sampling=sampling,
            num_counter_examples=num_counter_examples or COUNTER_EXAMPLES[sampling],
            num_action_samples=num_action_samples or ACTION_SAMPLES[sampling],
            num_iterations=num_iterations or {"dfo": 3, "langevin": 100}[sampling],
            **kwargs,
        )


class IBC(ImitationAlgorithm):
    """
    Implicit behaviour cloning.

    Further arguments are those of :class:`~difftori_gym.il.learner.ImitationAlgorithm`.

    :param policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"`` or a subclass of :class:`IBCPolicy`
    :param sampling: ``"dfo"`` or ``"langevin"``
    """

    algorithm: ClassVar[str] = "IBC"
    policy_settings = (*ImitationAlgorithm.policy_settings, "sampling")
    policy_aliases = aliases_of(IBCPolicy)

    def __init__(
        self,
        policy: str | type[ImitationPolicy],
        env: GymEnv | str | None = None,
        demonstrations: Demonstrations | None = None,
        *,
        learning_rate: float | Schedule = 1e-3,
        batch_size: int = 512,
        n_obs_steps: int = 2,
        sampling: Sampling = "dfo",
        **kwargs: Any,
    ) -> None:
        self.sampling = sampling
        super().__init__(
            policy,
            env,
            demonstrations,
            learning_rate=learning_rate,
            batch_size=batch_size,
            n_obs_steps=n_obs_steps,
            **kwargs,
        )
