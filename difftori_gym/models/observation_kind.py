"""What kind of thing an observation is, which decides the network that reads it."""

from __future__ import annotations

from typing import Any, Literal

from gymnasium import spaces

ObservationKind = Literal["image", "point_cloud", "vector"]

#: Dictionary keys whose kind their name tells.
KIND_OF_KEY: dict[str, ObservationKind] = {
    "pixels": "image",
    "point_cloud": "point_cloud",
    "state": "vector",
    "agent_pos": "vector",
}

#: A matrix with fewer rows than this is a vector with two axes rather than a cloud, unless its key says otherwise.
MIN_CLOUD_POINTS = 32


def observation_kind(space: spaces.Space[Any], key: str | None = None) -> ObservationKind:
    """
    Images are ``[C, H, W]`` with fewer channels than rows and columns, or anything of three axes and type ``uint8``;
    point clouds are ``[N, 3]`` or ``[N, 6]`` with at least 32 points; the rest are vectors. The keys ``pixels``,
    ``point_cloud``, ``state`` and ``agent_pos`` of a dictionary tell it without looking at the shape.

    :param space: space of one observation, or of one entry of a dictionary
    :param key: its key in the dictionary
    :return: the kind
    """
    if key in KIND_OF_KEY:
        return KIND_OF_KEY[key]
    if not isinstance(space, spaces.Box):
        return "vector"
    shape = space.shape
    if len(shape) == 3 and (space.dtype == "uint8" or shape[0] < min(shape[1:])):
        return "image"
    if len(shape) == 2 and shape[1] in (3, 6) and shape[0] >= MIN_CLOUD_POINTS:
        return "point_cloud"
    return "vector"
