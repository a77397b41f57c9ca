"""What an environment has to offer to be seen: cameras, and where the agent itself is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

#: A camera by name, or by its number in the simulator.
CameraId = str | int

#: Attribute of an environment that holds its :class:`Cameras`.
CAMERAS_ATTRIBUTE = "cameras"

#: Method of an environment that returns the agent's position as a vector ``[P]``, what a robot knows without looking.
AGENT_POSITION_METHOD = "agent_position"


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
    """:return: one camera, or several in a tuple or a list, as JSON has it, as a tuple"""
    return (camera,) if isinstance(camera, str) or not isinstance(camera, Sequence) else tuple(camera)


def cameras_of(env: gym.Env[Any, Any], wanted_by: str) -> Cameras:
    """
    :return: cameras of an environment in any number of wrappers
    :raises ValueError: if it has none, naming the wrapper that asks
    """
    cameras = env.get_wrapper_attr(CAMERAS_ATTRIBUTE) if env.has_wrapper_attr(CAMERAS_ATTRIBUTE) else None
    if not isinstance(cameras, Cameras):
        raise _lacking(env, wanted_by, f"an attribute {CAMERAS_ATTRIBUTE!r} (images, depth and poses of its cameras)")
    return cameras


def read_agent_position(env: gym.Env[Any, Any]) -> NDArray[np.float32]:
    """:return: the agent's position ``[P]``, of an environment whose suite knows it"""
    return np.asarray(env.get_wrapper_attr(AGENT_POSITION_METHOD)(), dtype=np.float32)


def agent_position_space(env: gym.Env[Any, Any], wanted_by: str) -> spaces.Box:
    """
    :return: space of the agent's position, of an environment in any number of wrappers
    :raises ValueError: if the environment does not know it, naming the wrapper that asks
    """
    if not env.has_wrapper_attr(AGENT_POSITION_METHOD):
        raise _lacking(env, wanted_by, f"a method {AGENT_POSITION_METHOD}()")
    return spaces.Box(-np.inf, np.inf, read_agent_position(env).shape, np.float32)


def _lacking(env: gym.Env[Any, Any], wanted_by: str, what: str) -> ValueError:
    return ValueError(
        f"{wanted_by} needs an environment with {what}, got "
        f"{env.spec.id if env.spec else type(env.unwrapped).__name__}. Use make_env with a suite that offers it, such "
        "as dm_control, metaworld or robosuite."
    )
