"""DeepMind Control Suite, through Shimmy."""

from __future__ import annotations

import functools
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import TransformAction
from numpy.typing import NDArray

from difftori_gym.envs.mujoco_cameras import FREE_CAMERA, ExplainedRendering, MujocoCameras, allow_pictures, draw_fast
from difftori_gym.envs.mujoco_state import mujoco_state, restore_mujoco
from difftori_gym.envs.observations import Observation, PixelPreset, PointCloudPreset, Preset
from difftori_gym.envs.planned_path import PlannedPath, TrackedPoint
from difftori_gym.envs.rendering import select_gl_backend
from difftori_gym.envs.suite import Suite
from difftori_gym.wrappers.cameras import CameraId

#: Environment frames per agent step. The first 15 are the DiffTORI release's; the last one is TD-MPC's.
ACTION_REPEAT: dict[str, int] = {
    "cartpole-swingup-sparse": 8,
    "cheetah-run": 2,
    "cup-catch": 2,
    "finger-spin": 2,
    "finger-turn-easy": 2,
    "finger-turn-hard": 2,
    "hopper-stand": 4,
    "pendulum-swingup": 2,
    "quadruped-run": 4,
    "quadruped-walk": 4,
    "reacher-easy": 4,
    "reacher-hard": 4,
    "walker-run": 2,
    "walker-stand": 2,
    "walker-walk": 2,
    "cartpole-swingup": 4,
}

# What a film's planned path follows, by domain: the tip of a pole, the hand of an arm, the trunk of a walker.
_TRACKED: dict[str, TrackedPoint] = {
    "acrobot": TrackedPoint("lower_arm", (0.0, 0.0, 1.0)),
    "ball_in_cup": TrackedPoint("ball"),
    "cartpole": TrackedPoint("pole_1", (0.0, 0.0, 1.0)),
    "finger": TrackedPoint("distal", (0.0, 0.0, -0.1455)),
    "pendulum": TrackedPoint("pole", (0.0, 0.0, 0.5)),
    "point_mass": TrackedPoint("pointmass"),
    "reacher": TrackedPoint("finger"),
    "swimmer": TrackedPoint("head"),
    **dict.fromkeys(("manipulator", "stacker"), TrackedPoint("hand")),
    **dict.fromkeys(("cheetah", "fish", "hopper", "humanoid", "quadruped", "walker"), TrackedPoint("torso")),
}

# Lower corner of the clouds' crop box: no ground, everything else.
_ABOVE_GROUND = (-np.inf, -np.inf, 0.005)

# MuJoCo's "no limit": an action space with such bounds is unbounded.
_MUJOCO_UNLIMITED = 1e10


def _spell(name: str) -> str:
    """A task as TD-MPC spells it: ``ball_in_cup-catch-v0`` becomes ``cup-catch``."""
    name = name.removesuffix("-v0").replace("_", "-")
    return name.replace("ball-in-cup-", "cup-")


@functools.lru_cache(maxsize=1)
def _suite_names() -> dict[str, tuple[str, str]]:
    """:return: the suite's (domain, task) of every canonical name"""
    select_gl_backend()
    from dm_control import suite

    return {_spell(f"{domain}-{task}"): (domain, task) for domain, task in suite.ALL_TASKS}


class _ShimmyRendering(ExplainedRendering[Any, Any]):
    """
    Correct what Shimmy tells about films, draw fast, and give access to cameras and joints.

    Shimmy's ``render_fps`` is the length of a control step times 1000, in a dict shared by all environments.
    """

    #: pixels of the planned path under actions ``[K, A]``; only where something is tracked
    planned_pixels: PlannedPath

    def __init__(
        self,
        env: gym.Env[Any, Any],
        *,
        fast: bool,
        tracked: TrackedPoint | None,
        camera: CameraId,
        height: int,
        width: int,
    ) -> None:
        super().__init__(env)
        source = env.unwrapped._env  # type: ignore[attr-defined]
        self.metadata = {**env.metadata, "render_fps": 1.0 / source.control_timestep()}
        self._physics = source.physics
        allow_pictures(self._physics.model, height, width)
        if fast:
            draw_fast(self._physics.model.ptr)
        self.cameras = MujocoCameras(self._simulation, fast=fast)
        self._frame_steps = source._n_sub_steps
        if tracked is not None:
            self.planned_pixels = PlannedPath(
                self._simulation, self._advance, tracked, self.cameras, camera, height, width
            )

    def _simulation(self) -> tuple[Any, Any]:
        return self._physics.model.ptr, self._physics.data.ptr

    def _advance(self, model: Any, data: Any, action: NDArray[np.float64]) -> None:
        import mujoco

        data.ctrl[:] = action
        mujoco.mj_step(model, data, self._frame_steps)

    def agent_position(self) -> NDArray[np.float32]:
        """:return: positions of all joints ``[P]``, those of free objects (cup-catch, finger) included"""
        return np.asarray(self._physics.data.qpos, dtype=np.float32)

    def snapshot(self) -> dict[str, Any]:
        """:return: physics, task with its random numbers, and clock, see ``wrappers/snapshot.py``"""
        source = self.unwrapped._env  # type: ignore[attr-defined]
        return {
            "physics": mujoco_state(self._physics.model.ptr, self._physics.data.ptr),
            "task": vars(source.task),
            "clock": (source._step_count, source._reset_next_step),
        }

    def restore_snapshot(self, state: dict[str, Any]) -> None:
        """:param state: from :meth:`snapshot`"""
        source = self.unwrapped._env  # type: ignore[attr-defined]
        restore_mujoco(self._physics.model.ptr, self._physics.data.ptr, state["physics"])
        vars(source.task).update(state["task"])
        source._step_count, source._reset_next_step = state["clock"]

    def close(self) -> None:
        self.cameras.close()
        super().close()


class DMControl(Suite):
    """Tasks of ``dm_control.suite``, written as TD-MPC writes them (``cup-catch``, ``finger-turn-hard``)."""

    name: ClassVar[str] = "dm_control"
    extra: ClassVar[str | None] = "dm_control"
    packages: ClassVar[tuple[str, ...]] = ("dm_control", "mujoco", "shimmy")
    paper_tasks: ClassVar[tuple[str, ...]] = tuple(task for task in ACTION_REPEAT if task != "cartpole-swingup")

    def tasks(self) -> list[str]:
        self.require()
        return list(_suite_names())

    def canonical_task(self, task: str) -> str | None:
        """Takes ``cup-catch``, ``ball_in_cup-catch``, ``finger-turn_hard-v0``, ..."""
        name = _spell(task)
        return name if name in _suite_names() else None

    def action_repeat(self, task: str) -> int:
        """That of the DiffTORI release, 1 for tasks it does not have."""
        return ACTION_REPEAT.get(task, 1)

    def preset(self, task: str, obs: Observation) -> Preset | None:
        """Camera 0, in the quadruped's tasks 2, as the DiffTORI release has it; clouds without the ground."""
        if obs == "pixels":
            return PixelPreset(camera=_camera_of(task))
        if obs == "pointcloud":
            return PointCloudPreset(cameras=(_camera_of(task),), crop_low=_ABOVE_GROUND)
        return super().preset(task, obs)

    def make(self, task: str, *, seed: int | None, render_mode: str | None, **env_kwargs: Any) -> gym.Env[Any, Any]:
        """
        Build one task, which truncates itself, after 1000 frames in most.

        :param env_kwargs: ``fast_render`` (default True: draw without antialiasing, shadows and reflections);
            ``width`` and ``height`` of rendered images in pixels (256); ``camera_id``, name or number of their camera
            (-1 for a free one, None for the preset's)
        :raises ValueError: on another render mode than Shimmy's or an unknown camera; lists the choices
        """
        return _load(task, seed=seed, render_mode=render_mode, **env_kwargs)


def _load(
    task: str,
    *,
    seed: int | None,
    render_mode: str | None,
    fast_render: bool = True,
    width: int = 256,
    height: int = 256,
    camera_id: CameraId | None = None,
) -> gym.Env[Any, Any]:
    domain, task_name = _suite_names()[task]
    from dm_control import suite
    from shimmy.dm_control_compatibility import DmControlCompatibilityV0

    camera = _camera_of(task) if camera_id is None else camera_id
    render_kwargs = {"width": width, "height": height, "camera_id": camera}
    modes = DmControlCompatibilityV0.metadata["render_modes"]
    if render_mode is not None and render_mode not in modes:
        raise ValueError(f"Unknown render_mode {render_mode!r} of {task}. Choices: {', '.join(modes)}; or None.")
    source = suite.load(domain, task_name, task_kwargs={"random": seed})
    shimmy = DmControlCompatibilityV0(source, render_mode=render_mode, render_kwargs=render_kwargs)
    tracked = _TRACKED.get(domain)
    env = _ShimmyRendering(shimmy, fast=fast_render, tracked=tracked, camera=camera, height=height, width=width)
    if camera_id not in (None, FREE_CAMERA):  # a wrong one is told now, and not as if nothing could be drawn
        env.cameras.index(camera_id)
    # The simulation computes in float64.
    return TransformAction(env, lambda action: np.asarray(action, np.float64), _float32_bounds(env.action_space))


def _camera_of(task: str) -> int:
    """The camera of the DiffTORI release."""
    return 2 if task.startswith("quadruped-") else 0


def _float32_bounds(space: spaces.Space[Any]) -> spaces.Box:
    """With infinite bounds where MuJoCo has no limit."""
    assert isinstance(space, spaces.Box)
    low = np.where(space.low <= -_MUJOCO_UNLIMITED, -np.inf, space.low).astype(np.float32)
    high = np.where(space.high >= _MUJOCO_UNLIMITED, np.inf, space.high).astype(np.float32)
    return spaces.Box(low=low, high=high, dtype=np.float32)
