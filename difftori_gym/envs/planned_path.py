"""Where a plan leads: planned actions in a copy of a MuJoCo simulation, seen through one of its cameras."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from difftori_gym.envs.mujoco_cameras import MujocoCameras
from difftori_gym.wrappers.cameras import CameraId
from difftori_gym.wrappers.geometry import project


@dataclass(frozen=True)
class TrackedPoint:
    """A point of a body: the body's name, and the point's offset in its own axes, metres."""

    body: str
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class PlannedPath:
    """
    The path of one point of the simulation under planned actions, as pixels of the rendered picture.

    The simulation itself is left as it is: its state is copied.

    :param simulation: gives the ``MjModel`` and ``MjData`` that are in use now
    :param advance: applies one action to a copy of the ``MjData`` and moves it on by one environment frame
    :param point: what is followed
    :param cameras: cameras of the simulation
    :param camera: the picture's, which has ``height`` times ``width`` pixels
    """

    simulation: Callable[[], tuple[Any, Any]]
    advance: Callable[[Any, Any, NDArray[np.float64]], None]
    point: TrackedPoint
    cameras: MujocoCameras
    camera: CameraId
    height: int
    width: int

    def positions(self, actions: NDArray[Any]) -> NDArray[np.float64]:
        """
        :param actions: one per environment frame ``[K, A]``, in the environment's units
        :return: positions of the point in the world ``[K + 1, 3]``, metres, the present one first
        """
        import mujoco

        model, data = self.simulation()
        data = copy.copy(data)
        positions = [self._position(data)]
        for action in np.asarray(actions, dtype=np.float64):
            self.advance(model, data, action)
            mujoco.mj_kinematics(model, data)  # a step leaves bodies where they were before it
            positions.append(self._position(data))
        return np.array(positions)

    def __call__(self, actions: NDArray[Any]) -> NDArray[np.float64]:
        """:return: column and row of the point in the picture ``[K + 1, 2]``, nan behind the camera"""
        positions = torch.from_numpy(self.positions(actions))
        return project(positions, self.cameras.pose(self.camera), self.height, self.width).numpy()

    def _position(self, data: Any) -> NDArray[np.float64]:
        body = data.body(self.point.body)
        return np.array(body.xpos + body.xmat.reshape(3, 3) @ np.array(self.point.offset))
