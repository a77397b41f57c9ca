"""From depth images to points in the world."""

from __future__ import annotations

import torch
from torch import Tensor


def unproject(depth: Tensor, fovy: Tensor, rotation: Tensor, position: Tensor) -> Tensor:
    """
    Points of the world that a pinhole camera with square pixels sees.

    The pixel in column u and row v of an image of width W and height H looks along
    ((u - W/2 + 0.5) / f, -(v - H/2 + 0.5) / f, -1) in the camera's axes right, up, backward, with
    f = H / 2 / tan(fovy / 2); this times the depth is the point. It is computed in the precision of ``depth``.

    :param depth: distances along the optical axis ``[B, H, W]``, metres
    :param fovy: vertical fields of view ``[B]``, degrees
    :param rotation: columns are the camera's right, up and backward axes in the world ``[B, 3, 3]``
    :param position: optical centres in the world ``[B, 3]``, metres
    :return: points ``[B, H, W, 3]``, metres; not finite where the depth is not
    """
    height, width = depth.shape[1:]
    like = {"dtype": depth.dtype, "device": depth.device}
    tangent = torch.tan(torch.deg2rad(fovy.to(**like)) / 2)  # [B]
    columns = (torch.arange(width, **like) - (width - 1) / 2) / (height / 2)  # [W]
    rows = -(torch.arange(height, **like) - (height - 1) / 2) / (height / 2)  # [H]
    right = (columns[None, :] * tangent[:, None])[:, None, :].expand_as(depth)  # [B, H, W]
    up = (rows[None, :] * tangent[:, None])[:, :, None].expand_as(depth)
    rays = torch.stack((right, up, torch.full_like(depth, -1.0)), dim=-1)  # [B, H, W, 3]
    points = torch.einsum("bhwc,bxc->bhwx", rays, rotation.to(**like)) * depth[..., None]
    return points + position.to(**like)[:, None, None, :]


def inside_box(points: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """
    :param points: ``[..., 3]``
    :param low: lower corner of the box ``[3]``
    :param high: upper corner of the box ``[3]``
    :return: which points lie inside ``[...]``; one that is not finite does not
    """
    return ((points >= low) & (points <= high) & points.isfinite()).all(dim=-1)
