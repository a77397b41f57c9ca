"""Any environment that is registered with Gymnasium."""

from __future__ import annotations

import importlib
from typing import Any, ClassVar

import gymnasium as gym
from gymnasium.envs.registration import registry

from difftori_gym.envs.mujoco_cameras import ExplainedRendering
from difftori_gym.envs.mujoco_state import MujocoSnapshot
from difftori_gym.envs.observations import Observation, PixelPreset, Preset
from difftori_gym.envs.rendering import select_gl_backend
from difftori_gym.envs.suite import Suite


class Gymnasium(Suite):
    """Registered ids as they are, such as ``Pendulum-v1`` or ``Hopper-v5``."""

    name: ClassVar[str] = "gymnasium"

    def tasks(self) -> list[str]:
        """All registered ids, without those that another suite of this package names."""
        return sorted(id for id in registry if not id.startswith("dm_control/"))

    def canonical_task(self, task: str) -> str | None:
        """Takes registered ids; ``module:id`` imports the module that registers it."""
        module, _, id = task.rpartition(":")
        if module:
            importlib.import_module(module)
        return task if id in registry else None

    def preset(self, task: str, obs: Observation) -> Preset | None:
        """Images of ``render()`` for ``pixels``, nothing for ``pointcloud``."""
        return PixelPreset() if obs == "pixels" else super().preset(task, obs)

    def make(self, task: str, *, seed: int | None, render_mode: str | None, **env_kwargs: Any) -> gym.Env[Any, Any]:
        """
        Build one environment by ``gymnasium.make``, with the time limit it is registered with; resets seed it.

        :raises ImportError: if a package of the environment is missing, with Gymnasium's remedy
        """
        if "mujoco" in str(registry[task.rpartition(":")[2]].entry_point):
            select_gl_backend()
        try:
            env = gym.make(task, render_mode=render_mode, disable_env_checker=True, **env_kwargs)
        except gym.error.DependencyNotInstalled as error:
            raise ImportError(f"{task} is registered but cannot be built. {error}") from error
        simulated = all(hasattr(env.unwrapped, name) for name in ("model", "data", "mujoco_renderer"))
        return MujocoSnapshot(ExplainedRendering(env)) if simulated else env
