"""MetaWorld v3: 50 manipulation tasks of a Sawyer arm."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from difftori_gym.envs.mujoco_cameras import MujocoCameras
from difftori_gym.envs.mujoco_state import MujocoSnapshot
from difftori_gym.envs.observations import Observation, PixelPreset, PointCloudPreset, Preset
from difftori_gym.envs.planned_path import PlannedPath, TrackedPoint
from difftori_gym.envs.rendering import select_gl_backend
from difftori_gym.envs.suite import Suite
from difftori_gym.wrappers.cameras import CameraId

#: The paper's imitation tasks, under the levels of difficulty that DP3 gives them.
PAPER_TASKS: dict[str, tuple[str, ...]] = {
    "medium": (
        *("basketball", "bin-picking", "box-close", "coffee-pull", "coffee-push", "hammer", "peg-insert-side"),
        *("push-wall", "soccer", "sweep", "sweep-into"),
    ),
    "hard": ("assembly", "hand-insert", "pick-out-of-hole", "pick-place", "push", "push-back"),
    "very hard": ("shelf-place", "disassemble", "stick-pull", "stick-push", "pick-place-wall"),
}

#: Frames after which the suite truncates an episode.
MAX_EPISODE_STEPS = 500

#: Position of camera ``corner2`` in the paper and in DP3, metres.
CORNER2_POSITION = (0.75, 0.075, 0.7)

# DP3's crop box. DP3 bounds its clouds by (-0.5, -1.5, -0.795) and (1, -0.4, 100) in axes that start at its camera,
# (0.6, 0.295, 0.8), and are the world's turned by this angle (and tilted by 0.6 degrees, left out here). Moved to the
# world's origin the bounds are these; they cut the table top off.
_CROP_YAW = -129.6
_CROP_LOW, _CROP_HIGH = (-1.11, -1.225, 0.005), (0.39, -0.125, math.inf)

# MetaWorld mounts these cameras upside down.
_UPSIDE_DOWN = ("corner", "corner2", "corner3", "corner4")

Expert = Callable[[NDArray[np.floating[Any]]], NDArray[np.float32]]


@functools.lru_cache(maxsize=1)
def _classes() -> dict[str, Any]:
    """:return: MetaWorld's environment class of every canonical name"""
    select_gl_backend()
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    return {name.removesuffix("-v3"): cls for name, cls in ALL_V3_ENVIRONMENTS.items()}


def scripted_expert(task: str) -> Expert:
    """
    MetaWorld's own scripted policy of a task.

    It reads the state observation ``[39]`` of one environment. Where the agent sees something else, that state is
    ``env.get_wrapper_attr("state")``:

        env = make_env("metaworld/reach", obs="pointcloud", seed=0)
        expert = scripted_expert("reach")
        observation, _ = env.reset()
        action = expert(env.get_wrapper_attr("state"))

    :param task: name of the task, with or without ``metaworld/`` and ``-v3``
    :return: function from the state ``[39]`` to an action ``[4]`` in [-1, 1]
    :raises ValueError: on an unknown task
    :raises ImportError: if MetaWorld is not installed
    """
    suite = MetaWorld()
    name = suite.find(task.removeprefix("metaworld/"))
    with suite.explain_missing():
        from metaworld.policies import ENV_POLICY_MAP

    policy: Any = ENV_POLICY_MAP[f"{name}-v3"]()  # type: ignore[abstract]

    def act(state: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        with warnings.catch_warnings():  # "Constant(s) may be too high": they are clipped here
            warnings.simplefilter("ignore", UserWarning)
            action = policy.get_action(np.asarray(state, dtype=np.float64))
        return np.clip(action, -1.0, 1.0).astype(np.float32)

    return act


class MetaWorldTask(gym.Env[NDArray[np.float32], NDArray[np.float32]]):
    """
    One MetaWorld task with the goal in the observation and a new goal at every reset, as TD-MPC2 and DP3 run it.

    ``info["success"]`` of :meth:`step` is the suite's own, of this frame. An episode never terminates.

    :param task: canonical name
    :param seed: seed of goals and object positions; ``reset(seed=...)`` sets it anew. None: not seeded
    :param render_mode: None or ``rgb_array``
    :param width: of rendered images, pixels, like ``height``
    :param camera: camera of rendered images
    :param max_episode_steps: frames after which an episode is truncated, 1 to 500
    :param fast_render: draw without antialiasing, shadows and reflections
    :raises ValueError: on another render mode, an unknown camera or ``max_episode_steps`` out of range
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 80}  # noqa: RUF012

    def __init__(
        self,
        task: str,
        *,
        seed: int | None = None,
        render_mode: str | None = None,
        width: int = 256,
        height: int = 256,
        camera: CameraId = "corner2",
        max_episode_steps: int = MAX_EPISODE_STEPS,
        fast_render: bool = True,
    ) -> None:
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"metaworld/{task} draws with render_mode='rgb_array' only, got {render_mode!r}.")
        if not 1 <= max_episode_steps <= MAX_EPISODE_STEPS:
            raise ValueError(
                f"metaworld/{task} needs 1 <= max_episode_steps <= {MAX_EPISODE_STEPS}, got {max_episode_steps}."
            )
        self.render_mode = render_mode
        self._image_size = (height, width)
        self.max_episode_steps = max_episode_steps
        self._source = _with_free_goals(_classes()[task]())
        if seed is not None:
            self._source.seed(seed)
        _mount_cameras(self._source.model)
        self.cameras = MujocoCameras(self._simulation, fast=fast_render)
        self._camera = self.cameras.index(camera)
        #: pixels of the hand's planned path under actions ``[K, 4]``
        self.planned_pixels = PlannedPath(
            self._simulation, self._advance, TrackedPoint("hand"), self.cameras, self._camera, height, width
        )
        self.metadata = {**self.metadata, "render_fps": 1.0 / self._source.dt}  # of a frame, five steps of simulation

        space = self._source.sawyer_observation_space
        self.observation_space = spaces.Box(space.low.astype(np.float32), space.high.astype(np.float32))
        self.action_space = spaces.Box(-1.0, 1.0, (4,), np.float32)
        self._low, self._high = space.low, space.high
        #: last state observation ``[39]`` in float64, what :func:`scripted_expert` reads
        self.state: NDArray[np.float64] = np.zeros(space.shape)
        self._steps = 0

    def snapshot(self) -> dict[str, Any]:
        """:return: simulation, random numbers and the running episode, see ``wrappers/snapshot.py``"""
        return {"source": MujocoSnapshot(self._source).snapshot(), "own": (self.state, self._steps)}

    def restore_snapshot(self, state: dict[str, Any]) -> None:
        """:param state: from :meth:`snapshot`"""
        MujocoSnapshot(self._source).restore_snapshot(state["source"])
        self.state, self._steps = state["own"]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start an episode with a new goal: observation ``[39]`` and info."""
        super().reset(seed=seed)
        if seed is not None:
            self._source.seed(seed)
        observation, info = self._source.reset()
        self._steps = 0
        return self._observe(observation), dict(info)

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """
        Move the hand for one frame.

        :param action: ``[4]`` in [-1, 1]: displacement of the hand in units of 1 cm, and closing of the gripper
        :return: observation ``[39]``, reward in [0, 10], False, whether the time is over, info
        """
        observation, reward, _, truncated, info = self._source.step(np.asarray(action, dtype=np.float64))
        self._steps += 1
        truncated = bool(truncated) or self._steps >= self.max_episode_steps
        return self._observe(observation), float(reward), False, truncated, info

    def _simulation(self) -> tuple[Any, Any]:
        return self._source.model, self._source.data

    def _advance(self, model: Any, data: Any, action: NDArray[np.float64]) -> None:
        """What a step does, done to a copy of the data: it drags the hand by a body that follows the action."""
        import mujoco

        source = self._source
        dragged = data.mocap_pos + source.action_scale * np.clip(action[:3], -1.0, 1.0)
        data.mocap_pos[:] = np.clip(dragged, source.mocap_low, source.mocap_high)
        data.mocap_quat[:] = (1.0, 0.0, 1.0, 0.0)
        data.ctrl[:] = (action[3], -action[3])
        mujoco.mj_step(model, data, source.frame_skip)

    def _observe(self, observation: NDArray[np.float64]) -> NDArray[np.float32]:
        """Clipped, which the suite does in steps, but not at the reset."""
        self.state = np.clip(observation, self._low, self._high)
        return self.state.astype(np.float32)

    def agent_position(self) -> NDArray[np.float32]:
        """:return: positions of the hand, the right and the left fingertip in the world ``[9]``, metres, as DP3"""
        data = self._source.data
        tips = [data.site(name).xpos for name in ("rightEndEffector", "leftEndEffector")]
        return np.concatenate([data.body("hand").xpos, *tips]).astype(np.float32)

    def render(self) -> Any:
        """:return: image ``[height, width, 3]`` of the chosen camera, None without a render mode"""
        return None if self.render_mode is None else self.cameras.image(self._camera, *self._image_size)

    def close(self) -> None:
        self.cameras.close()
        self._source.close()


def _with_free_goals(source: Any) -> Any:
    """
    MetaWorld's environment refuses to start without a task drawn from one of its benchmarks. Here it shows the goal and
    draws it anew from its own random stream at each reset.
    """
    source._partially_observable = False
    del source.sawyer_observation_space  # cached, with the goal hidden
    source._freeze_rand_vec = False
    source.seeded_rand_vec = True
    source._set_task_called = True
    return source


def _mount_cameras(model: Any) -> None:
    """Move ``corner2`` where the paper has it and turn the corner cameras upright, so that all that is seen agrees."""
    model.camera("corner2").pos[:] = CORNER2_POSITION
    for name in _UPSIDE_DOWN:
        w, x, y, z = model.camera(name).quat
        model.camera(name).quat[:] = (-z, y, -x, w)  # half a turn about the optical axis


class MetaWorld(Suite):
    """Tasks of MetaWorld v3, written without ``-v3``."""

    name: ClassVar[str] = "metaworld"
    extra: ClassVar[str | None] = "metaworld"
    packages: ClassVar[tuple[str, ...]] = ("metaworld", "mujoco")
    paper_tasks: ClassVar[tuple[str, ...]] = tuple(task for level in PAPER_TASKS.values() for task in level)

    def tasks(self) -> list[str]:
        self.require()
        return list(_classes())

    def canonical_task(self, task: str) -> str | None:
        """Takes ``reach``, ``reach-v3``, ``sweep_into``, ..."""
        name = task.removesuffix("-v3").replace("_", "-")
        return name if name in _classes() else None

    def preset(self, task: str, obs: Observation) -> Preset | None:
        """Camera ``corner2`` for images; for clouds the same camera, 512 points and DP3's crop box."""
        if obs == "pixels":
            return PixelPreset(camera="corner2")
        if obs == "pointcloud":
            return PointCloudPreset(
                cameras=("corner2",), num_points=512, crop_low=_CROP_LOW, crop_high=_CROP_HIGH, crop_yaw=_CROP_YAW
            )
        return super().preset(task, obs)

    def make(self, task: str, *, seed: int | None, render_mode: str | None, **env_kwargs: Any) -> gym.Env[Any, Any]:
        """See :class:`MetaWorldTask` for ``env_kwargs``."""
        return MetaWorldTask(task, seed=seed, render_mode=render_mode, **env_kwargs)
