"""Draw colours and depth of a MuJoCo simulation, fast on a machine without a graphics card."""

from __future__ import annotations

import atexit
import contextlib
import functools
import math
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.core import ActType, ObsType
from numpy.typing import NDArray

from difftori_gym.envs.rendering import GL_REMEDY
from difftori_gym.wrappers.cameras import CameraId, CameraPose

# What lies in the last tenth of the range of drawing is the background; numbers are coarse there.
_FAR_SHARE = 0.9


def draw_fast(model: Any) -> None:
    """
    Turn off antialiasing, shadows and reflections of a model, which take most of the time without a graphics card.

    The first two are read when the first image is drawn: call it before.
    """
    model.vis.quality.offsamples = 0
    model.vis.quality.shadowsize = 0
    model.light_castshadow[:] = 0
    model.mat_reflectance[:] = 0


_opened: weakref.WeakSet[MujocoCameras] = weakref.WeakSet()


@functools.cache
def _close_at_exit() -> None:
    """Close before MuJoCo shuts the driver down, which would leave the contexts to fail one by one."""

    @atexit.register
    def close_all() -> None:
        for cameras in list(_opened):
            cameras.close()


@functools.cache
def _check_driver() -> None:
    """Open a small context: raises if MuJoCo cannot draw on this machine."""
    import mujoco

    mujoco.GLContext(16, 16).free()


#: Number of MuJoCo's camera that is not of the model.
FREE_CAMERA = -1


@contextlib.contextmanager
def explained_drawing() -> Iterator[None]:
    """
    Look whether MuJoCo can draw, and let something inside open what it draws with.

    :raises RuntimeError: if it cannot; names the environment variable and the system packages
    """
    try:
        _check_driver()  # a renderer that fails leaves a second error behind when it is collected
        yield
    except Exception as error:  # drawing fails in a different way on every machine
        reason = f"{type(error).__name__}: {error}".rstrip(".")
        raise RuntimeError(f"MuJoCo cannot draw on this machine, got {reason}. {GL_REMEDY}") from error


class ExplainedRendering(gym.Wrapper[ObsType, ActType, ObsType, ActType]):
    """Say what to do where the ``render()`` of an environment that MuJoCo draws cannot."""

    def render(self) -> Any:
        """:raises RuntimeError: if MuJoCo cannot draw on this machine"""
        if self.render_mode not in (None, "human"):
            with explained_drawing():
                pass
        return super().render()


def allow_pictures(model: Any, height: int, width: int) -> None:
    """
    Let pictures be as large as this, in pixels. Models, here MuJoCo's or dm_control's view of one, allow for 640 x 480
    unless they say more; it counts at the first picture.
    """
    whole = model.vis.global_
    whole.offheight, whole.offwidth = max(whole.offheight, height), max(whole.offwidth, width)


class MujocoCameras:
    """
    The cameras of one MuJoCo simulation, as :class:`difftori_gym.wrappers.cameras.Cameras`.

    :param simulation: gives the ``MjModel`` and ``MjData`` that are in use now; a suite may replace them at a reset
    :param fast: draw without antialiasing, shadows and reflections
    :param hidden_groups: groups of shapes (0 to 5) that are not drawn
    """

    def __init__(
        self, simulation: Callable[[], tuple[Any, Any]], *, fast: bool = True, hidden_groups: tuple[int, ...] = ()
    ) -> None:
        self._simulation, self._fast, self._hidden_groups = simulation, fast, hidden_groups
        self._options: Any = None
        self._model: Any = None
        self._renderers: dict[tuple[int, int], Any] = {}

    def names(self) -> tuple[str, ...]:
        """:return: names of the cameras; one without a name goes by its number"""
        model, _ = self._simulation()
        return tuple(model.camera(index).name or str(index) for index in range(model.ncam))

    def index(self, camera: CameraId) -> int:
        """
        :param camera: name or number
        :return: number of the camera in the model
        :raises ValueError: if there is no such camera; lists the choices
        """
        names = self.names()
        if isinstance(camera, str) and camera in names:
            return names.index(camera)
        if isinstance(camera, int) and 0 <= camera < len(names):
            return camera
        raise ValueError(f"Unknown camera {camera!r}. Choices: {', '.join(names)}; or 0 to {len(names) - 1}.")

    def image(self, camera: CameraId, height: int, width: int) -> NDArray[np.uint8]:
        """
        :raises ValueError: if there is no such camera
        :raises RuntimeError: if MuJoCo cannot draw on this machine
        """
        index = self.index(camera)
        renderer, data = self._renderer(height, width)
        renderer.disable_depth_rendering()
        renderer.update_scene(data, camera=index, scene_option=self._options)
        return renderer.render()

    def depth(self, camera: CameraId, height: int, width: int) -> NDArray[np.float32]:
        """Infinite where nothing is seen; raises as :meth:`image` does."""
        index = self.index(camera)
        renderer, data = self._renderer(height, width)
        renderer.enable_depth_rendering()
        renderer.update_scene(data, camera=index, scene_option=self._options)
        self._show_sky(renderer, False)  # it is drawn at some distance
        depth = renderer.render()
        self._show_sky(renderer, True)
        far = self._model.vis.map.zfar * self._model.stat.extent
        return np.where(depth < _FAR_SHARE * far, depth, np.float32(math.inf))

    @staticmethod
    def _show_sky(renderer: Any, shown: bool) -> None:
        import mujoco

        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SKYBOX] = shown

    def pose(self, camera: CameraId) -> CameraPose:
        """:raises ValueError: if there is no such camera"""
        index = self.index(camera)
        model, data = self._simulation()
        return CameraPose(
            rotation=data.cam_xmat[index].reshape(3, 3).copy(),
            position=data.cam_xpos[index].copy(),
            fovy=float(model.cam_fovy[index]),
        )

    def close(self) -> None:
        """Give the drawing contexts back."""
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()

    def _renderer(self, height: int, width: int) -> tuple[Any, Any]:
        """A renderer of that size for the current model, and the current data."""
        model, data = self._simulation()
        if model is not self._model:
            self.close()
            self._model = model
            if self._fast:
                draw_fast(model)
        if (height, width) not in self._renderers:
            self._renderers[height, width] = self._open(model, height, width)
        return self._renderers[height, width], data

    def _open(self, model: Any, height: int, width: int) -> Any:
        import mujoco

        if self._options is None:
            self._options = mujoco.MjvOption()
            self._options.geomgroup[list(self._hidden_groups)] = 0
        allow_pictures(model, height, width)
        with explained_drawing():
            renderer = mujoco.Renderer(model, height=height, width=width)
        _opened.add(self)
        _close_at_exit()
        return renderer
