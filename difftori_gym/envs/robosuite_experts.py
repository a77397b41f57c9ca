"""Scripted experts for robosuite's Lift and Can, through the operational-space controller."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.floating[Any]]
Expert = Callable[[Vector], NDArray[np.float32]]

# An action of 1 moves the gripper by 5 cm and turns it by 0.5 rad.
_MOVE_SCALE, _TURN_SCALE = 0.05, 0.5
_OPEN, _CLOSE = -1.0, 1.0
_OPEN_WIDTH = 0.07  # metres between the fingers above which nothing is held: fully open they are 0.08 apart
_ABOVE = 0.10  # height over the object from which the gripper comes down, metres


@dataclass(frozen=True)
class PickTask:
    """
    What an expert has to know of a task; lengths in metres, positions in the world.

    :param object_at: where the object's position stands in the state, its quaternion behind it; ``object-state`` of the
        can begins with its pose relative to the gripper, which is zero in the first observation
    :param align: turn the fingers parallel to the object's sides
    :param grasp_height: of the gripper over the object's centre when it closes
    :param held_width: distance of the fingers below which the object counts as held
    :param carry_height: height to which the gripper lifts the object
    :param goal: where to let it go, None: nowhere, hold it
    :param release_height: height of the gripper at which it lets go
    """

    object_at: int
    align: bool
    grasp_height: float
    held_width: float
    carry_height: float
    goal: tuple[float, float] | None = None
    release_height: float = 0.0


# The can belongs in the far right quarter of the bin at (0.1, 0.28), which is 0.39 x 0.49 wide
# (robosuite/environments/manipulation/pick_place.py).
TASKS: dict[str, PickTask] = {
    "Lift": PickTask(object_at=9, align=True, grasp_height=0.0, held_width=0.048, carry_height=0.95),
    "Can": PickTask(
        object_at=16,
        align=False,
        grasp_height=0.01,
        held_width=0.056,
        carry_height=1.08,
        goal=(0.1 + 0.39 / 4, 0.28 + 0.49 / 4),
        release_height=0.94,
    ),
}


def scripted_expert(task: str) -> Expert:
    """
    A feedback law: the action depends on the state alone, so that it can be learned from states.

    Above the object it turns and comes down, closes the fingers around it, lifts it; for the can, carries it over its
    bin, comes down and opens the fingers.

    :param task: ``Lift`` or ``Can``, with or without ``robosuite/``
    :return: function from the state ``[N]`` of ``make_env("robosuite/...")`` (gripper's position, quaternion, fingers,
        then robosuite's ``object-state``) to an action ``[7]`` in [-1, 1]
    :raises ValueError: for another task
    """
    name = task.removeprefix("robosuite/")
    if name not in TASKS:
        raise ValueError(f"robosuite/{name} has no scripted expert. Choices: {', '.join(TASKS)}.")
    settings = TASKS[name]
    from scipy.spatial.transform import Rotation

    def act(state: Vector) -> NDArray[np.float32]:
        state = np.asarray(state, dtype=np.float64)
        gripper, rotation, width = state[0:3], Rotation.from_quat(state[3:7]).as_matrix(), state[7] - state[8]
        thing = state[settings.object_at : settings.object_at + 7]
        target, finger_action = _aim(settings, gripper, float(width), thing[:3])
        turn = _turn(rotation, Rotation.from_quat(thing[3:]).as_matrix() if settings.align else None)
        # Twice the distance: the controller's springs stop short of where they are told to go.
        move = 2.0 * (target - gripper) / _MOVE_SCALE
        action = np.concatenate([move, turn / _TURN_SCALE, [finger_action]])
        return np.clip(action, -1.0, 1.0).astype(np.float32)

    return act


def _aim(task: PickTask, gripper: Vector, width: float, thing: Vector) -> tuple[Vector, float]:
    """Where to move the gripper ``[3]``, and the fingers' action."""
    grasp = thing + np.array([0.0, 0.0, task.grasp_height])
    across = float(np.linalg.norm(grasp[:2] - gripper[:2]))
    at_goal = task.goal is not None and float(np.linalg.norm(thing[:2] - np.array(task.goal))) < 0.04
    near = across < 0.02 and abs(grasp[2] - gripper[2]) < 0.02
    if at_goal and not (near and width < task.held_width and gripper[2] > task.release_height):
        # Over the bin and low enough, or already let go: open and leave upwards.
        return np.array([gripper[0], gripper[1], task.carry_height]) if width > _OPEN_WIDTH else gripper, _OPEN
    if near and width < task.held_width:
        return _carry(task, gripper), _CLOSE
    if near:
        return grasp, _CLOSE
    if across > 0.015 and gripper[2] - grasp[2] < 0.03:  # beside the object: up before across
        return np.array([gripper[0], gripper[1], grasp[2] + _ABOVE]), _OPEN
    if across > 0.012:
        return grasp + np.array([0.0, 0.0, _ABOVE]), _OPEN
    return grasp, _OPEN


def _carry(task: PickTask, gripper: Vector) -> Vector:
    """Where to move the gripper, which holds the object ``[3]``."""
    if task.goal is None:
        return np.array([gripper[0], gripper[1], task.carry_height])
    goal = np.array(task.goal)
    away = float(np.linalg.norm(goal - gripper[:2]))
    if away < 0.03:
        return np.array([*goal, task.release_height - 0.02])
    if gripper[2] < task.carry_height - 0.04:
        return np.array([gripper[0], gripper[1], task.carry_height])
    return np.array([*goal, task.carry_height])


def _turn(rotation: Vector, thing: Vector | None) -> Vector:
    """Rotation to the pose aimed at, axis times angle ``[3]``; without an object only to point straight down."""
    sides = [rotation[:, 1]] if thing is None else [thing[:, 0], -thing[:, 0], thing[:, 1], -thing[:, 1]]
    y = max(sides, key=lambda side: float(side @ rotation[:, 1])) * np.array([1.0, 1.0, 0.0])
    y /= np.linalg.norm(y)
    down = np.array([0.0, 0.0, -1.0])
    change = np.stack([np.cross(y, down), y, down], axis=1) @ rotation.T
    # Small angles: the antisymmetric part is the sine of the angle times the axis.
    return 0.5 * np.array([change[2, 1] - change[1, 2], change[0, 2] - change[2, 0], change[1, 0] - change[0, 1]])
