"""Spaces that cannot be learned from, refused with expected, got, remedy."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first
from stable_baselines3.common.torch_layers import CombinedExtractor
from stable_baselines3.common.vec_env import VecTransposeImage
from torch import nn

from difftori_gym.observations import entries, map_obs, space_from_entries, under

NO_BOUND = 1e10
"""MuJoCo's "no limit". Bounds from here to the greatest float stand for none, and cannot be scaled to [-1, 1]."""


def check_action_space(space: spaces.Space[Any], learner: str) -> None:
    """
    :param learner: what is to act in it, for the error
    :raises ValueError: unless the space is a ``Box`` of floats with finite bounds and room between them
    """
    if not isinstance(space, spaces.Box):
        raise ValueError(
            f"{learner} expected a Box action space, got {one_line(space)}: use an environment with continuous "
            "actions, or an algorithm for discrete ones such as DQN or PPO."
        )
    if np.dtype(space.dtype).kind != "f" or 0 in space.shape:
        raise ValueError(
            f"{learner} expected actions of at least one floating-point number, got {one_line(space)}: "
            "give the environment such an action space, and let it round what it receives."
        )
    bounds = np.abs(np.stack([space.low, space.high]).astype(np.float64))
    # A narrow type overflows between bounds that are far from NO_BOUND.
    if not ((bounds < NO_BOUND).all() and (bounds <= np.finfo(space.dtype).max / 2).all()):
        raise ValueError(
            f"{learner} expected finite action bounds, got {one_line(space)}, where {NO_BOUND:g} and more stands for "
            "none: choose bounds that suit the task, gymnasium.wrappers.TransformAction(env, lambda action: action, "
            "gymnasium.spaces.Box(low, high))."
        )
    if not (space.high > space.low).all():
        raise ValueError(f"{learner} needs action bounds with low < high in every dimension, got {one_line(space)}.")


def check_observation_space(space: spaces.Space[Any], learner: str, *, only_boxes: bool = False) -> None:
    """
    :param space: of the observations
    :param learner: what is to read them, for the error
    :param only_boxes: whether entries that are counted, such as ``Discrete``, are refused as well
    :raises ValueError: unless it is an array, or one level of dictionary of such under names, of kinds that networks
        read right
    """
    parts = entries(space)
    if not parts:
        raise ValueError(f"{learner} expected observations, got {space}: show the task to it.")
    for key, entry in parts.items():
        if isinstance(space, spaces.Dict) and (not isinstance(key, str) or not key):
            raise ValueError(
                f"{learner} expected names as keys of observations, got {key!r}: "
                "rename it in a gymnasium.ObservationWrapper."
            )
        remedy = _remedy(entry, only_boxes)
        if remedy:
            raise ValueError(f"{learner} cannot read observations of {one_line(entry)}{under(key)}: {remedy}")


def check_extractor(extractor: type, space: spaces.Space[Any], learner: str) -> None:
    """
    :param learner: whose the feature extractor is, for the error
    :raises ValueError: if it is Stable-Baselines3's for dictionaries, and torch does not take a key as a name
    """
    if not (issubclass(extractor, CombinedExtractor) and isinstance(space, spaces.Dict)):
        return
    for key in space.spaces:
        if "." in key or hasattr(nn.ModuleDict(), key):
            raise ValueError(
                f"{learner} expected keys that Stable-Baselines3's CombinedExtractor takes, without dots and names of "
                f"torch, got {key!r}: leave features_extractor_class out, this package's CombinedEncoder takes any."
            )


def check_same_spaces(
    observation_space: spaces.Space[Any], action_space: spaces.Space[Any], other: Any, *, what: str, whose: str
) -> None:
    """
    A ``ValueError`` if a key, a shape, a type or an action bound of ``other``, called ``what``, is not as in ``whose``
    spaces.
    """
    expected, got = _layout(observation_space), _layout(other.observation_space)
    if expected.keys() != got.keys():
        raise ValueError(
            f"{what}: expected the observation keys {sorted(expected)} of {whose}, got {sorted(got)}: record and run "
            "with the same observations."
        )
    for key, layout in expected.items():
        if layout != got[key]:
            raise ValueError(
                f"{what}: expected observations{under(key or None)} of shape and type {layout} as in {whose}, "
                f"got {got[key]}: record and run with the same observations."
            )
    same = (
        isinstance(action_space, spaces.Box)
        and isinstance(other.action_space, spaces.Box)
        and action_space.shape == other.action_space.shape
        and np.allclose(action_space.low, other.action_space.low)
        and np.allclose(action_space.high, other.action_space.high)
    )
    if not same:
        raise ValueError(
            f"{what}: expected the action space {action_space} of {whose}, got {other.action_space}: actions are "
            "scaled by these bounds, so they must agree."
        )


class SeenSpaces:
    """The spaces of demonstrations as Stable-Baselines3 shows them, images with the channels first."""

    def __init__(self, demonstrations: Any) -> None:
        seen = map_obs(
            lambda entry: VecTransposeImage.transpose_space(entry) if has_channels_last(entry) else entry,
            demonstrations.observation_space,
        )
        self.observation_space = space_from_entries(entries(seen))
        self.action_space = demonstrations.action_space


def has_channels_last(entry: Any) -> bool:
    """:return: whether it is the space of an image with the channels last"""
    return is_image_space(entry) and not is_image_space_channels_first(entry)


def one_line(space: spaces.Space[Any]) -> str:
    """:return: a space as an error names it; numpy breaks lines in arrays"""
    return " ".join(str(space).split())


def _remedy(space: spaces.Space[Any], only_boxes: bool) -> str:
    """:return: what to do about an entry that is not read right, "" for one that is"""
    flatten = "wrap the environment in gymnasium.wrappers.FlattenObservation, which turns it into a Box."
    if isinstance(space, spaces.Box):
        if 0 in space.shape:
            return "there is no number in it, leave it out, of a dictionary by gymnasium.wrappers.FilterObservation."
        number = np.dtype(space.dtype).kind in "fiub"
        return "" if number else "give it a type of real numbers in a gymnasium.ObservationWrapper."
    if isinstance(space, spaces.Discrete):
        # Stable-Baselines3 counts from 0, whatever the space says.
        return flatten if only_boxes or space.start != 0 else ""
    if isinstance(space, spaces.MultiDiscrete):
        return flatten if only_boxes or space.nvec.ndim != 1 or np.any(space.start) else ""
    if isinstance(space, spaces.MultiBinary):
        return flatten if only_boxes else ""
    if isinstance(space, (spaces.Dict, spaces.Tuple)) and space.is_np_flattenable:
        return flatten
    return "turn it into numbers of a fixed shape, a Box, in a gymnasium.ObservationWrapper."


def _layout(space: spaces.Space[Any]) -> dict[str, tuple[tuple[int, ...] | None, str]]:
    """Shape and kind of every entry; types of one kind, as float32 and float64, may be mixed."""
    return {key or "": (entry.shape, np.dtype(entry.dtype).kind) for key, entry in entries(space).items()}
