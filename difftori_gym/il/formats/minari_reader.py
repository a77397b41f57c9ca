"""Demonstrations read from Minari's layout, see :mod:`difftori_gym.il.formats.minari_layout`."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from difftori_gym.il.demonstrations import Demonstrations
from difftori_gym.il.episode import Episode
from difftori_gym.il.formats.hdf5 import Group, length_of, open_hdf5, read_array, seed_of
from difftori_gym.il.formats.inferred_spaces import choose, infer_action_space, infer_space, leaves, naming
from difftori_gym.il.formats.minari_layout import (
    DATA_FILE,
    data_folder,
    decode,
    is_picture,
    read_metadata,
    space_from_json,
)
from difftori_gym.il.formats.storage import ObservationStorage
from difftori_gym.observations import entries, from_entries


def read_minari(
    path: str | Path,
    *,
    action_space: spaces.Box | None = None,
    num_episodes: int | None = None,
    leave_out: Collection[str] = (),
    memory_map: str | Path | None = None,
) -> Demonstrations:
    """
    Read a dataset that Minari or :class:`~difftori_gym.il.formats.minari_writer.MinariWriter` wrote.

    Observations that are nested are read as one level, with keys such as ``achieved_goal/kettle``.

    :param path: the dataset's folder, its ``data`` folder or its ``main_data.hdf5``
    :param action_space: bounds of the actions, in place of the dataset's; the first versions of Minari stored none, and
        [-1, 1] is taken then, if all actions are inside
    :param num_episodes: how many to read, from the first on; None: all
    :param leave_out: names of episodes not to read, such as ``episode_3``
    :param memory_map: folder to lay the observations in, None keeps them in memory; see
        :class:`~difftori_gym.il.formats.storage.ObservationStorage`
    :return: the demonstrations
    :raises ValueError: naming file and episode, if it is empty, truncated, of spaces other than ``Box`` and ``Dict``
        of such, or holds what :class:`~difftori_gym.il.demonstrations.Demonstrations` refuses
    :raises ImportError: if h5py is not installed
    """
    data = data_folder(Path(path))
    metadata = read_metadata(data)
    where = str(data / DATA_FILE)
    action_space = _action_space(metadata, where) if action_space is None else action_space
    count = int(metadata["total_episodes"])
    names = choose([f"episode_{index}" for index in range(count)], num_episodes, leave_out, where)
    with open_hdf5(data / DATA_FILE) as file:
        rows = sum(_length(file, name, where, count) + 1 for name in names)
        observation_space = _observation_space(metadata, file[names[0]], where)
        storage = ObservationStorage(observation_space, rows, memory_map)
        episodes = tuple(_read_episode(file[name], name, observation_space, storage, where) for name in names)
    return Demonstrations(
        episodes,
        observation_space,
        infer_action_space(episodes, where, "read_minari") if action_space is None else action_space,
        env_id=str(metadata.get("env_id") or _id_of_spec(metadata)),
        obs=str(metadata.get("obs", "")),
        source=where,
        action_repeat=metadata.get("action_repeat"),
        control_mode=str(metadata.get("control_mode") or ""),
    )


def _length(file: Group, name: str, where: str, count: int) -> int:
    """Number of an episode's actions."""
    length = length_of(file[name]) if name in file else None
    if length is None:
        index = int(name.rpartition("_")[2])
        raise ValueError(
            f"{where}, {_title(name)}: expected a group {name!r} with actions, found none, though the metadata counts "
            f"{count}. Fetch it again, or read the others: read_minari(..., leave_out=[{name!r}])"
            + (f", or num_episodes={index}." if index else ".")
        )
    return length


def _title(name: str) -> str:
    return name.replace("_", " ")


def _action_space(metadata: dict[str, Any], where: str) -> spaces.Box | None:
    """The space that the metadata hold; None without one."""
    if "action_space" not in metadata:
        return None
    space = space_from_json(metadata["action_space"], where)
    if not isinstance(space, spaces.Box):
        raise ValueError(f"{where}: imitation learns continuous actions: expected a Box, got {space}.")
    return space


def _observation_space(metadata: dict[str, Any], group: Group, where: str) -> spaces.Space:
    """The space that the metadata hold, its nested keys on one level; inferred from an episode without one."""
    if "observation_space" in metadata:
        return _one_level(space_from_json(metadata["observation_space"], where))
    where = f"{where}, {_title(group.name.strip('/'))}"
    if "observations" not in group or hasattr(group["observations"], "shape"):
        return infer_space(read_array(group, "observations", where), where)
    below = group["observations"]
    return infer_space({key: read_array(below, key, where) for key in leaves(below)}, where)


def _one_level(space: spaces.Space) -> spaces.Space:
    """The same, entries of a ``Dict`` inside a ``Dict`` under keys such as ``outer/inner``."""
    if not isinstance(space, spaces.Dict):
        return space
    return spaces.Dict(
        {
            key if inner is None else f"{key}/{inner}": each
            for key, entry in space.spaces.items()
            for inner, each in entries(_one_level(entry)).items()
        }
    )


def _id_of_spec(metadata: dict[str, Any]) -> str:
    """The Gymnasium id in Minari's ``env_spec``, "" without one."""
    try:
        return str(json.loads(metadata["env_spec"])["id"])
    except (KeyError, TypeError, ValueError):  # none, or null, or not JSON: nothing that is read depends on it
        return ""


def _read_episode(group: Group, name: str, space: spaces.Space, storage: ObservationStorage, where: str) -> Episode:
    where = f"{where}, {_title(name)}"
    with naming(where, name, "read_minari"):
        observations = from_entries(
            {
                key: _read_observation(group, "observations" if key is None else f"observations/{key}", entry, where)
                for key, entry in entries(space).items()
            }
        )
        ends = [read_array(group, name, where) for name in ("terminations", "truncations")]
        successes, length = _successes(group), len(group["actions"])
        episode = Episode(
            observations=observations,
            actions=read_array(group, "actions", where),
            rewards=read_array(group, "rewards", where),
            terminated=bool(ends[0][-1:].any()),
            truncated=bool(ends[1][-1:].any()),
            success=_success(group, successes),
            seed=seed_of(group),
            name=_title(name),
            # A writer that counts the reset as a step tells one more.
            successes=None if successes is None or len(successes) < length else successes[-length:],
        )
        return storage.append(episode, where)


def _success(group: Group, successes: np.ndarray | None) -> bool | None:
    """The attribute that we write, or whether any step was a success; None if neither is told."""
    told = group.attrs.get("success", None if successes is None else successes.any())
    return None if told is None else bool(told)


def _successes(group: Group) -> np.ndarray | None:
    """What ``infos`` tell of the steps, None if they do not: Minari has stored them as one array of texts."""
    infos = group.get("infos")
    for key in ("success", "is_success"):
        if hasattr(infos, "keys") and hasattr(infos.get(key), "shape"):
            steps = np.asarray(infos[key][()])
            if steps.dtype.kind in "biuf":
                return (steps > 0).reshape(len(steps), -1).any(axis=1)
    return None


def _read_observation(group: Group, name: str, space: spaces.Space, where: str) -> np.ndarray:
    value = read_array(group, name, where)
    if not is_picture(space) or value.shape[1:] == space.shape:
        return value
    try:
        return decode(value, space.shape or ())
    except (OSError, ValueError) as error:
        raise ValueError(f"{where}: expected pictures of shape {space.shape} in {name!r}: {error}.") from error
