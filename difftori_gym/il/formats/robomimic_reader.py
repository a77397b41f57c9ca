"""
Demonstrations from robomimic's HDF5 files, read without robomimic.

The layout (docs/datasets/overview.md and robomimic/scripts/dataset_states_to_obs.py of robomimic)::

    data                         attributes total, env_args (JSON: env_name, type, env_kwargs, env_version)
        demo_0                   attributes num_samples, model_file (the scene as MuJoCo's XML)
            states               [T, S] flattened state of the simulation: time, positions, velocities
            actions, rewards, dones                      [T, ...]
            obs, next_obs        groups of [T, ...]; next_obs may be absent, both are in unprocessed files
    mask                         optional: names of demonstrations under filter keys such as train and valid

``dones`` is 1 where an episode was cut, or where the task is solved, as its writer chose.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from difftori_gym.il.demonstrations import Demonstrations
from difftori_gym.il.episode import ArrayObs, Episode
from difftori_gym.il.formats.hdf5 import Group, open_hdf5, read_array, text_of
from difftori_gym.il.formats.inferred_spaces import infer_action_space, infer_space, naming
from difftori_gym.il.formats.storage import ObservationStorage

# robomimic's own choice of low-dimensional observations (robomimic/exps/templates/bc.json), of each arm.
ARM_KEYS = ("eef_pos", "eef_quat", "gripper_qpos")
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
    :param path: a robomimic file
    :return: its ``env_args``
    :raises ValueError: if there are none, or they are not of robosuite
    """
    with open_hdf5(Path(path)) as file:
        return _env_args(file, Path(path))


def read_robomimic(
    path: str | Path,
    *,
    obs_keys: Sequence[str] | None = None,
    filter_key: str | None = None,
    num_episodes: int | None = None,
    memory_map: str | Path | None = None,
) -> Demonstrations:
    """
    Read a processed file, one that holds observations.

    The last ``next_obs`` closes an episode; in files without ``next_obs`` the last ``obs`` is repeated.

    :param path: the file
    :param obs_keys: which observations to read, as a dictionary, images among them. None: robomimic's usual
        low-dimensional ones as one float32 vector, that of ``make_env("robosuite/...")``: for each arm the gripper's
        position, quaternion and fingers, then ``object``
    :param filter_key: read only the demonstrations named under ``mask/FILTER_KEY``, such as ``train``
    :param num_episodes: how many to read, from the first on; None: all
    :param memory_map: folder to lay the observations in; None keeps them in memory
    :return: the demonstrations; ``success`` is told by the rewards, which are 1 where the task is solved
    :raises ValueError: naming file and demonstration, if it is empty or truncated, lacks a key, or holds what
        :class:`~difftori_gym.il.demonstrations.Demonstrations` refuses
    :raises ImportError: if h5py is not installed
    """
    path = Path(path)
    with open_hdf5(path) as file:
        env_args = _env_args(file, path)
        names = _names(file, filter_key, path)[:num_episodes]
        if not names or len(names) < (num_episodes or 0):
            raise ValueError(f"{path}: expected at least {num_episodes or 1} demonstrations, got {len(names)}.")
        groups = [_group(file, name, path) for name in names]
        observation_space = infer_space(_observations(groups[0], obs_keys, f"{path}, {names[0]}"))
        rows = sum(len(group["actions"]) + 1 for group in groups)
        storage = ObservationStorage(observation_space, rows, None if memory_map is None else Path(memory_map))
        episodes = tuple(
            _read_episode(group, obs_keys, storage, f"{path}, {name}")
            for group, name in zip(groups, names, strict=True)
        )
    return Demonstrations(
        episodes,
        observation_space,
        infer_action_space([episode.actions for episode in episodes], str(path)),
        env_id=f"robosuite/{env_args.env_name}",
        obs="state" if obs_keys is None else "",
        source=str(path),
    )


def _env_args(file: Group, path: Path) -> RobomimicEnvArgs:
    if "data" not in file or "env_args" not in file["data"].attrs:
        raise ValueError(
            f"{path}: expected robomimic's group 'data' with env_args, got {', '.join(file) or 'nothing'}."
        )
    args = json.loads(text_of(file["data"].attrs["env_args"]))
    kind = args.get("type", args.get("env_type", ROBOSUITE_TYPE))
    if kind != ROBOSUITE_TYPE:
        raise ValueError(f"{path}: expected an environment of robosuite (type {ROBOSUITE_TYPE}), got type {kind}.")
    return RobomimicEnvArgs(args["env_name"], dict(args.get("env_kwargs", {})), str(args.get("env_version", "")))


def _names(file: Group, filter_key: str | None, path: Path) -> list[str]:
    """:return: names of demonstrations, in the order of their numbers"""
    names = list(file["data"])
    if filter_key is not None:
        masks = list(file["mask"]) if "mask" in file else []
        if filter_key not in masks:
            raise ValueError(f"{path}: expected filter key {filter_key!r}, got {', '.join(masks) or 'none'}.")
        names = [text_of(name) for name in file["mask"][filter_key][()]]
    return sorted(names, key=lambda name: int(name.rpartition("_")[2]))


def _group(file: Group, name: str, path: Path) -> Group:
    if name not in file["data"] or "actions" not in file["data"][name]:
        raise ValueError(f"{path}, {name}: expected a demonstration with actions, found none.")
    return file["data"][name]


def _observations(group: Group, obs_keys: Sequence[str] | None, where: str) -> ArrayObs:
    """:return: ``[T + 1, ...]`` or a dictionary of such"""
    if "obs" not in group:
        raise ValueError(
            f"{where}: expected observations, found none: this file is unprocessed. "
            "Process it with robomimic's dataset_states_to_obs.py, or fetch the processed one."
        )
    if obs_keys is not None:
        return {key: _closed(group, key, where) for key in obs_keys}
    arms = sorted({key.partition("_")[0] for key in group["obs"] if key.startswith("robot")})
    keys = [f"{arm}_{part}" for arm in arms for part in ARM_KEYS] + ["object"]
    return np.concatenate([_closed(group, key, where).astype(np.float32) for key in keys], axis=1)


def _closed(group: Group, key: str, where: str) -> np.ndarray:
    """:return: the observations of one key with the closing one, ``[T + 1, ...]``"""
    value = read_array(group, f"obs/{key}", where)
    last = read_array(group, f"next_obs/{key}", where) if f"next_obs/{key}" in group else value
    return np.concatenate([value, last[-1:]])


def _read_episode(group: Group, obs_keys: Sequence[str] | None, storage: ObservationStorage, where: str) -> Episode:
    actions = read_array(group, "actions", where)
    rewards = read_array(group, "rewards", where)
    with naming(where):
        return Episode(
            observations=storage.append(_observations(group, obs_keys, where), where),
            actions=actions,
            rewards=rewards,
            terminated=False,  # robosuite's tasks go on after success; a demonstration is cut
            truncated=True,
            success=bool((rewards >= 1).any()),
        )
