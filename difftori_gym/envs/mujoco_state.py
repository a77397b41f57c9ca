"""Everything that decides how a MuJoCo simulation goes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

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
    """
    :param model: ``mujoco.MjModel``
    :param data: ``mujoco.MjData``
    :return: copies of both
    """
    import mujoco

    kind = mujoco.mjtState.mjSTATE_INTEGRATION
    integration = np.empty(mujoco.mj_stateSize(model, kind))
    mujoco.mj_getState(model, data, integration, kind)
    return MujocoState(integration, _arrays(data), _arrays(model))


def restore_mujoco(model: Any, data: Any, state: MujocoState) -> None:
    """
    :param model: ``mujoco.MjModel``, overwritten
    :param data: ``mujoco.MjData`` of that model, overwritten
    :param state: of a model that was built alike
    """
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
