"""Images as observations."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any, ClassVar, Literal, get_args

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.core import ActType
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import NDArray

from .cameras import CameraId, agent_position_space, cameras_of, read_agent_position, several_cameras

#: What stands beside the image: nothing, the observation of the wrapped environment, or where the agent itself is.
StateBeside = Literal["none", "observation", "agent"]

# By which renderers miss the ends of [0, 1].
_ROUNDING = 1e-3


class PixelObservation(gym.ObservationWrapper[Any, ActType, Any], RecordConstructorArgs):
    """
    Replace the observation by an image ``[C, height, width]``, uint8, as Stable-Baselines3's CNNs take it.

    C is 3 per camera, or 1 if grey, the cameras in the order they are given.

    With a state beside it the observation is a dict of ``pixels`` and ``state`` (float32 ``[N]``). Frames are stacked
    by ``gymnasium.wrappers.FrameStackObservation`` or ``stable_baselines3.common.vec_env.VecFrameStack`` with
    ``channels_order="first"``.

    :param env: environment; one that has no cameras of its own needs ``render_mode="rgb_array"``
    :param size: height and width in pixels, or one number for both
    :param camera: name or number of a camera, or several. None: what ``env.render()`` shows, resized by averaging
        over areas
    :param state: ``none``; ``observation``, the wrapped environment's, which must be one float vector; ``agent``, the
        agent's own position as the suite gives it (no objects)
    :param grey: the mean of red, green and blue instead of the three
    :param antialias: cameras draw at so many times the size, and pixels are averaged; edges then move by less than a
        pixel, as they do not in fast drawing
    :raises ValueError: on a size or ``antialias`` below 1, an unknown camera, or an environment that cannot give what
        is asked for
    :raises RuntimeError: if nothing can be drawn on this machine
    """

    #: the simulator's, found anew by every instance, see ``snapshot.py``
    UNSAVED: ClassVar[tuple[str, ...]] = ("_cameras",)

    def __init__(
        self,
        env: gym.Env[Any, ActType],
        *,
        size: int | Sequence[int] = 84,
        camera: CameraId | Sequence[CameraId] | None = None,
        state: StateBeside = "none",
        grey: bool = False,
        antialias: int = 1,
    ) -> None:
        RecordConstructorArgs.__init__(self, size=size, camera=camera, state=state, grey=grey, antialias=antialias)
        gym.ObservationWrapper.__init__(self, env)
        self._size = image_size(size, "PixelObservation")
        self._state, self._grey = state, grey
        self._drawn = _drawn_size(self._size, antialias, camera)
        self._views = () if camera is None else several_cameras(camera)
        self._cameras = cameras_of(env, "PixelObservation") if self._views else None
        if self._cameras is not None:
            for view in self._views:  # a wrong name or a missing driver is told now
                self._cameras.image(view, *self._drawn)
        elif env.render_mode != "rgb_array":
            raise ValueError(
                f"PixelObservation without a camera needs an environment made with render_mode='rgb_array', got "
                f"render_mode={env.render_mode!r}. Use make_env(id, obs='pixels') or name a camera."
            )
        pixels = spaces.Box(0, 255, ((1 if grey else 3) * max(1, len(self._views)), *self._size), np.uint8)
        beside = self._state_space(env)
        self.observation_space = pixels if beside is None else spaces.Dict({"pixels": pixels, "state": beside})

    def _state_space(self, env: gym.Env[Any, ActType]) -> spaces.Box | None:
        """Space of what stands beside the image, None for nothing."""
        if self._state not in get_args(StateBeside):
            raise ValueError(f"Unknown state {self._state!r}. Choices: {', '.join(get_args(StateBeside))}.")
        if self._state == "none":
            return None
        if self._state == "agent":
            return agent_position_space(env, "PixelObservation")
        space = env.observation_space
        if not isinstance(space, spaces.Box) or len(space.shape) != 1 or space.dtype != np.float32:
            raise ValueError(
                f"PixelObservation with state='observation' needs a float32 vector as observation, got {space}. "
                f"Wrap the environment in StateObservation first."
            )
        return space

    def observation(self, observation: Any) -> Any:
        """:return: image ``[C, height, width]`` of the environment as it stands, or a dict of it and the state"""
        pixels = self._draw()
        if self._state == "none":
            return pixels
        return {"pixels": pixels, "state": read_agent_position(self.env) if self._state == "agent" else observation}

    def _draw(self) -> NDArray[np.uint8]:
        if self._cameras is None:
            images = [as_picture(self.env.render())]
        else:
            images = [self._cameras.image(view, *self._drawn) for view in self._views]
        images = [resize(image, self._size) for image in images]
        if self._grey:
            return np.stack([image.mean(axis=2, dtype=np.float32).round().astype(np.uint8) for image in images])
        return np.concatenate([image.transpose(2, 0, 1) for image in images])


def _drawn_size(size: tuple[int, int], antialias: int, camera: object) -> tuple[int, int]:
    """Height and width that cameras draw, if there are any."""
    if not isinstance(antialias, Integral) or antialias < 1:
        raise ValueError(f"PixelObservation needs antialias to be a whole number of at least 1, got {antialias!r}.")
    if antialias > 1 and camera is None:
        raise ValueError(
            f"PixelObservation with antialias={antialias} needs a camera: without one it shows what render() gives, "
            "averaged over areas. Name a camera, or make the environment with larger pictures."
        )
    return size[0] * int(antialias), size[1] * int(antialias)


def image_size(size: int | Sequence[int], wanted_by: str) -> tuple[int, int]:
    """
    :return: height and width, from these or from one number for both
    :raises ValueError: if there are not two whole numbers of at least 1, naming the wrapper that asks
    """
    sides = tuple(size) if isinstance(size, Sequence) else (size, size)
    if len(sides) != 2 or not all(isinstance(side, Integral) for side in sides):
        raise ValueError(f"{wanted_by} needs a size of one whole number or of two, height and width, got {size!r}.")
    if min(sides) < 1:
        raise ValueError(f"{wanted_by} needs a size of at least 1 pixel, got {size}.")
    return int(sides[0]), int(sides[1])


def resize(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """:return: image ``[*size, 3]``, each pixel the mean over the area it covers"""
    if image.shape[:2] == size:
        return image
    tensor = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float()
    resized = torch.nn.functional.interpolate(tensor, size=size, mode="area")
    return resized[0].permute(1, 2, 0).round().to(torch.uint8).numpy()


def as_picture(image: Any) -> NDArray[np.uint8]:
    """
    :param image: ``[height, width, 3]``: numbers in [0, 1] if they are floats or truth values, else 0 to 255
    :return: ``[height, width, 3]``, uint8; the same array if it is one already
    :raises ValueError: for another shape, or values out of these ranges, which would be black or wrap around
    """
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[-1] != 3:
        got = "no image" if image.dtype == object else list(image.shape)
        raise ValueError(f"render() must give images of shape [height, width, 3], got {got}.")
    if image.dtype == np.uint8:
        return image
    if image.dtype.kind not in "bfiu":
        raise ValueError(f"render() must give images of numbers, got {image.dtype}: return uint8.")
    low, high = image.min(), image.max()
    greatest, slack = (255, 0) if image.dtype.kind in "iu" else (1, _ROUNDING)
    if not (low >= -slack and high <= greatest + slack):  # also where one is no number
        raise ValueError(
            f"render() must give uint8, whole numbers 0 to 255 or floats in [0, 1], got {image.dtype} from {low} to "
            f"{high}: return uint8."
        )
    return image.astype(np.uint8) if greatest == 255 else (255 * np.clip(image, 0, 1)).round().astype(np.uint8)
