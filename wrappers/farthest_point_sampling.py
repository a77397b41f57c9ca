"""Thin point clouds out evenly."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def farthest_point_sampling(points: Tensor, num_points: int, *, valid: Tensor | None = None) -> Tensor:
    """
    Choose points one by one, each as far as possible from those chosen before (Eldar et al. 1997).

    The first is the one farthest from the cloud's mean; of equally far ones, one and the same is taken every time. A
    cloud with fewer than ``num_points`` valid points has them repeated in the order of their choice. Only tensors are
    used and nothing is copied to the host, so that it runs on any device.

    :param points: clouds ``[B, N, D]``
    :param num_points: number of points to choose, at least 1
    :param valid: which points may be chosen ``[B, N]``; None: all. The others may hold any numbers
    :return: indices of the chosen points ``[B, num_points]``; 0 throughout for a cloud without valid points
    :raises ValueError: on other shapes, no points or ``num_points`` below 1
    """
    if points.ndim != 3 or points.shape[1] < 1:
        raise ValueError(f"farthest_point_sampling needs points [B, N, D] with N >= 1, got {list(points.shape)}.")
    if num_points < 1:
        raise ValueError(f"farthest_point_sampling needs num_points >= 1, got {num_points}.")
    if valid is None:
        valid = torch.ones(points.shape[:2], dtype=torch.bool, device=points.device)
    if valid.shape != points.shape[:2]:
        raise ValueError(
            f"farthest_point_sampling needs valid of shape {list(points.shape[:2])}, got {list(valid.shape)}."
        )
    batch = torch.arange(len(points), device=points.device)
    counts = valid.sum(dim=1)  # [B]
    points = points.where(valid[..., None], 0.0)
    mean = points.sum(dim=1) / counts.clamp(min=1)[:, None]
    axes = (points - mean[:, None]).transpose(1, 2).contiguous()  # [B, D, N]: sums over D read memory in order

    offsets = torch.empty_like(axes)
    squares = torch.sum(axes.square(), dim=1)  # squared distance to the mean [B, N]
    # Distance to the nearest chosen point; below zero where nothing may be chosen.
    nearest = torch.where(valid, torch.full_like(squares, torch.inf), torch.full_like(squares, -1.0))
    chosen = torch.where(valid, squares, -1.0).argmax(dim=1)
    indices = torch.empty((num_points, len(points)), dtype=torch.long, device=points.device)
    for step in range(num_points):
        indices[step] = chosen
        torch.sub(axes, axes[batch, :, chosen, None], out=offsets)
        torch.sum(offsets.square_(), dim=1, out=squares)
        torch.minimum(nearest, squares, out=nearest)
        chosen = nearest.argmax(dim=1)
    # From the last valid point on, argmax would return the first one again and again.
    order = torch.arange(num_points, device=points.device)[None] % counts.clamp(min=1)[:, None]  # [B, num_points]
    return indices.T.gather(1, order).where(counts[:, None] > 0, 0)
