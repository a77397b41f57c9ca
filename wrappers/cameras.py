"""What a simulator has to offer so that its cameras can be looked through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

#: A camera by name, or by its number in the simulator.
CameraId = str | int

#: Attribute of an environment that holds its :class:`Cameras`.
CAMERAS_ATTRIBUTE = "cameras"


@dataclass(frozen=True)
class CameraPose:
    """
    Where a pinhole camera stands and how wide it sees.

    :param rotation: ``[3, 3]``, its columns are the camera's right, up and backward axes in the world
    :param position: ``[3]``, the optical centre in the world, metres
    :param fovy: vertical field of view, degrees
    """

    rotation: NDArray[np.float64]
    position: NDArray[np.float64]
    fovy: float


@runtime_checkable
class Cameras(Protocol):
    """The cameras of one environment. All methods show the simulation as it stands now."""

    def names(self) -> tuple[str, ...]:
        """:return: names of the cameras; one without a name goes by its number"""

    def image(self, camera: CameraId, height: int, width: int) -> NDArray[np.uint8]:
        """:return: colours ``[height, width, 3]``, upright"""

    def depth(self, camera: CameraId, height: int, width: int) -> NDArray[np.float32]:
        """:return: distance along the optical axis ``[height, width]``, metres; infinite where nothing is seen"""

    def pose(self, camera: CameraId) -> CameraPose:
        """:return: the camera's pose"""


def several_cameras(camera: CameraId | Sequence[CameraId]) -> tuple[CameraId, ...]:
    """
    :param camera: name or number of a camera, or several in a tuple or a list, as JSON has it
    :return: a tuple in any case
    """
    return (camera,) if isinstance(camera, str) or not isinstance(camera, Sequence) else tuple(camera)


def cameras_of(env: gym.Env[Any, Any], wanted_by: str) -> Cameras:
    """
    Find the cameras of a wrapped environment.

    :param env: environment, wrapped in any number of wrappers
    :param wanted_by: name of the wrapper that asks, for the message
    :return: its cameras
    :raises ValueError: if it has none
    """
    cameras = env.get_wrapper_attr(CAMERAS_ATTRIBUTE) if env.has_wrapper_attr(CAMERAS_ATTRIBUTE) else None
    if not isinstance(cameras, Cameras):
        raise ValueError(
            f"{wanted_by} needs an environment with an attribute {CAMERAS_ATTRIBUTE!r} (images, depth and poses of its "
            f"cameras), got {env.spec.id if env.spec else type(env.unwrapped).__name__}. Use make_env with a suite "
            f"that offers this kind of observation, such as dm_control, metaworld or robosuite."
        )
    return cameras
