"""From depth images to points in the world, and back into an image."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .cameras import CameraPose


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
    tangent = torch.tan(torch.deg2rad(fovy.to(depth)) / 2)  # [B]
    columns = (torch.arange(width).to(depth) - (width - 1) / 2) / (height / 2)  # [W]
    rows = -(torch.arange(height).to(depth) - (height - 1) / 2) / (height / 2)  # [H]
    right = (columns[None, :] * tangent[:, None])[:, None, :].expand_as(depth)  # [B, H, W]
    up = (rows[None, :] * tangent[:, None])[:, :, None].expand_as(depth)
    rays = torch.stack((right, up, torch.full_like(depth, -1.0)), dim=-1)  # [B, H, W, 3]
    points = torch.einsum("bhwc,bxc->bhwx", rays, rotation.to(depth)) * depth[..., None]
    return points + position.to(depth)[:, None, None, :]


def project(points: Tensor, pose: CameraPose, height: int, width: int) -> Tensor:
    """
    Where points of the world are seen in an image: the inverse of :func:`unproject`.

    :param points: in the world ``[..., 3]``, metres
    :param pose: of a pinhole camera with square pixels
    :param height: of the image, pixels
    :param width: of the image, pixels
    :return: column and row ``[..., 2]``, 0 in the middle of the first pixel; nan for points behind the camera
    """
    rotation, position = torch.from_numpy(pose.rotation).to(points), torch.from_numpy(pose.position).to(points)
    right, up, backward = ((points - position) @ rotation).unbind(dim=-1)  # [...] each
    focal = height / 2 / math.tan(math.radians(pose.fovy) / 2)
    depth = torch.where(backward < 0, -backward, torch.nan)
    column = (width - 1) / 2 + focal * right / depth
    row = (height - 1) / 2 - focal * up / depth
    return torch.stack((column, row), dim=-1)


@dataclass(frozen=True)
class CropBox:
    """
    A box in the world that may be turned about the vertical axis.

    :param low: lower corner in the box's own axes, metres
    :param high: upper corner in the box's own axes, metres
    :param yaw: angle from the world's x axis to the box's, about the vertical through the world's origin, degrees
    :raises ValueError: if the box is empty
    """

    low: tuple[float, float, float] = (-math.inf,) * 3
    high: tuple[float, float, float] = (math.inf,) * 3
    yaw: float = 0.0

    def __post_init__(self) -> None:
        if not all(low < high for low, high in zip(self.low, self.high, strict=True)):
            raise ValueError(f"A crop box needs crop_low < crop_high on every axis, got {self.low} and {self.high}.")

    def contains(self, points: Tensor) -> Tensor:
        """:return: which points of the world ``[..., 3]``, metres, lie inside ``[...]``; none that is not finite"""
        own = points @ self._axes().to(points) if self.yaw else points
        inside = (own >= own.new_tensor(self.low)) & (own <= own.new_tensor(self.high))
        return (inside & points.isfinite()).all(dim=-1)

    def middle(self) -> Tensor:
        """:return: middle of the box in the world ``[3]``; the origin, or the bound next to it, where it is infinite"""
        low, high = (torch.tensor(corner, dtype=torch.float32) for corner in (self.low, self.high))
        middle = (low + high) / 2
        return self._axes() @ middle.where(middle.isfinite(), torch.zeros(3).clamp(low, high))

    def bounds(self) -> tuple[Tensor, Tensor]:
        """:return: lower and upper corner ``[3]`` of the upright box in the world around this one"""
        low, high = (torch.tensor(corner, dtype=torch.float32) for corner in (self.low, self.high))
        if not self.yaw:
            return low, high
        if not (low[:2].isfinite().all() and high[:2].isfinite().all()):
            low[:2], high[:2] = -math.inf, math.inf
            return low, high
        sides = torch.stack((low[:2], high[:2]))  # [2, 2]
        corners = torch.cartesian_prod(sides[:, 0], sides[:, 1]) @ self._axes()[:2, :2].T  # [4, 2]
        rounding = 1e-4
        low[:2], high[:2] = corners.amin(dim=0) - rounding, corners.amax(dim=0) + rounding
        return low, high

    def _axes(self) -> Tensor:
        """:return: the box's axes in the world, as columns ``[3, 3]``"""
        cos, sin = math.cos(math.radians(self.yaw)), math.sin(math.radians(self.yaw))
        return torch.tensor([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
