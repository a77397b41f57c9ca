"""Everything that decides how a MuJoCo simulation goes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.core import ActType, ObsType

# Arrays of a model that no task changes, and that are large.
_CONSTANT = ("mesh_", "tex_", "hfield_", "skin_", "bvh_", "oct_", "flex_", "names", "paths")


@dataclass(frozen=True)
class MujocoState:
    """
    :param integration: positions, velocities, activations, controls, warm start, time: all that MuJoCo integrates from
    :param data: what was last computed from them, which observations and rewards read
    :param model: arrays of the model, which tasks change at random (sizes and places of targets)
    """

    integration: np.ndarray
    data: dict[str, np.ndarray]
    model: dict[str, np.ndarray]


def mujoco_state(model: Any, data: Any) -> MujocoState:
    """Copies of an ``MjModel`` and its ``MjData``."""
    import mujoco

    kind = mujoco.mjtState.mjSTATE_INTEGRATION
    integration = np.empty(mujoco.mj_stateSize(model, kind))
    mujoco.mj_getState(model, data, integration, kind)
    return MujocoState(integration, _arrays(data), _arrays(model))


def restore_mujoco(model: Any, data: Any, state: MujocoState) -> None:
    """Overwrite both by the state of a model that was built alike."""
    import mujoco

    for name, array in state.model.items():
        getattr(model, name)[...] = array
    mujoco.mj_setState(model, data, state.integration, mujoco.mjtState.mjSTATE_INTEGRATION)
    mujoco.mj_step1(model, data)  # contacts and constraints, whose arrays have no fixed size
    for name, array in state.data.items():
        target = getattr(data, name)
        if target.shape == array.shape:
            target[...] = array


def _arrays(source: Any) -> dict[str, np.ndarray]:
    names = [name for name in dir(source) if not name.startswith(("_", *_CONSTANT))]
    values = {name: getattr(source, name) for name in names}
    return {name: value.copy() for name, value in values.items() if isinstance(value, np.ndarray) and value.size}


# What a ``MujocoEnv`` holds that is built anew, or saved by itself.
_BUILT = ("model", "data", "mujoco_renderer", "env", "spec", "_ezpickle_args", "_ezpickle_kwargs")


class MujocoSnapshot(gym.Wrapper[ObsType, ActType, ObsType, ActType]):
    """
    Let the state of Gymnasium's MuJoCo environments be saved, which pickle as new ones, see ``wrappers/snapshot.py``.

    :param env: a ``gymnasium.envs.mujoco.MujocoEnv``, in wrappers that remember plain values only
    """

    def snapshot(self) -> dict[str, Any]:
        """:return: physics, and the other attributes of the environment and its wrappers"""
        base: Any = self.unwrapped
        attributes = [
            {name: value for name, value in vars(layer).items() if name not in _BUILT} for layer in self._inside()
        ]
        return {"physics": mujoco_state(base.model, base.data), "attributes": attributes}

    def restore_snapshot(self, state: dict[str, Any]) -> None:
        """:param state: from :meth:`snapshot`"""
        base: Any = self.unwrapped
        for layer, attributes in zip(self._inside(), state["attributes"], strict=True):
            vars(layer).update(attributes)
        restore_mujoco(base.model, base.data, state["physics"])

    def _inside(self) -> list[gym.Env[Any, Any]]:
        layers: list[gym.Env[Any, Any]] = [self.env]
        while isinstance(layers[-1], gym.Wrapper):
            layers.append(layers[-1].env)
        return layers
