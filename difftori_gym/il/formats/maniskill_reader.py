"""
Demonstrations from ManiSkill's trajectory files, read without ManiSkill.

``RecordEpisode`` (mani_skill/utils/wrappers/record.py of ManiSkill 3.0.1) writes two files of one name::

    NAME.json                    env_info (env_id, env_kwargs) and a list of episodes (episode_id, episode_seed, ...)
    NAME.h5
        traj_0                   one group per episode
            obs                  [T + 1, ...] or nested groups of such; absent when recorded with obs_mode "none"
            actions              [T, A]
            terminated, truncated, success, rewards      [T]; the last two may be absent
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from difftori_gym.il.demonstrations import Demonstrations
from difftori_gym.il.episode import ArrayObs, Episode
from difftori_gym.il.formats.hdf5 import Group, open_hdf5, read_array
from difftori_gym.il.formats.inferred_spaces import infer_action_space, infer_space, naming
from difftori_gym.il.formats.storage import ObservationStorage

REPLAY = "python -m mani_skill.trajectory.replay_trajectory --traj-path {path} -o state --save-traj"


def read_maniskill(
    path: str | Path,
    *,
    obs_keys: Sequence[str] | None = None,
    action_space: spaces.Box | None = None,
    num_episodes: int | None = None,
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
    :param only_successful: leave out episodes that do not end in success
    :param memory_map: folder to lay the observations in; None keeps them in memory
    :return: the demonstrations
    :raises ValueError: naming file and episode, if it is empty or truncated, holds no observations, or holds what
        :class:`~difftori_gym.il.demonstrations.Demonstrations` refuses
    :raises ImportError: if h5py is not installed
    """
    path = Path(path)
    with open_hdf5(path) as file:
        description = _description(path)
        records = [each for each in description["episodes"] if each.get("success", True) or not only_successful]
        records = records[:num_episodes]
        if not records or len(records) < (num_episodes or 0):
            raise ValueError(f"{path}: expected at least {num_episodes or 1} episodes, got {len(records)}.")
        groups = [_group(file, record, path) for record in records]
        first = _observations(groups[0], obs_keys, f"{path}, traj_{records[0]['episode_id']}")
        observation_space = infer_space(first)
        rows = sum(len(group["actions"]) + 1 for group in groups)
        storage = ObservationStorage(observation_space, rows, None if memory_map is None else Path(memory_map))
        episodes = tuple(
            _read_episode(group, record, obs_keys, storage, f"{path}, traj_{record['episode_id']}")
            for group, record in zip(groups, records, strict=True)
        )
    env_id = str(description.get("env_info", {}).get("env_id", ""))
    return Demonstrations(
        episodes,
        observation_space,
        action_space or infer_action_space([episode.actions for episode in episodes], str(path)),
        env_id=f"maniskill/{env_id.removesuffix('-v1')}" if env_id else "",
        source=str(path),
    )


def _description(path: Path) -> dict[str, Any]:
    file = path.with_suffix(".json")
    try:
        description = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{file}: expected ManiSkill's description of {path.name} in JSON, got none that can be read ({error})."
        ) from error
    if not isinstance(description, dict) or "episodes" not in description:
        raise ValueError(f"{file}: expected a list of episodes, got {description!s:.100}.")
    return description


def _group(file: Group, record: dict[str, Any], path: Path) -> Group:
    name = f"traj_{record['episode_id']}"
    if name not in file or "actions" not in file[name]:
        raise ValueError(
            f"{path}, {name}: expected a group with actions, found none, though {path.with_suffix('.json').name} lists "
            "it. The recording may have been interrupted: read fewer with num_episodes."
        )
    return file[name]


def _observations(group: Group, obs_keys: Sequence[str] | None, where: str) -> ArrayObs:
    """
    :return: ``[T + 1, ...]`` or a dictionary of such, of one level
    :raises ValueError: if there is none, or not one that is asked for
    """
    if "obs" not in group:
        raise ValueError(
            f"{where}: expected observations, found none: it was recorded with obs_mode='none'. "
            f"Run: {REPLAY.format(path=where.split(',')[0])}"
        )
    if hasattr(group["obs"], "shape"):
        if obs_keys is not None:
            raise ValueError(f"{where}: expected obs_keys=None for observations without keys, got {list(obs_keys)}.")
        return _as_vectors(read_array(group, "obs", where))
    found = list(_leaves(group["obs"], ""))
    missing = [key for key in obs_keys or () if key not in found]
    if missing:
        raise ValueError(f"{where}: expected observations {missing}, got {found}.")
    return {key: _as_vectors(read_array(group["obs"], key, where)) for key in (obs_keys or found)}


def _leaves(group: Group, prefix: str) -> Iterator[str]:
    for key in group:
        if hasattr(group[key], "shape"):
            yield prefix + key
        else:
            yield from _leaves(group[key], f"{prefix}{key}/")


def _as_vectors(value: np.ndarray) -> np.ndarray:
    """:return: the same, numbers for truth values, with at least one axis beside time"""
    value = value.astype(np.float32) if value.dtype == bool else value
    return value[:, None] if value.ndim == 1 else value


def _read_episode(
    group: Group, record: dict[str, Any], obs_keys: Sequence[str] | None, storage: ObservationStorage, where: str
) -> Episode:
    actions = read_array(group, "actions", where)
    solved = read_array(group, "success", where) if "success" in group else None
    if "rewards" in group:
        rewards = read_array(group, "rewards", where)
    else:
        rewards = np.zeros(len(actions)) if solved is None else solved.astype(np.float64)
    ends = [read_array(group, name, where)[-1:] for name in ("terminated", "truncated")]
    seed = record.get("episode_seed", record.get("reset_kwargs", {}).get("seed"))
    with naming(where):
        return Episode(
            observations=storage.append(_observations(group, obs_keys, where), where),
            actions=actions,
            rewards=rewards,
            terminated=bool(ends[0].any()),
            truncated=bool(ends[1].any()) or not ends[0].any(),
            success=None if solved is None else bool(solved.any()),
            seed=None if seed is None else int(np.asarray(seed).reshape(-1)[0]),
        )
