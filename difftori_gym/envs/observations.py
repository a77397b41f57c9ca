"""What the agent sees: state, pixels or a point cloud, as each suite is published with."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import FrameStackObservation, TransformObservation

from difftori_gym.observations import entries, map_obs, space_from_entries
from difftori_gym.wrappers import Distractors, PixelObservation, PointCloudObservation, StateObservation
from difftori_gym.wrappers.cameras import CameraId
from difftori_gym.wrappers.pixel_observation import StateBeside

Observation = Literal["state", "pixels", "pointcloud"]
OBSERVATIONS: tuple[str, ...] = get_args(Observation)


@dataclass(frozen=True)
class StatePreset:
    """
    One flat float32 vector, and arguments of :class:`~difftori_gym.wrappers.Distractors`.

    :param frame_stack: number of last vectors seen together, at least 1
    """

    noise: int = 0
    pendulums: int = 0
    frame_stack: int = 1


@dataclass(frozen=True)
class PixelPreset:
    """
    Arguments of :class:`~difftori_gym.wrappers.PixelObservation`; the defaults are the paper's.

    :param frame_stack: number of last images seen together, at least 1
    """

    camera: CameraId | Sequence[CameraId] | None = None
    size: int | Sequence[int] = 84
    state: StateBeside = "none"
    grey: bool = False
    antialias: int = 1
    frame_stack: int = 3


@dataclass(frozen=True)
class PointCloudPreset:
    """
    Arguments of :class:`~difftori_gym.wrappers.PointCloudObservation`.

    :param frame_stack: clouds have no order in time that could be stacked: 1
    """

    cameras: CameraId | Sequence[CameraId]
    num_points: int = 512
    size: int | Sequence[int] = 84
    crop_low: Sequence[float] | None = None
    crop_high: Sequence[float] | None = None
    crop_yaw: float = 0.0
    color: bool = False
    frame_stack: int = 1


Preset = StatePreset | PixelPreset | PointCloudPreset


def checked_obs_kwargs(given: Mapping[str, Any] | None, known: Collection[str], obs: str) -> dict[str, Any]:
    """:raises ValueError: for settings of an observation that are not known; lists the choices"""
    unknown = [repr(name) for name in given or () if name not in known]
    if unknown:
        choices = ", ".join(known) or "none"
        raise ValueError(f"Unknown obs_kwargs {', '.join(unknown)} of obs={obs!r}. Choices: {choices}.")
    return dict(given or {})


def adjusted(preset: Preset, frame_stack: int | None, changes: Mapping[str, Any] | None, obs: str) -> Preset:
    """
    A preset with other fields.

    :param preset: what the suite proposes
    :param frame_stack: number of observations seen together, None for the preset's
    :param changes: other fields to replace
    :param obs: kind of observation, for messages
    :raises ValueError: on an unknown field or a frame stack that cannot be
    """
    fields = [field.name for field in dataclasses.fields(preset) if field.name != "frame_stack"]
    changes = checked_obs_kwargs(changes, fields, obs)
    if frame_stack is not None:
        changes["frame_stack"] = frame_stack
    preset = dataclasses.replace(preset, **changes)
    if preset.frame_stack < 1:
        raise ValueError(f"make_env needs frame_stack >= 1, got {preset.frame_stack}.")
    if isinstance(preset, PointCloudPreset) and preset.frame_stack != 1:
        raise ValueError(
            f"Point clouds are not stacked, got frame_stack={preset.frame_stack}. Use an imitation learner's "
            f"n_obs_steps, or gymnasium.wrappers.FrameStackObservation for an axis of time."
        )
    return preset


def observe(env: gym.Env[Any, Any], preset: Preset) -> gym.Env[Any, Any]:
    """An environment with these observations in place of the suite's own."""
    arguments = {f.name: getattr(preset, f.name) for f in dataclasses.fields(preset) if f.name != "frame_stack"}
    if isinstance(preset, PointCloudPreset):
        return PointCloudObservation(env, **arguments)
    if not (isinstance(preset, PixelPreset) and preset.state != "observation" and _is_image(env.observation_space)):
        env = StateObservation(env)
    if isinstance(preset, PixelPreset):
        env = PixelObservation(env, **arguments)
    elif any(arguments.values()):
        env = Distractors(env, **arguments)
    return env if preset.frame_stack == 1 else stack_frames(env, preset.frame_stack)


def _is_image(space: spaces.Space[Any]) -> bool:
    """Whether a space has no state vector in it."""
    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) >= 2


def stack_frames(env: gym.Env[Any, Any], number: int) -> gym.Env[Any, Any]:
    """
    Let the agent see its last observations together, the oldest first.

    Gymnasium's ``FrameStackObservation`` puts them on an axis of their own, ``[k, C, H, W]``; here this axis is merged
    with the next, ``[k C, H, W]`` and ``[k N]``, as CNNs and MLPs take it. At the start of an episode the first
    observation is repeated.
    """
    stacked = FrameStackObservation(env, number, padding_type="reset")
    return TransformObservation(stacked, _merge, _merged_space(stacked.observation_space))


def _merge(observation: Any) -> Any:
    """Array ``[k, N, ...]``, or a dict of them, to ``[k N, ...]``."""
    return map_obs(lambda value: np.reshape(value, (-1, *value.shape[2:])), observation)


def _merged_space(space: spaces.Space[Any]) -> spaces.Space[Any]:
    merged = map_obs(lambda entry: spaces.Box(_merge(entry.low), _merge(entry.high), dtype=entry.dtype.type), space)
    return space_from_entries(entries(merged))
