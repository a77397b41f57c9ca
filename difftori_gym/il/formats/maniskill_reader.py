"""
Demonstrations from ManiSkill's trajectory files, read without ManiSkill.

``RecordEpisode`` (mani_skill/utils/wrappers/record.py of ManiSkill 3.0.1) writes two files of one name::

    NAME.json                    env_info (env_id, env_kwargs) and a list of episodes (episode_id, episode_seed, ...)
    NAME.h5
        traj_0                   one group per episode
            obs                  [T + 1, ...] or nested groups of such; absent when recorded with obs_mode "none"
            actions              [T, A]
            terminated, truncated, success, rewards      [T]; the last two may be absent

ManiSkill 2 wrote success alone, and no description of the environment where it was not made by ``gym.make``.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from difftori_gym.il.demonstrations import Demonstrations
from difftori_gym.il.episode import Episode
from difftori_gym.il.formats.hdf5 import Group, length_of, open_hdf5, read_array
from difftori_gym.il.formats.inferred_spaces import (
    as_vectors,
    choose,
    infer_action_space,
    infer_space,
    leaves,
    naming,
    read_description,
)
from difftori_gym.il.formats.storage import ObservationStorage
from difftori_gym.observations import ArrayObs

REPLAY = "python -m mani_skill.trajectory.replay_trajectory --traj-path {path} -o state --save-traj"


def read_maniskill(
    path: str | Path,
    *,
    obs_keys: Sequence[str] | None = None,
    action_space: spaces.Box | None = None,
    num_episodes: int | None = None,
    leave_out: Collection[str] = (),
    only_successful: bool = False,
    memory_map: str | Path | None = None,
) -> Demonstrations:
    """
    Read a trajectory file.

    Observations that ManiSkill nests are read as one level, with keys such as ``agent/qpos`` and
    ``sensor_data/base_camera/rgb``. Without recorded rewards a reward is 1 where the task is solved and 0 elsewhere.

    :param path: the ``.h5`` file; its ``.json`` lies beside it
    :param obs_keys: which of the nested observations to read; None: all
    :param action_space: bounds of the actions, which the file does not hold:
        ``make_env("maniskill/...", control_mode=...).action_space``. None: [-1, 1], if all actions are inside, as those
        of ManiSkill's delta controllers are
    :param num_episodes: how many to read, from the first on; None: all
    :param leave_out: names of episodes not to read, such as ``traj_3``
    :param only_successful: leave out episodes none of whose steps was a success
    :param memory_map: folder to lay the observations in; None keeps them in memory
    :return: the demonstrations; ``env_id`` is "" if the file is not of ManiSkill 3
    :raises ValueError: naming file and episode, if it is empty or truncated, holds no observations, or holds what
        :class:`~difftori_gym.il.demonstrations.Demonstrations` refuses
    :raises ImportError: if h5py is not installed
    """
    path = Path(path)
    with open_hdf5(path) as file:
        description = read_description(path.with_suffix(".json"), f"ManiSkill's description of {path.name}")
        records = _records(description, path)
        if only_successful:
            records = {name: record for name, record in records.items() if _succeeded(file, name, record, path)}
        names = choose(list(records), num_episodes, leave_out, str(path))
        rows = sum(_length(file, name, path) + 1 for name in names)
        first = f"{path}, {names[0]}"
        observations = _observations(file[names[0]], obs_keys, path, first)
        observation_space = infer_space(observations, first, "Choose other obs_keys.")
        storage = ObservationStorage(observation_space, rows, memory_map)
        episodes = tuple(_read_episode(file[name], name, records[name], obs_keys, storage, path) for name in names)
    env_info = description.get("env_info") or {}
    env_id = str(env_info.get("env_id") or "")
    return Demonstrations(
        episodes,
        observation_space,
        infer_action_space(episodes, str(path), "read_maniskill") if action_space is None else action_space,
        env_id=f"maniskill/{env_id.removesuffix('-v1')}" if env_id.endswith("-v1") else "",
        source=str(path),
        control_mode=str((env_info.get("env_kwargs") or {}).get("control_mode") or ""),
    )


def _records(description: dict[str, Any], path: Path) -> dict[str, dict[str, Any]]:
    """What is told of the episodes, by the name of their group."""
    found = description.get("episodes")
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise ValueError(f"{path.with_suffix('.json')}: expected a list of episodes, got {description!s:.100}.")
    return {f"traj_{each.get('episode_id', index)}": each for index, each in enumerate(found)}


def _succeeded(file: Group, name: str, record: dict[str, Any], path: Path) -> bool:
    """Whether any step of an episode was a success."""
    if f"{name}/success" in file:
        return bool(read_array(file[name], "success", f"{path}, {name}").any())
    told = record.get("success", (record.get("info") or {}).get("success"))
    if told is None:
        raise ValueError(
            f"{path}, {name}: expected success to be told, found nothing. Read it without only_successful."
        )
    return bool(told)


def _length(file: Group, name: str, path: Path) -> int:
    """Number of an episode's actions."""
    length = length_of(file[name]) if name in file else None
    if length is not None:
        return length
    if name in file and "actions" in file[name]:
        raise ValueError(
            f"{path}, {name}: expected one array of actions, got those of {', '.join(file[name]['actions'])}: "
            "imitation here learns from one agent."
        )
    raise ValueError(
        f"{path}, {name}: expected a group with actions, found none, though {path.with_suffix('.json').name} lists it. "
        "The recording may have been interrupted: read fewer with num_episodes, or "
        f"read_maniskill(..., leave_out=[{name!r}])."
    )


def _observations(group: Group, obs_keys: Sequence[str] | None, path: Path, where: str) -> ArrayObs:
    """``[T + 1, ...]`` or a dictionary of such, of one level."""
    if "obs" not in group:
        raise ValueError(
            f"{where}: expected observations, found none: it was recorded with obs_mode='none'. "
            f"Run: {REPLAY.format(path=path)}"
        )
    if hasattr(group["obs"], "shape"):
        if obs_keys is not None:
            raise ValueError(f"{where}: expected obs_keys=None for observations without keys, got {list(obs_keys)}.")
        return as_vectors(read_array(group, "obs", where))
    found = list(leaves(group["obs"]))
    missing = [key for key in obs_keys or () if key not in found]
    if missing:
        raise ValueError(f"{where}: expected observations {missing}, got {found}.")
    return {key: as_vectors(read_array(group["obs"], key, where)) for key in (obs_keys or found)}


def _read_episode(
    group: Group,
    name: str,
    record: dict[str, Any],
    obs_keys: Sequence[str] | None,
    storage: ObservationStorage,
    path: Path,
) -> Episode:
    where = f"{path}, {name}"
    with naming(where, name, "read_maniskill"):
        actions = read_array(group, "actions", where)
        solved = read_array(group, "success", where) if "success" in group else None
        if "rewards" in group:
            rewards = read_array(group, "rewards", where)
        else:
            rewards = np.zeros(len(actions)) if solved is None else solved.astype(np.float64)
        terminated, truncated = (
            name in group and bool(read_array(group, name, where)[-1:].any()) for name in ("terminated", "truncated")
        )
        seed = record.get("episode_seed")
        seed = (record.get("reset_kwargs") or {}).get("seed") if seed is None else seed
        episode = Episode(
            observations=_observations(group, obs_keys, path, where),
            actions=actions,
            rewards=rewards,
            terminated=terminated,
            truncated=truncated or not terminated,
            success=None if solved is None else bool(solved.any()),
            seed=None if seed is None else int(np.asarray(seed).reshape(-1)[0]),
            name=name,
            successes=None if solved is None else solved.astype(bool),
        )
        return storage.append(episode, where)
