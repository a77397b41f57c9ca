"""
Minari's layout of a dataset in HDF5, which is written and read here without Minari.

A dataset is a folder::

    NAME/data/metadata.json      spaces, number of episodes and steps, names
    NAME/data/main_data.hdf5     one group per episode
        episode_0                attributes id, total_steps, seed; ours also success
            observations         [T + 1, ...], or a group of such
            actions              [T, ...]
            rewards, terminations, truncations      [T]

(minari/dataset/_storages/hdf5_storage.py of Minari 0.5.3). Minari keeps what it takes for images, ``uint8`` with sides
of at least 32 pixels, as compressed pictures and opens them with Pillow; it writes JPEG, which loses detail, we write
PNG, which does not and which it opens as well.

Before 0.5 the metadata were attributes of ``main_data.hdf5``, and a seed that was not given was stored as the text
"None". Such files are read, too.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from difftori_gym.il.formats.hdf5 import open_hdf5, text_of
from difftori_gym.il.formats.json_files import read_description

MINARI_VERSION = "0.5.3"  # whose layout this is
DATA_FILE = "main_data.hdf5"
METADATA_FILE = "metadata.json"


def data_folder(path: Path) -> Path:
    """
    :param path: a dataset's folder, its ``data`` folder or its ``main_data.hdf5``
    :return: the folder that holds ``main_data.hdf5``
    :raises ValueError: if there is none
    """
    for folder in (path / "data", path, path.parent):
        if (folder / DATA_FILE).is_file() and (folder != path.parent or path.name == DATA_FILE):
            return folder
    raise ValueError(f"{path}: expected a folder with data/{DATA_FILE} in it, found none.")


def read_metadata(data: Path) -> dict[str, Any]:
    """
    :param data: folder of the data
    :return: what ``metadata.json`` says, or the attributes of ``main_data.hdf5`` where there is none
    :raises ValueError: if it cannot be read, or is of another format than HDF5
    """
    file = data / METADATA_FILE
    if file.is_file():
        metadata = read_description(file, "Minari's metadata")
    else:
        with open_hdf5(data / DATA_FILE) as opened:
            metadata = {
                key: text_of(value) if isinstance(value, str | bytes) else value for key, value in opened.attrs.items()
            }
    if "total_episodes" not in metadata:
        raise ValueError(
            f"{file}: expected Minari's metadata with total_episodes, got {', '.join(metadata) or 'nothing'}. "
            "Fetch the data set again."
        )
    if metadata.get("data_format", "hdf5") != "hdf5":
        raise ValueError(
            f"{file}: expected data_format 'hdf5', got {metadata['data_format']!r}. Minari's create_dataset writes it: "
            "data_format='hdf5'."
        )
    return metadata


def dataset_id(name: str) -> str:
    """
    :param name: of the folder
    :return: the nearest name that Minari accepts: letters, digits, ``-`` and ``_``, with a version at the end
    """
    plain = re.sub(r"[^-\w]", "-", name)
    return plain if re.fullmatch(r"[-\w]+-v\d+", plain) else f"{plain}-v0"
