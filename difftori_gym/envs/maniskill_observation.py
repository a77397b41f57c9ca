"""ManiSkill's observations as tensors that networks take: a state vector, images or point clouds."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from difftori_gym.observations import TensorObs, entries, space_from_entries
from difftori_gym.wrappers.cameras import several_cameras
from difftori_gym.wrappers.farthest_point_sampling import farthest_point_sampling
from difftori_gym.wrappers.geometry import CropBox
from difftori_gym.wrappers.pixel_observation import image_size
from difftori_gym.wrappers.point_cloud_observation import Corner, crop_corner


@dataclass(frozen=True)
class StateView:
    """The simulator's state, one float32 vector ``[N, D]``."""

    obs_mode = "state"

    def __call__(self, raw: Any) -> TensorObs:
        return raw.float().clone()  # the simulation may write into its own


@dataclass(frozen=True)
class PixelView:
    """
    Images ``[N, 3 * cameras, height, width]``, uint8, alone or in a dict of ``pixels`` and ``state``.

    :param size: height and width in pixels, or one number for both
    :param camera: name of a camera, or several; None: all, in the suite's order
    :param state: what stands beside the images: ``none``; ``agent``, joints and what the task gives with images (no
        poses of objects); ``observation``, the whole state
    :raises ValueError: for a size below 1 or an unknown ``state``
    """

    size: int | Sequence[int] = 84
    camera: str | Sequence[str] | None = None
    state: Literal["none", "agent", "observation"] = "none"

    def __post_init__(self) -> None:
        image_size(self.size, "ManiSkill")
        if self.state not in ("none", "agent", "observation"):
            raise ValueError(f"Unknown state {self.state!r} of ManiSkill's pixels. Choices: none, agent, observation.")

    @property
    def obs_mode(self) -> str:
        """ManiSkill's name of what it has to compute."""
        return "rgb+state" if self.state == "observation" else "rgb"

    def __call__(self, raw: Any) -> TensorObs:
        """:raises ValueError: for an unknown camera"""
        cameras = raw["sensor_data"]
        chosen = tuple(cameras) if self.camera is None else several_cameras(self.camera)
        for name in chosen:
            if name not in cameras:
                raise ValueError(f"Unknown camera {name!r}. Choices: {', '.join(cameras)}.")
        images = torch.cat([cameras[name]["rgb"] for name in chosen], dim=-1)  # [N, height, width, C]
        pixels = images.permute(0, 3, 1, 2).contiguous()
        if self.state == "none":
            return pixels
        beside = raw["state"].float().clone() if self.state == "observation" else _agent(raw)
        return {"pixels": pixels, "state": beside}


@dataclass(frozen=True)
class PointCloudView:
    """
    A dict of ``point_cloud`` ``[N, num_points, 3]`` (metres; 6 numbers with colours in [0, 1]) and ``agent_pos``.

    The points that all cameras see inside the crop box are thinned out by farthest-point sampling on the device.

    :param num_points: points of a cloud, at least 1
    :param size: height and width of the depth images in pixels, or one number for both
    :param crop_low: lower corner of the crop box in the world, metres. None: no bound
    :param crop_high: upper corner, metres. None: no bound
    :param color: add red, green and blue to each point
    :raises ValueError: for numbers below 1 or an empty box
    """

    num_points: int = 512
    size: int | Sequence[int] = 84
    crop_low: Corner | None = None
    crop_high: Corner | None = None
    color: bool = False

    obs_mode = "pointcloud"
    _warned = False

    def __post_init__(self) -> None:
        image_size(self.size, "ManiSkill")
        if self.num_points < 1:
            raise ValueError(f"ManiSkill's point clouds need num_points >= 1, got {self.num_points}.")
        _ = self.box  # or the error of an empty one

    @property
    def box(self) -> CropBox:
        """The crop box, infinite where there is no bound."""
        return CropBox(crop_corner(self.crop_low, CropBox.low), crop_corner(self.crop_high, CropBox.high))

    def __call__(self, raw: Any) -> TensorObs:
        points = raw["pointcloud"]["xyzw"][..., :3].float()  # [N, P, 3]
        # The last number is zero where a ray hit nothing.
        valid = (raw["pointcloud"]["xyzw"][..., 3] > 0) & self.box.contains(points)
        chosen = farthest_point_sampling(points, self.num_points, valid=valid)  # [N, num_points]
        rows = torch.arange(len(points), device=points.device)[:, None]
        cloud = points[rows, chosen]
        if self.color:
            cloud = torch.cat([cloud, raw["pointcloud"]["rgb"][rows, chosen].float() / 255.0], dim=-1)
        empty = ~valid.any(dim=1)
        if bool(empty.any()):
            cloud = self._padded(cloud, empty)
        return {"point_cloud": cloud, "agent_pos": _agent(raw)}

    def _padded(self, cloud: Tensor, empty: Tensor) -> Tensor:
        if not self._warned:
            object.__setattr__(self, "_warned", True)  # no setting, so the record stays what it is
            warnings.warn(
                f"ManiSkill's cameras see no point between {self.box.low} and {self.box.high}; the cloud is padded. "
                "Check crop_low and crop_high if this is not meant. It is said only once.",
                stacklevel=2,
            )
        padding = torch.zeros(cloud.shape[-1], device=cloud.device)
        padding[:3] = self.box.middle()
        return torch.where(empty[:, None, None], padding, cloud)


View = StateView | PixelView | PointCloudView


def space_of(observations: TensorObs) -> spaces.Space[Any]:
    """The space of one environment's observations: bytes from 0 to 255, floats without bounds."""
    return space_from_entries({key: _space_of(value) for key, value in entries(observations).items()})


def _space_of(values: Tensor) -> spaces.Space[Any]:
    shape = tuple(values.shape[1:])
    if values.dtype == torch.uint8:
        return spaces.Box(0, 255, shape, np.uint8)
    return spaces.Box(-np.inf, np.inf, shape, np.float32)


def _agent(raw: Any) -> Tensor:
    """Joints and the task's extras ``[N, D]``, float32, from an observation of a visual mode."""

    def leaves(tree: Any) -> list[Tensor]:
        if isinstance(tree, dict):
            return [leaf for entry in tree.values() for leaf in leaves(entry)]
        return [tree]

    found = leaves(raw["agent"]) + leaves(raw.get("extra", {}))
    return torch.cat([leaf.reshape(len(leaf), -1).float() for leaf in found], dim=-1)
