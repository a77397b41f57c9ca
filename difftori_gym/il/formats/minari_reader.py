"""Demonstrations read from Minari's layout, see :mod:`difftori_gym.il.formats.minari_layout`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from difftori_gym.il.demonstrations import Demonstrations, check_spaces
from difftori_gym.il.episode import ArrayObs, Episode, items
from difftori_gym.il.formats.hdf5 import Group, open_hdf5, read_array
from difftori_gym.il.formats.inferred_spaces import naming
from difftori_gym.il.formats.minari_layout import DATA_FILE, METADATA_FILE, data_folder, read_metadata
from difftori_gym.il.formats.pictures import decode, is_picture
from difftori_gym.il.formats.space_json import space_from_json
from difftori_gym.il.formats.storage import ObservationStorage


def read_minari(
    path: str | Path, *, num_episodes: int | None = None, memory_map: str | Path | None = None
) -> Demonstrations:
    """
    Read a dataset that Minari or :class:`~difftori_gym.il.formats.minari_writer.MinariWriter` wrote.

    :param path: the dataset's folder, its ``data`` folder or its ``main_data.hdf5``
    :param num_episodes: how many to read, from the first on; None: all
    :param memory_map: folder to lay the observations in, None keeps them in memory; see
        :class:`~difftori_gym.il.formats.storage.ObservationStorage`
    :return: the demonstrations
    :raises ValueError: naming file and episode, if it is empty, truncated, of spaces other than ``Box`` and ``Dict``
        of ``Box``, or holds what :class:`~difftori_gym.il.demonstrations.Demonstrations` refuses
    :raises ImportError: if h5py is not installed
    """
    data = data_folder(Path(path))
    metadata = read_metadata(data)
    where = str(data / DATA_FILE)
    if "observation_space" not in metadata or "action_space" not in metadata:
        raise ValueError(f"{data / METADATA_FILE}: expected observation_space and action_space, got {list(metadata)}.")
    observation_space = space_from_json(metadata["observation_space"], where)
    action_space = space_from_json(metadata["action_space"], where)
    check_spaces(observation_space, action_space, where)
    assert isinstance(action_space, spaces.Box)
    count = int(metadata["total_episodes"])
    if num_episodes is not None and num_episodes > count:
        raise ValueError(f"{where}: expected at least {num_episodes} episodes, got {count}. Ask for fewer.")
    with open_hdf5(data / DATA_FILE) as file:
        names = [f"episode_{index}" for index in range(count if num_episodes is None else num_episodes)]
        for index, name in enumerate(names):
            if name not in file or "actions" not in file[name]:
                raise ValueError(
                    f"{where}, episode {index}: expected a group {name!r} with actions, found none, though the "
                    f"metadata counts {count}. Read num_episodes={index} of them, or fetch the file again."
                )
        rows = sum(len(file[name]["actions"]) + 1 for name in names)
        storage = ObservationStorage(observation_space, rows, None if memory_map is None else Path(memory_map))
        episodes = tuple(
            _read_episode(file[name], observation_space, storage, f"{where}, episode {index}")
            for index, name in enumerate(names)
        )
    return Demonstrations(
        episodes,
        observation_space,
        action_space,
        env_id=str(metadata.get("env_id") or _id_of_spec(metadata)),
        obs=str(metadata.get("obs", "")),
        source=where,
    )


def _id_of_spec(metadata: dict[str, Any]) -> str:
    """:return: the Gymnasium id in Minari's ``env_spec``, "" without one"""
    spec = metadata.get("env_spec")
    return str(json.loads(spec).get("id", "")) if isinstance(spec, str) else ""


def _read_episode(group: Group, space: spaces.Space, storage: ObservationStorage, where: str) -> Episode:
    """
    :param group: an episode's
    :param space: of the observations
    :param storage: where to put them
    :param where: file and episode, for error messages
    :return: the episode
    :raises ValueError: if something is missing or does not fit
    """
    observations: ArrayObs
    if isinstance(space, spaces.Dict):
        observations = {
            key: _read_observation(group, f"observations/{key}", entry, where) for key, entry in space.spaces.items()
        }
    else:
        observations = _read_observation(group, "observations", space, where)
    actions = read_array(group, "actions", where)
    for _, value in items(observations):
        if len(value) != len(actions) + 1:
            raise ValueError(f"{where}: expected {len(actions) + 1} observations, got {len(value)}.")
    ends = [read_array(group, name, where) for name in ("terminations", "truncations")]
    seed = group.attrs.get("seed")
    success = group.attrs.get("success")
    for key in ("is_success", "success"):
        if success is None and "infos" in group and key in group["infos"]:
            success = np.asarray(group["infos"][key][()]).any()
    with naming(where):
        return Episode(
            observations=storage.append(observations, where),
            actions=actions,
            rewards=read_array(group, "rewards", where),
            terminated=bool(ends[0][-1:].any()),
            truncated=bool(ends[1][-1:].any()),
            success=None if success is None else bool(success),
            seed=None if seed is None else int(seed),
        )


def _read_observation(group: Group, name: str, space: spaces.Space, where: str) -> np.ndarray:
    value = read_array(group, name, where)
    if not is_picture(space) or value.shape[1:] == space.shape:
        return value
    try:
        return decode(value, space.shape or ())
    except (OSError, ValueError) as error:
        raise ValueError(f"{where}: expected pictures of shape {space.shape} in {name!r}: {error}.") from error
