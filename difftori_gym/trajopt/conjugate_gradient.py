"""Conjugate gradients for a batch of linear systems that are only known by their products."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

TOLERANCE_DIGITS = 0.65
"""Share of the digits of the dtype to which residuals are reduced: 1e-10 in float64, 3e-5 in float32."""


@torch.no_grad()
def conjugate_gradient(product: Callable[[Tensor], Tensor], right: Tensor) -> tuple[Tensor, Tensor]:
    """
    Solve M x = right for each sample, M symmetric and positive definite.

    :param product: ``[B, n]`` -> M times it, ``[B, n]``
    :param right: ``[B, n]``
    :return: x ``[B, n]``, and mask ``[B]`` of samples that are solved. A direction of curvature that is not positive,
        or more than 2 n iterations, leave a sample unsolved.
    """
    scale = right.abs().amax(dim=1, keepdim=True)  # [B, 1]; products of small numbers must not underflow
    residual = torch.where(scale > 0, right / scale, 0.0)
    x, direction = torch.zeros_like(right), residual
    squared = residual.square().sum(1)
    target = squared * torch.finfo(right.dtype).eps ** (2.0 * TOLERANCE_DIGITS)
    running = squared > target
    for _ in range(2 * right.shape[1]):
        if not bool(running.any()):  # each product costs as much as a few evaluations of the objective
            break
        image = product(direction)
        curvature = (direction * image).sum(1)
        proceeds = running & (curvature > 0)  # also False for nan
        length = torch.where(proceeds, squared / curvature, 0.0)[:, None]
        x = x + torch.where(proceeds[:, None], length * direction, 0.0)
        residual = residual - torch.where(proceeds[:, None], length * image, 0.0)
        previous, squared = squared, torch.where(proceeds, residual.square().sum(1), squared)
        direction = torch.where(proceeds[:, None], residual + (squared / previous)[:, None] * direction, direction)
        running = proceeds & (squared > target)
    return x * scale, (squared <= target) & torch.isfinite(x).all(1)
