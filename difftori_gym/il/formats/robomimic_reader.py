"""
Demonstrations from robomimic's HDF5 files, read without robomimic.

The layout (docs/datasets/overview.md and robomimic/scripts/dataset_states_to_obs.py of robomimic)::

    data                         attributes total, env_args (JSON: env_name, type, env_kwargs, env_version)
        demo_0                   attributes num_samples, model_file (the scene as MuJoCo's XML), success, seed
            states               [T, S] flattened state of the simulation: time, positions, velocities
            actions, rewards, dones                      [T, ...]
            obs, next_obs        groups of [T, ...]; next_obs may be absent, both are in unprocessed files
    mask                         optional: names of demonstrations under filter keys such as train and valid

Others write more or less this: MimicGen's files have no rewards, dones and next_obs, Isaac Lab's none and attributes
success and seed instead, LIBERO's have observations of other names.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from difftori_gym.il.demonstrations import Demonstrations
from difftori_gym.il.episode import Episode
from difftori_gym.il.formats.hdf5 import Group, length_of, open_hdf5, read_array, seed_of, text_of
from difftori_gym.il.formats.inferred_spaces import as_vectors, choose, infer_action_space, infer_space, naming
from difftori_gym.il.formats.storage import ObservationStorage
from difftori_gym.observations import ArrayObs

# robomimic's own choice of low-dimensional observations (robomimic/exps/templates/bc.json), of each arm.
ARM_KEYS = ("eef_pos", "eef_quat", "gripper_qpos")
OBJECT_KEYS = ("object", "object-state")  # robomimic's name, and robosuite's own
ROBOSUITE_TYPE = 1  # robomimic/envs/env_base.py


@dataclass(frozen=True)
class RobomimicEnvArgs:
    """
    The environment that a file was recorded in.

    :param env_name: robosuite's name, such as ``PickPlaceCan``
    :param env_kwargs: arguments of ``robosuite.make``, in the format of the version that recorded
    :param env_version: of robosuite, "" if the file does not tell
    """

    env_name: str
    env_kwargs: dict[str, Any]
    env_version: str = ""


def read_env_args(path: str | Path) -> RobomimicEnvArgs:
    """
    The ``env_args`` of a robomimic file.

    :raises ValueError: if there are none, or they are not of robosuite
    """
    with open_hdf5(Path(path)) as file:
        return _env_args(file, Path(path))


def read_robomimic(
    path: str | Path,
    *,
    obs_keys: Sequence[str] | None = None,
    action_space: spaces.Box | None = None,
    filter_key: str | None = None,
    num_episodes: int | None = None,
    leave_out: Collection[str] = (),
    memory_map: str | Path | None = None,
) -> Demonstrations:
    """
    Read a processed file, one that holds observations.

    The last ``next_obs`` closes an episode; in files without ``next_obs`` the last ``obs`` is repeated.

    :param path: the file
    :param obs_keys: which observations to read, as a dictionary, images among them. None: robomimic's usual
        low-dimensional ones as one float32 vector, that of ``make_env("robosuite/...")``: for each arm the gripper's
        position, quaternion and fingers, then ``object``
    :param action_space: bounds of the actions, which the file does not hold: those of the environment it was recorded
        in, where actions are absolute poses. None: [-1, 1], if all actions are inside
    :param filter_key: read only the demonstrations named under ``mask/FILTER_KEY``, such as ``train``
    :param num_episodes: how many to read, from the first on; None: all
    :param leave_out: names of demonstrations not to read, such as ``demo_3``
    :param memory_map: folder to lay the observations in; None keeps them in memory
    :return: the demonstrations; ``success`` is told by an attribute, or by the rewards, which are 1 where the task is
        solved. Without rewards they are 0, but 1 at the end of an episode whose attribute tells success. ``env_id`` is
        "" if the file is not of robosuite
    :raises ValueError: naming file and demonstration, if it is empty or truncated, lacks a key, or holds what
        :class:`~difftori_gym.il.demonstrations.Demonstrations` refuses
    :raises ImportError: if h5py is not installed
    """
    path = Path(path)
    with open_hdf5(path) as file:
        names = choose(_names(file, filter_key, path), num_episodes, leave_out, str(path))
        rows = sum(_length(file, name, path) + 1 for name in names)
        data, first = file["data"], f"{path}, {names[0]}"
        observation_space = infer_space(_observations(data[names[0]], obs_keys, first), first, "Choose other obs_keys.")
        storage = ObservationStorage(observation_space, rows, memory_map)
        episodes = tuple(_read_episode(data[name], name, obs_keys, storage, f"{path}, {name}") for name in names)
        env_id = _env_id(file, path)
    return Demonstrations(
        episodes,
        observation_space,
        infer_action_space(episodes, str(path), "read_robomimic") if action_space is None else action_space,
        env_id=env_id,
        obs="state" if obs_keys is None else "",
        source=str(path),
    )


def _env_args(file: Group, path: Path) -> RobomimicEnvArgs:
    text = text_of(_data(file, path).attrs.get("env_args", ""))
    try:
        args = json.loads(text)
        kind = args.get("type", args.get("env_type", ROBOSUITE_TYPE))
        found = RobomimicEnvArgs(
            args["env_name"], dict(args.get("env_kwargs") or {}), str(args.get("env_version") or "")
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: expected env_args of group 'data' in JSON with env_name, got {text[:100]!r}. make_env builds "
            "an environment by its name."
        ) from error
    if kind != ROBOSUITE_TYPE:
        raise ValueError(
            f"{path}: expected an environment of robosuite (type {ROBOSUITE_TYPE}), got type {kind}. "
            "read_robomimic reads the demonstrations without it."
        )
    return found


def _data(file: Group, path: Path) -> Group:
    if "data" not in file or not hasattr(file["data"], "keys"):
        raise ValueError(f"{path}: expected robomimic's group 'data', got {', '.join(file) or 'nothing'}.")
    return file["data"]


def _env_id(file: Group, path: Path) -> str:
    """Name for ``make_env``; "" if the file is of another simulator, or does not tell."""
    try:
        return f"robosuite/{_env_args(file, path).env_name}"
    except ValueError:
        return ""


def _names(file: Group, filter_key: str | None, path: Path) -> list[str]:
    """Names of demonstrations, in the order of their numbers; those without one after these, by name."""
    data = _data(file, path)
    names = [name for name in data if hasattr(data[name], "keys")]
    if filter_key is not None:
        masks = list(file["mask"]) if "mask" in file else []
        if filter_key not in masks:
            raise ValueError(f"{path}: expected filter key {filter_key!r}, got {', '.join(masks) or 'none'}.")
        names = [text_of(name) for name in file["mask"][filter_key][()]]
    numbers = {name: name.rpartition("_")[2] for name in names}
    return sorted(names, key=lambda name: (0, int(numbers[name]), name) if numbers[name].isdecimal() else (1, 0, name))


def _length(file: Group, name: str, path: Path) -> int:
    length = length_of(file["data"][name]) if name in file["data"] else None
    if length is None:
        raise ValueError(
            f"{path}, {name}: expected a demonstration with actions, found none. "
            f"read_robomimic(..., leave_out=[{name!r}]) reads the others."
        )
    return length


def _observations(group: Group, obs_keys: Sequence[str] | None, where: str) -> ArrayObs:
    """``[T + 1, ...]`` or a dictionary of such."""
    if "obs" not in group:
        raise ValueError(
            f"{where}: expected observations, found none: this file is unprocessed. Process it with robomimic's "
            "dataset_states_to_obs.py (one of robosuite with convert_robosuite.py first), or fetch the processed one."
        )
    if obs_keys is not None:
        return {key: as_vectors(_closed(group, key, where)) for key in obs_keys}
    found = list(group["obs"])
    arms = sorted({key.partition("_")[0] for key in found if key.startswith("robot")})
    keys = [f"{arm}_{part}" for arm in arms for part in ARM_KEYS]
    keys.append(next((key for key in OBJECT_KEYS if key in found), OBJECT_KEYS[0]))
    missing = [key for key in keys if key not in found]
    if missing:
        raise ValueError(
            f"{where}: expected robosuite's observations {keys}, got {found}. Pass those to read as obs_keys."
        )
    return np.concatenate([as_vectors(_closed(group, key, where)).astype(np.float32) for key in keys], axis=1)


def _closed(group: Group, key: str, where: str) -> np.ndarray:
    """The observations of one key with the closing one, ``[T + 1, ...]``."""
    value = read_array(group, f"obs/{key}", where)
    last = read_array(group, f"next_obs/{key}", where) if f"next_obs/{key}" in group else value
    return np.concatenate([value, last[-1:]])


def _read_episode(
    group: Group, name: str, obs_keys: Sequence[str] | None, storage: ObservationStorage, where: str
) -> Episode:
    with naming(where, name, "read_robomimic"):
        actions = read_array(group, "actions", where)
        told = group.attrs.get("success")
        successes = None
        if "rewards" in group:
            rewards = read_array(group, "rewards", where)
            told = (rewards >= 1).any() if told is None else told
            successes = rewards >= 1
        else:
            rewards = np.zeros(len(actions))
            rewards[-1:] = bool(told)
        episode = Episode(
            observations=_observations(group, obs_keys, where),
            actions=actions,
            rewards=rewards,
            terminated=False,  # robosuite's tasks go on after success; a demonstration is cut
            truncated=True,
            success=None if told is None else bool(told),
            seed=seed_of(group),
            name=name,
            successes=successes,
        )
        return storage.append(episode, where)
