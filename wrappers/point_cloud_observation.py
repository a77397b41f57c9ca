"""Point clouds as observations."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.core import ActType
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import NDArray
from torch import Tensor

from .cameras import CameraId, agent_position_space, cameras_of, read_agent_position, several_cameras
from .farthest_point_sampling import farthest_point_sampling
from .geometry import CropBox, unproject
from .pixel_observation import image_size

Corner = Sequence[float]


class PointCloudObservation(
    gym.ObservationWrapper[dict[str, NDArray[np.float32]], ActType, Any], RecordConstructorArgs
):
    """
    Replace the observation by what depth cameras see, as points in the world.

    The observation is a dict of ``point_cloud`` ``[num_points, 3]`` (metres; ``[num_points, 6]`` with colours in
    [0, 1]) and ``agent_pos`` ``[P]``, the agent's position as its suite gives it. The points of all cameras inside
    the crop box are thinned out by farthest-point sampling. Where there are fewer than ``num_points``, they are
    repeated; where there are none, every point is the middle of the crop box (the origin without one), without colour,
    and a warning is given once.

    :param env: environment with cameras
    :param cameras: name or number of a depth camera, or several, at least one
    :param num_points: points of the cloud, at least 1
    :param size: height and width of the depth images in pixels, or one number for both
    :param crop_low: lower corner of the crop box, metres. None: no bound
    :param crop_high: upper corner of the crop box, metres. None: no bound
    :param crop_yaw: how far the crop box is turned about the vertical through the world's origin, degrees
    :param color: add red, green and blue to each point
    :raises ValueError: on numbers below 1, no or unknown cameras, an empty box, or an environment without cameras
    :raises RuntimeError: if nothing can be drawn on this machine
    """

    #: the simulator's, found anew by every instance, see ``snapshot.py``
    UNSAVED: ClassVar[tuple[str, ...]] = ("_cameras",)

    def __init__(
        self,
        env: gym.Env[Any, ActType],
        *,
        cameras: CameraId | Sequence[CameraId],
        num_points: int = 512,
        size: int | Sequence[int] = 84,
        crop_low: Corner | None = None,
        crop_high: Corner | None = None,
        crop_yaw: float = 0.0,
        color: bool = False,
    ) -> None:
        cameras = several_cameras(cameras)
        RecordConstructorArgs.__init__(
            self,
            cameras=cameras,
            num_points=num_points,
            size=size,
            crop_low=crop_low,
            crop_high=crop_high,
            crop_yaw=crop_yaw,
            color=color,
        )
        gym.ObservationWrapper.__init__(self, env)
        if num_points < 1:
            raise ValueError(f"PointCloudObservation needs num_points >= 1, got {num_points}.")
        if not cameras:
            raise ValueError("PointCloudObservation needs at least one camera, got none.")
        self._box = CropBox(crop_corner(crop_low, CropBox.low), crop_corner(crop_high, CropBox.high), crop_yaw)
        self._num_points = num_points
        self._color = color
        self._size = image_size(size, "PointCloudObservation")
        self._camera_ids = cameras
        self._cameras = cameras_of(env, "PointCloudObservation")
        for camera in cameras:  # a wrong name or a missing driver is told now
            self._cameras.depth(camera, *self._size)
        self._warned = False
        position = agent_position_space(env, "PointCloudObservation")
        observed: spaces.Space[Any] = spaces.Dict({"point_cloud": self._cloud_space(), "agent_pos": position})
        self.observation_space = observed

    def _cloud_space(self) -> spaces.Box:
        """The crop box, and [0, 1] for colours."""
        low, high = (bound.numpy() for bound in self._box.bounds())
        if self._color:
            low, high = np.append(low, np.zeros(3, np.float32)), np.append(high, np.ones(3, np.float32))
        rows = (self._num_points, 1)
        return spaces.Box(np.tile(low, rows), np.tile(high, rows), dtype=np.float32)

    def observation(self, observation: Any) -> dict[str, NDArray[np.float32]]:
        """:return: ``point_cloud`` and ``agent_pos`` of the environment as it stands"""
        return {"point_cloud": self._sampled().numpy(), "agent_pos": read_agent_position(self.env)}

    def _sampled(self) -> Tensor:
        cloud = torch.cat([self._seen_by(camera) for camera in self._camera_ids])
        if len(cloud) == 0:
            return self._padding()
        return cloud[farthest_point_sampling(cloud[None, :, :3], self._num_points)[0]]

    def _seen_by(self, camera: CameraId) -> Tensor:
        """All points inside the crop box that the camera sees ``[N, 3 or 6]``."""
        pose = self._cameras.pose(camera)
        depth = torch.from_numpy(self._cameras.depth(camera, *self._size))
        points = unproject(
            depth[None],
            torch.tensor([pose.fovy]),
            torch.from_numpy(pose.rotation)[None],
            torch.from_numpy(pose.position)[None],
        )[0]
        inside = self._box.contains(points)  # [height, width]
        if not self._color:
            return points[inside]
        colors = torch.from_numpy(self._cameras.image(camera, *self._size).copy())
        return torch.cat((points[inside], colors[inside].float() / 255.0), dim=-1)

    def _padding(self) -> Tensor:
        """The cloud of an empty crop box ``[num_points, 3 or 6]``."""
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"PointCloudObservation: cameras {', '.join(map(str, self._camera_ids))} see no point in "
                f"{self._box}; the cloud is padded. Check crop_low, crop_high and "
                f"cameras if this is not meant. It is said only once.",
                stacklevel=2,
            )
        cloud = torch.zeros(self._num_points, 6 if self._color else 3)
        cloud[:, :3] = self._box.middle()
        return cloud


def crop_corner(corner: Corner | None, unbounded: tuple[float, float, float]) -> tuple[float, float, float]:
    """
    :return: three numbers, metres, from a tuple, a list or an array; ``unbounded`` for None
    :raises ValueError: if there are not three
    """
    if corner is None:
        return unbounded
    if len(corner) != 3:
        raise ValueError(f"A corner of a crop box needs three numbers, x, y and z, got {corner}.")
    x, y, z = map(float, corner)
    return x, y, z
