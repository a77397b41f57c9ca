"""Observations of one scale, whatever the units of a simulator."""

from __future__ import annotations

import torch
from gymnasium import spaces
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import Tensor, nn

from difftori_gym.models.combined_encoder import module_name
from difftori_gym.models.observation_kind import observation_kind
from difftori_gym.observations import entries, from_entries

CLIP = 10.0


class RunningNorm(nn.Module):
    """
    Vectors minus their mean, over their standard deviation, clipped to 10 deviations.

    Mean and variance are of what was observed: all of it weighs the same at first, a moving average over 10,000 batches
    later. The buffers are called ``running_...``, by which Stable-Baselines3 tells what target networks take over.

    :param shape: of a vector
    """

    running_mean: Tensor
    running_var: Tensor
    running_batches: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(shape))
        self.register_buffer("running_var", torch.ones(shape))
        self.register_buffer("running_batches", torch.zeros(1))  # a float, because whole state dicts are averaged

    @torch.no_grad()
    def observe(self, vectors: Tensor) -> None:
        """:param vectors: to learn mean and variance from ``[B, *shape]``"""
        self.running_batches += 1
        rate = (1.0 / self.running_batches).clamp(min=1e-4)
        before = self.running_mean.clone()
        self.running_mean += rate * (vectors.mean(0) - before)
        spread = ((vectors - before) * (vectors - self.running_mean)).mean(0)
        self.running_var += rate * (spread - self.running_var)

    def forward(self, vectors: Tensor) -> Tensor:
        """Vectors ``[B, *shape]`` in units of their deviation, which is taken to be 0.01 at least."""
        scale = self.running_var.clamp(min=1e-4).rsqrt()
        return ((vectors - self.running_mean) * scale).clamp(-CLIP, CLIP)


class ObservationNorm(nn.Module):
    """
    :class:`RunningNorm` of every vector of an observation; images and point clouds stay as they are.

    What ``VecNormalize(norm_obs=True)`` of Stable-Baselines3 does around an environment, inside a policy: its replay
    holds what the environment gave, and its files are complete.

    :param space: of the observations
    """

    def __init__(self, space: spaces.Space) -> None:
        super().__init__()
        vectors = {key: entry for key, entry in entries(space).items() if _is_vector(entry, key)}
        self.names = {key: module_name(key or "") for key in vectors}
        self.norms = nn.ModuleDict(
            {self.names[key]: RunningNorm(entry.shape or (1,)) for key, entry in vectors.items()}
        )

    def observe(self, observation: PyTorchObs) -> None:
        """:param observation: preprocessed, ``[B, ...]`` or a dictionary of such"""
        for key, vectors in entries(observation).items():
            if key in self.names:
                norm = self.norms[self.names[key]]
                assert isinstance(norm, RunningNorm)
                norm.observe(vectors)

    def forward(self, observation: PyTorchObs) -> PyTorchObs:
        """A preprocessed observation ``[B, ...]``, or a dictionary of such -> the same with vectors of one scale."""
        found = entries(observation).items()
        return from_entries(
            {key: self.norms[self.names[key]](value) if key in self.names else value for key, value in found}
        )


def _is_vector(space: spaces.Space, key: str | None) -> bool:
    return isinstance(space, spaces.Box) and space.dtype.kind == "f" and observation_kind(space, key) == "vector"
