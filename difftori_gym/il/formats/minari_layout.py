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

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from difftori_gym.il.formats.hdf5 import open_hdf5, text_of
from difftori_gym.il.formats.inferred_spaces import read_description

MINARI_VERSION = "0.5.3"  # whose layout this is
DATA_FILE = "main_data.hdf5"
METADATA_FILE = "metadata.json"
IMAGE_SIDE = 32  # Minari: a smaller array of bytes is not taken for an image
PICTURE_CHANNELS = (1, 3, 4)  # what a PNG can hold


def data_folder(path: Path) -> Path:
    """The folder that holds ``main_data.hdf5``, given a dataset's folder, its ``data`` folder or that file."""
    for folder in (path / "data", path, path.parent):
        if (folder / DATA_FILE).is_file() and (folder != path.parent or path.name == DATA_FILE):
            return folder
    raise ValueError(f"{path}: expected a folder with data/{DATA_FILE} in it, found none.")


def read_metadata(data: Path) -> dict[str, Any]:
    """What ``metadata.json`` says, or the attributes of ``main_data.hdf5`` where there is none."""
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
    """The nearest name that Minari accepts: letters, digits, ``-`` and ``_``, with a version at the end."""
    plain = re.sub(r"[^-\w]", "-", name)
    return plain if re.fullmatch(r"[-\w]+-v\d+", plain) else f"{plain}-v0"


def space_to_json(space: spaces.Space) -> str:
    """Text of a ``Box`` or a ``Dict`` of such."""
    return json.dumps(_describe(space))


def space_from_json(text: str, where: str) -> spaces.Space:
    """The space in a text of Minari or ours; a ``ValueError`` if it is not a ``Box`` or a ``Dict`` of such."""
    try:
        return _build(json.loads(text), where)
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{where}: expected a space as Minari writes it, got {text!s:.100} ({error!r}).") from error


def _describe(space: spaces.Space) -> dict[str, Any]:
    if isinstance(space, spaces.Dict):
        return {"type": "Dict", "subspaces": {key: _describe(entry) for key, entry in space.spaces.items()}}
    assert isinstance(space, spaces.Box)
    return {
        "type": "Box",
        "dtype": str(space.dtype),
        "shape": list(space.shape),
        "low": space.low.tolist(),
        "high": space.high.tolist(),
    }


def _build(description: dict[str, Any], where: str) -> spaces.Space:
    kind = description["type"]
    if kind == "Dict":
        return spaces.Dict({key: _build(entry, where) for key, entry in description["subspaces"].items()})
    if kind != "Box":
        raise ValueError(
            f"{where}: expected spaces made of Box and Dict, got {kind}: imitation here learns from arrays."
        )
    shape, dtype = tuple(description["shape"]), np.dtype(description["dtype"])
    low, high = (np.asarray(description[name], dtype=dtype).reshape(shape) for name in ("low", "high"))
    return spaces.Box(low, high, shape, dtype.type)


def is_picture(space: spaces.Space) -> bool:
    """Whether Minari expects observations of this space as compressed pictures."""
    return (
        isinstance(space, spaces.Box)
        and space.dtype == np.uint8
        and len(space.shape) in (2, 3)
        and min(space.shape[:2]) >= IMAGE_SIDE
        and bool((space.low == 0).all() and (space.high == 255).all())
    )


def encode(image: np.ndarray) -> np.ndarray:
    """The bytes of a PNG file of ``[H, W]`` or ``[H, W, C]`` of 1, 3 or 4 channels."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(buffer, format="PNG", compress_level=1)
    return np.frombuffer(buffer.getvalue(), dtype=np.uint8)


def decode(rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The pictures ``[T, *shape]`` in the bytes of ``T`` files of any picture format."""
    from PIL import Image

    return np.stack([np.asarray(Image.open(io.BytesIO(row.tobytes()))).reshape(shape) for row in rows])
