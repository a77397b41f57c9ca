"""
A one-dimensional U-Net over time, conditioned on a vector by FiLM: the noise model of Diffusion Policy.

Source: Chi et al. 2023 (arXiv 2303.04137), section 3 and its published configuration; Janner et al. 2022 for the
blocks; Perez et al. 2018 for FiLM.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class StepEmbedding(nn.Module):
    """Sines and cosines of a diffusion step, then a small MLP; ``dim`` is even."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        if dim < 4 or dim % 2:
            raise ValueError(f"StepEmbedding needs an even dim >= 4, got {dim}.")
        self.dim = dim
        self.network = nn.Sequential(nn.Linear(dim, 4 * dim), nn.Mish(), nn.Linear(4 * dim, dim))

    def forward(self, steps: Tensor) -> Tensor:
        """Diffusion steps ``[B]`` -> ``[B, dim]``."""
        half = self.dim // 2
        exponents = torch.arange(half, device=steps.device) / (half - 1)
        angles = steps.float()[:, None] * torch.exp(-math.log(10_000.0) * exponents)
        return self.network(torch.cat([angles.sin(), angles.cos()], dim=-1))


class FiLMBlock(nn.Module):
    """Two convolutions; between them every channel is scaled and shifted by what the condition says."""

    def __init__(self, inputs: int, outputs: int, condition_dim: int, kernel_size: int, num_groups: int) -> None:
        super().__init__()
        self.first = convolution(inputs, outputs, kernel_size, num_groups)
        self.second = convolution(outputs, outputs, kernel_size, num_groups)
        self.film = nn.Sequential(nn.Mish(), nn.Linear(condition_dim, 2 * outputs))
        self.shortcut = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """``[B, inputs, T]`` and condition ``[B, condition_dim]`` -> ``[B, outputs, T]``."""
        scale, shift = self.film(condition)[:, :, None].chunk(2, dim=1)
        return self.second(scale * self.first(x) + shift) + self.shortcut(x)


def convolution(inputs: int, outputs: int, kernel_size: int, num_groups: int) -> nn.Sequential:
    """``[B, inputs, T]`` -> ``[B, outputs, T]``; ``outputs`` is a multiple of ``num_groups``, the kernel's size odd."""
    return nn.Sequential(
        nn.Conv1d(inputs, outputs, kernel_size, padding=kernel_size // 2), nn.GroupNorm(num_groups, outputs), nn.Mish()
    )


class ConditionalUnet1D(nn.Module):
    """
    :param action_dim: A, channels of what is denoised
    :param condition_dim: size of the condition
    :param channels: of the levels, at least one; each level after the first halves the time axis
    :param step_dim: size of the step's embedding
    :param kernel_size: odd
    :param num_groups: groups of the normalisation
    """

    def __init__(
        self,
        action_dim: int,
        condition_dim: int,
        channels: Sequence[int] = (256, 512, 1024),
        step_dim: int = 256,
        kernel_size: int = 5,
        num_groups: int = 8,
    ) -> None:
        super().__init__()
        if not channels or any(size % num_groups for size in channels):
            raise ValueError(
                f"ConditionalUnet1D needs channels that are multiples of num_groups={num_groups}, got {list(channels)}."
            )
        self.time_multiple = 2 ** (len(channels) - 1)
        self.embedding = StepEmbedding(step_dim)

        def block(inputs: int, outputs: int) -> FiLMBlock:
            return FiLMBlock(inputs, outputs, step_dim + condition_dim, kernel_size, num_groups)

        sizes = [action_dim, *channels]
        self.down = nn.ModuleList([nn.ModuleList([block(i, o), block(o, o)]) for i, o in pairwise(sizes)])
        self.shrink = nn.ModuleList([nn.Conv1d(size, size, 3, 2, 1) for size in channels[:-1]])
        self.middle = nn.ModuleList([block(channels[-1], channels[-1]) for _ in range(2)])
        levels = list(reversed(list(pairwise(channels))))
        self.up = nn.ModuleList([nn.ModuleList([block(2 * o, i), block(i, i)]) for i, o in levels])
        self.grow = nn.ModuleList([nn.ConvTranspose1d(i, i, 4, 2, 1) for i, _ in levels])
        self.final = nn.Sequential(
            convolution(channels[0], channels[0], kernel_size, num_groups), nn.Conv1d(channels[0], action_dim, 1)
        )

    def forward(self, actions: Tensor, steps: Tensor, condition: Tensor) -> Tensor:
        """
        Noise or clean actions ``[B, T, A]``, whatever it is trained on.

        :param actions: noisy ``[B, T, A]``, T a multiple of ``time_multiple``
        :param steps: diffusion steps ``[B]``
        :param condition: ``[B, condition_dim]``
        """
        condition = torch.cat([self.embedding(steps), condition], dim=-1)
        x, skipped = actions.transpose(1, 2), []
        for index, blocks in enumerate(self.down):
            x = _run(blocks, x, condition)
            skipped.append(x)
            if index < len(self.shrink):
                x = self.shrink[index](x)
        x = _run(self.middle, x, condition)
        for blocks, grow in zip(self.up, self.grow, strict=True):
            x = grow(_run(blocks, torch.cat([x, skipped.pop()], dim=1), condition))
        return self.final(x).transpose(1, 2)


def _run(blocks: nn.Module, x: Tensor, condition: Tensor) -> Tensor:
    for block in blocks.children():
        x = block(x, condition)
    return x
