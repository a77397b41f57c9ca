"""robosuite, with the tasks, controllers and episode lengths of robomimic."""

from __future__ import annotations

import functools
import logging
import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from difftori_gym.envs.mujoco_cameras import MujocoCameras
from difftori_gym.envs.observations import Observation, PixelPreset, PointCloudPreset, Preset
from difftori_gym.envs.rendering import select_gl_backend
from difftori_gym.envs.suite import Suite
from difftori_gym.wrappers.cameras import CameraId


@dataclass(frozen=True)
class RobomimicTask:
    """
    How robomimic runs a task of robosuite.

    :param environment: robosuite's name
    :param horizon: frames of an episode
    :param robots: number of Panda arms
    :param cameras: cameras of robomimic's image observations
    :param depth_cameras: cameras of the point clouds
    :param reach: half the width of the clouds' crop box in x and y, metres; it stands on the table, 0.8 m high
    """

    environment: str
    horizon: int
    robots: int = 1
    cameras: tuple[CameraId, ...] = ("agentview", "robot0_eye_in_hand")
    depth_cameras: tuple[CameraId, ...] = ("agentview",)
    reach: tuple[float, float] = (0.6, 0.6)


#: robomimic's tasks by their short names; robosuite's own names are accepted too.
TASKS: dict[str, RobomimicTask] = {
    "Lift": RobomimicTask("Lift", 400),
    "Can": RobomimicTask("PickPlaceCan", 400),
    "Square": RobomimicTask("NutAssemblySquare", 400),
    "ToolHang": RobomimicTask(
        "ToolHang", 700, cameras=("sideview", "robot0_eye_in_hand"), depth_cameras=("sideview", "agentview")
    ),
    "Transport": RobomimicTask(
        "TwoArmTransport",
        700,
        robots=2,
        cameras=("shouldercamera0", "robot0_eye_in_hand", "shouldercamera1", "robot1_eye_in_hand"),
        depth_cameras=("shouldercamera0", "shouldercamera1"),
        reach=(0.8, 1.2),
    ),
}

#: Control steps per second in robomimic.
CONTROL_FREQ = 20

# robosuite draws its collision shapes in this group, the visible ones in another.
_COLLISION_GROUP = 0
# Just above the table, so that a cloud holds no table.
_TABLE_TOP, _CEILING = 0.805, 1.6


@functools.lru_cache(maxsize=1)
def _robosuite() -> Any:
    """The package, imported without its remarks on optional parts."""
    select_gl_backend()
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():  # escape sequences in its texts, told when they are compiled
            warnings.simplefilter("ignore", DeprecationWarning)
            import robosuite
    finally:
        logging.disable(disabled)
    # It tells at every construction which file it reads.
    logging.getLogger("robosuite_logs").setLevel(logging.WARNING)
    return robosuite


def osc_pose() -> dict[str, Any]:
    """
    Operational-space control as in robomimic's data: an action in [-1, 1] moves the gripper by up to 5 cm and turns it
    by up to 0.5 rad along each axis of the world.

    :return: settings of an arm's controller in robosuite's format
    """
    reach = [0.05, 0.05, 0.05, 0.5, 0.5, 0.5]
    return {
        "type": "OSC_POSE",
        "input_max": 1,
        "input_min": -1,
        "output_max": reach,
        "output_min": [-value for value in reach],
        "kp": 150,
        "damping_ratio": 1,
        "impedance_mode": "fixed",
        "kp_limits": [0, 300],
        "damping_ratio_limits": [0, 10],
        "position_limits": None,
        "orientation_limits": None,
        "uncouple_pos_ori": True,
        "input_type": "delta",
        "input_ref_frame": "world",
        "interpolation": None,
        "ramp_ratio": 0.2,
        "gripper": {"type": "GRIP"},
    }


class RobosuiteTask(gym.Env[NDArray[np.float32], NDArray[np.float32]]):
    """
    One robosuite task with robomimic's low-dimensional observation.

    The observation ``[N]`` is, for every arm, the gripper's position (3), its quaternion (4) and its fingers (2), then
    robosuite's ``object-state``. ``info["success"]`` of :meth:`step` tells of this frame. An episode never terminates.

    :param task: short name in :data:`TASKS`
    :param seed: seed of object positions; ``reset(seed=...)`` sets it anew. None: not seeded
    :param render_mode: None or ``rgb_array``
    :param width: of rendered images, pixels, like ``height``
    :param camera: camera of rendered images. None: robomimic's first
    :param max_episode_steps: frames after which an episode is truncated, at least 1. None: robomimic's
    :param reward_shaping: robosuite's dense reward; without it 1 at success and 0 otherwise
    :param fast_render: draw without antialiasing, shadows and reflections
    :param suite_kwargs: further arguments of ``robosuite.make``, such as those of a data set's ``env_args``
    :raises ValueError: on another render mode, an unknown camera or ``max_episode_steps`` below 1
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": CONTROL_FREQ}  # noqa: RUF012

    def __init__(
        self,
        task: str,
        *,
        seed: int | None = None,
        render_mode: str | None = None,
        width: int = 256,
        height: int = 256,
        camera: CameraId | None = None,
        max_episode_steps: int | None = None,
        reward_shaping: bool = False,
        fast_render: bool = True,
        **suite_kwargs: Any,
    ) -> None:
        settings = TASKS[task]
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"robosuite/{task} draws with render_mode='rgb_array' only, got {render_mode!r}.")
        if max_episode_steps is not None and max_episode_steps < 1:
            raise ValueError(f"robosuite/{task} needs max_episode_steps >= 1, got {max_episode_steps}.")
        self.render_mode = render_mode
        self._image_size = (height, width)
        self.max_episode_steps = max_episode_steps or settings.horizon
        self._source = _build(settings, seed=seed, reward_shaping=reward_shaping, **suite_kwargs)
        self.cameras = MujocoCameras(self._simulation, fast=fast_render, hidden_groups=(_COLLISION_GROUP,))
        self._camera = self.cameras.index(settings.cameras[0] if camera is None else camera)
        self.metadata = {**self.metadata, "render_fps": self._source.control_freq}

        self._agent_keys = [
            f"robot{arm}_{part}" for arm in range(settings.robots) for part in ("eef_pos", "eef_quat", "gripper_qpos")
        ]
        self._last = self._source.observation_spec()
        low, high = self._source.action_spec
        self.action_space = spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)
        self.observation_space = spaces.Box(-np.inf, np.inf, self._observation().shape, np.float32)
        self._steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start an episode with objects in new places: observation ``[N]`` and info."""
        super().reset(seed=seed)
        if seed is not None:
            # The placement samplers hold this very generator, so that it cannot be replaced.
            self._source.rng.bit_generator.state = np.random.default_rng(seed).bit_generator.state
        self._last = self._source.reset()
        self._steps = 0
        return self._observation(), {}

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """
        Control the arms for one frame, 1/20 s.

        :param action: ``[A]`` in [-1, 1], 7 per arm: displacement, rotation, closing of the gripper
        :return: observation ``[N]``, reward, False, whether the time is over, info
        """
        self._last, reward, _, info = self._source.step(np.asarray(action, dtype=np.float64))
        self._steps += 1
        info = {**info, "success": bool(self._source._check_success())}
        return self._observation(), float(reward), False, self._steps >= self.max_episode_steps, info

    def _simulation(self) -> tuple[Any, Any]:
        sim = self._source.sim  # a new one after every reset with ``hard_reset=True``
        return sim.model._model, sim.data._data

    def agent_position(self) -> NDArray[np.float32]:
        """:return: for every arm the gripper's position (3), its quaternion (4) and its fingers (2) ``[9 per arm]``"""
        return np.concatenate([self._last[key] for key in self._agent_keys]).astype(np.float32)

    @property
    def state(self) -> NDArray[np.float32]:
        """State observation ``[N]`` of this moment, whatever the agent sees: what scripted experts read."""
        return self._observation()

    def _observation(self) -> NDArray[np.float32]:
        return np.concatenate([self.agent_position(), self._last["object-state"].astype(np.float32)])

    def render(self) -> Any:
        """:return: image ``[height, width, 3]`` of the chosen camera, None without a render mode"""
        return None if self.render_mode is None else self.cameras.image(self._camera, *self._image_size)

    def close(self) -> None:
        self.cameras.close()
        self._source.close()


def _build(settings: RobomimicTask, **suite_kwargs: Any) -> Any:
    """robosuite's environment; a reset keeps its model, which takes 0.05 s instead of 1 s."""
    robosuite = _robosuite()
    controller = {"type": "BASIC", "body_parts": {"right": osc_pose()}}
    arguments: dict[str, Any] = dict(
        robots=["Panda"] * settings.robots,
        controller_configs=[controller] * settings.robots if settings.robots > 1 else controller,
        control_freq=CONTROL_FREQ,
        has_renderer=False,
        has_offscreen_renderer=False,
        use_camera_obs=False,
        use_object_obs=True,
        ignore_done=True,
        hard_reset=False,
    )
    return robosuite.make(settings.environment, **{**arguments, **suite_kwargs})


class Robosuite(Suite):
    """The tasks of robomimic: Lift, Can, Square, ToolHang, Transport."""

    name: ClassVar[str] = "robosuite"
    extra: ClassVar[str | None] = "robosuite"
    packages: ClassVar[tuple[str, ...]] = ("robosuite", "mujoco")

    def tasks(self) -> list[str]:
        self.require()
        return list(TASKS)

    def canonical_task(self, task: str) -> str | None:
        """Takes ``Square``, ``square``, ``NutAssemblySquare``, ``tool_hang``, ..."""
        wanted = task.replace("_", "").replace("-", "").lower()
        for name, settings in TASKS.items():
            if wanted in (name.lower(), settings.environment.lower()):
                return name
        return None

    def preset(self, task: str, obs: Observation) -> Preset | None:
        """robomimic's cameras, one frame; clouds of 1024 points above the table."""
        settings = TASKS[task]
        if obs == "pixels":
            return PixelPreset(camera=settings.cameras, frame_stack=1)
        if obs == "pointcloud":
            x, y = settings.reach
            return PointCloudPreset(
                cameras=settings.depth_cameras,
                num_points=1024,
                crop_low=(-x, -y, _TABLE_TOP),
                crop_high=(x, y, _CEILING),
            )
        return super().preset(task, obs)

    def make(self, task: str, *, seed: int | None, render_mode: str | None, **env_kwargs: Any) -> gym.Env[Any, Any]:
        """See :class:`RobosuiteTask` for ``env_kwargs``."""
        return RobosuiteTask(task, seed=seed, render_mode=render_mode, **env_kwargs)
