"""Demonstrations written in Minari's layout, see :mod:`difftori_gym.il.formats.minari_layout`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from difftori_gym.il.demonstrations import Demonstrations, check_spaces
from difftori_gym.il.episode import Episode, check_episode
from difftori_gym.il.formats.hdf5 import Group, open_hdf5, seed_of, write_variable_bytes
from difftori_gym.il.formats.minari_layout import (
    DATA_FILE,
    METADATA_FILE,
    MINARI_VERSION,
    PICTURE_CHANNELS,
    dataset_id,
    encode,
    is_picture,
    read_metadata,
    space_to_json,
)
from difftori_gym.observations import entries


class MinariWriter:
    """
    Writes episodes to a dataset in Minari's layout, one at a time.

    Each episode is on the disk when :meth:`append` returns, and the file is closed between episodes: whatever ends the
    program, the episodes before stay readable. A group that was begun and not finished is not counted, and is
    replaced by the next episode.

    :param path: folder of the dataset; its data lie in ``path/data``
    :param observation_space: a ``Box`` or a ``Dict`` of such
    :param action_space: a ``Box``
    :param env_id: the environment's name for ``make_env``
    :param obs: kind of observation for ``make_env``
    :param algorithm_name: who acted, such as ``metaworld scripted policy``
    :param append: go on with a dataset that is there already
    :param action_repeat: environment frames per action, None if not known
    :param control_mode: what the actions control, "" if not known
    :raises ValueError: if there is a dataset and ``append`` is not set, or it is of other spaces, another
        environment or another kind of observation
    """

    def __init__(
        self,
        path: str | Path,
        observation_space: spaces.Space,
        action_space: spaces.Box,
        *,
        env_id: str = "",
        obs: str = "",
        algorithm_name: str = "",
        append: bool = False,
        action_repeat: int | None = None,
        control_mode: str = "",
    ) -> None:
        self.path = Path(path)
        check_spaces(observation_space, action_space, str(path))
        self._observation_space, self._action_space = observation_space, action_space
        data = self.path / "data"
        self._file, self._metadata_file = data / DATA_FILE, data / METADATA_FILE
        wanted = {
            "data_format": "hdf5",
            "observation_space": space_to_json(observation_space),
            "action_space": space_to_json(action_space),
            "dataset_id": dataset_id(self.path.name),
            "minari_version": MINARI_VERSION,
            "algorithm_name": algorithm_name,
            "env_id": env_id,
            "obs": obs,
            **({} if action_repeat is None else {"action_repeat": action_repeat}),
            **({"control_mode": control_mode} if control_mode else {}),
        }
        if self._metadata_file.exists():
            if not append:
                raise ValueError(
                    f"{self.path}: expected no dataset, found one. Choose another name, or go on with it "
                    "(append=True, --append)."
                )
            self._metadata = read_metadata(data)
            _check_same(self._metadata, wanted, str(self.path))
        else:
            data.mkdir(parents=True, exist_ok=True)
            self._file.unlink(missing_ok=True)
            with open_hdf5(self._file, "w-"):
                pass
            self._metadata = {"total_episodes": 0, "total_steps": 0, **wanted}
            self._write_metadata()

    def __len__(self) -> int:
        return int(self._metadata["total_episodes"])

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of the episodes in the dataset, as far as they are known."""
        with open_hdf5(self._file) as file:
            seeds = [seed_of(file[f"episode_{index}"]) for index in range(len(self))]
        return tuple(seed for seed in seeds if seed is not None)

    def append(self, episode: Episode) -> None:
        """
        Write an episode of the dataset's spaces.

        :raises ValueError: as :class:`~difftori_gym.il.demonstrations.Demonstrations`; nothing is written then
        """
        index = len(self)
        check_episode(episode, self._observation_space, self._action_space, f"{self.path}, episode {index}")
        name = f"episode_{index}"
        with open_hdf5(self._file, "a") as file:
            if name in file:  # begun by a program that was ended
                del file[name]
            try:
                _write_episode(file.create_group(name, track_order=True), episode, self._observation_space, index)
            except BaseException:  # an interruption too
                del file[name]
                raise
            file.flush()
        # The number in the metadata is what makes an episode count, so it is raised last.
        self._metadata["total_episodes"] = index + 1
        self._metadata["total_steps"] = int(self._metadata["total_steps"]) + len(episode)
        self._metadata["dataset_size"] = round(self._file.stat().st_size / 1e6, 1)
        self._write_metadata()

    def _write_metadata(self) -> None:
        """Replace the file in one step."""
        new = self._metadata_file.with_suffix(".new")
        new.write_text(json.dumps(self._metadata), encoding="utf-8")
        os.replace(new, self._metadata_file)


def write_minari(demonstrations: Demonstrations, path: str | Path, *, algorithm_name: str = "") -> None:
    """
    Write a new dataset into the folder ``path``; ``algorithm_name`` tells who acted.

    :raises ValueError: if there is a dataset of that name already
    """
    writer = MinariWriter(
        path,
        demonstrations.observation_space,
        demonstrations.action_space,
        env_id=demonstrations.env_id,
        obs=demonstrations.obs,
        algorithm_name=algorithm_name,
        action_repeat=demonstrations.action_repeat,
        control_mode=demonstrations.control_mode,
    )
    for episode in demonstrations.episodes:
        writer.append(episode)


def _check_same(found: dict[str, Any], wanted: dict[str, Any], where: str) -> None:
    for key in ("observation_space", "action_space", "env_id", "obs", "algorithm_name"):
        if found.get(key) != wanted[key]:
            raise ValueError(
                f"{where}: expected {key} {str(wanted[key])[:200]}, got {str(found.get(key))[:200]} "
                "in the dataset that is there. Write to another name."
            )
    for key in ("action_repeat", "control_mode"):  # which earlier data sets do not tell
        if key in found and key in wanted and found[key] != wanted[key]:
            raise ValueError(
                f"{where}: expected {key} {wanted[key]}, got {found[key]} in the dataset that is there. Write to "
                "another name."
            )


def _write_episode(group: Group, episode: Episode, observation_space: spaces.Space, index: int) -> None:
    length = len(episode)
    expected, found = entries(observation_space), entries(episode.observations)
    below = group if None in found else group.create_group("observations", track_order=True)
    for key, value in found.items():
        _write_observation(below, key or "observations", value, expected[key])
    group["actions"] = episode.actions
    group["rewards"] = episode.rewards
    for name, last in (("terminations", episode.terminated), ("truncations", episode.truncated)):
        group[name] = np.array([False] * (length - 1) + [last])
    group.attrs["id"] = index
    group.attrs["total_steps"] = length
    if episode.successes is not None:
        group.create_group("infos")["success"] = episode.successes
    if episode.seed is not None:
        group.attrs["seed"] = episode.seed
    if episode.success is not None:
        group.attrs["success"] = episode.success


def _write_observation(group: Group, name: str, value: np.ndarray, space: spaces.Space) -> None:
    if is_picture(space) and (value.ndim == 3 or value.shape[-1] in PICTURE_CHANNELS):
        write_variable_bytes(group, name, [encode(image) for image in value])
    elif value.dtype == np.uint8 and value.ndim > 2:
        # Channels first, which Minari takes for an array, or stacked frames, more channels than a picture can hold:
        # with the channels last, only ours opens these.
        group.create_dataset(name, data=value, chunks=(1, *value.shape[1:]), compression="gzip", compression_opts=1)
    else:
        group.create_dataset(name, data=value.astype(space.dtype, copy=False))
