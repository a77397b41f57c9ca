"""Feature extractors for vectors and for dictionaries of vectors, images and point clouds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_flattened_obs_dim
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, FlattenExtractor
from torch import Tensor, nn

from difftori_gym.models.image_encoder import ImageEncoder
from difftori_gym.models.mlp import mlp
from difftori_gym.models.observation_kind import observation_kind
from difftori_gym.models.point_encoder import PointNetEncoder


class StateEncoder(BaseFeaturesExtractor):
    """
    An MLP on a flattened vector. Default sizes are those of DP3 for the robot's own state: 9-64-64.

    :param observation_space: anything that can be flattened
    :param features_dim: number of features
    :param hidden_dims: sizes of the hidden layers
    :param activation_fn: activation after every hidden layer
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        features_dim: int = 64,
        *,
        hidden_dims: Sequence[int] = (64,),
        activation_fn: type[nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__(observation_space, features_dim)
        self.layers = mlp(get_flattened_obs_dim(observation_space), hidden_dims, features_dim, activation_fn)

    def forward(self, observations: Tensor) -> Tensor:
        """``[B, ...]`` -> features ``[B, features_dim]``."""
        return self.layers(observations.flatten(1))


class CombinedEncoder(BaseFeaturesExtractor):
    """
    A feature extractor per entry of a dictionary, chosen by :func:`observation_kind`; their features side by side.

    Images get an :class:`ImageEncoder`, point clouds a :class:`PointNetEncoder`. Vectors beside one of these get a
    :class:`StateEncoder`, so that a few numbers are not lost among many features. A dictionary of nothing but vectors
    is only flattened: the networks that follow read it as they would read one vector.

    :param observation_space: dictionary of arrays
    :param cnn_output_dim: features of every image, the name it has in Stable-Baselines3's ``CombinedExtractor``; None
        leaves it to ``image_kwargs``
    :param image_kwargs: keyword arguments of every :class:`ImageEncoder`
    :param point_cloud_kwargs: keyword arguments of every :class:`PointNetEncoder`
    :param vector_kwargs: keyword arguments of every :class:`StateEncoder`
    :raises ValueError: if the space is no dictionary, or an entry does not suit its encoder
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        cnn_output_dim: int | None = None,
        *,
        image_kwargs: dict[str, Any] | None = None,
        point_cloud_kwargs: dict[str, Any] | None = None,
        vector_kwargs: dict[str, Any] | None = None,
    ) -> None:
        if not isinstance(observation_space, spaces.Dict):
            raise ValueError(
                f"CombinedEncoder expected a dictionary of observations, got {observation_space}: use ImageEncoder, "
                "PointNetEncoder or StateEncoder."
            )
        if cnn_output_dim is not None:
            image_kwargs = {**(image_kwargs or {}), "features_dim": cnn_output_dim}
        entries = observation_space.spaces
        kinds = {key: observation_kind(space, key) for key, space in entries.items()}
        only_vectors = set(kinds.values()) <= {"vector"}
        encoders: dict[str, nn.Module] = {}
        features_dim = 0
        for key, space in entries.items():
            encoder: BaseFeaturesExtractor
            if kinds[key] == "image":
                encoder = ImageEncoder(space, **(image_kwargs or {}))
            elif kinds[key] == "point_cloud":
                encoder = PointNetEncoder(space, **(point_cloud_kwargs or {}))
            elif only_vectors:
                encoder = FlattenExtractor(space)
            else:
                encoder = StateEncoder(space, **(vector_kwargs or {}))
            encoders[module_name(key)] = encoder
            features_dim += encoder.features_dim
        super().__init__(observation_space, features_dim)
        self.keys = tuple(entries)
        self.encoders = nn.ModuleDict(encoders)

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        """Preprocessed observations ``[B, ...]`` by key -> features ``[B, features_dim]``."""
        pairs = zip(self.keys, self.encoders.values(), strict=True)
        return torch.cat([encoder(observations[key]) for key, encoder in pairs], dim=1)


def module_name(key: str) -> str:
    """
    The name of an entry's network, different for different keys: the key where torch takes it.

    It takes neither dots, as in ``observation.state``, nor names that modules have themselves, as ``type``.
    """
    name = key.replace("%", "%25").replace(".", "%2E")
    return f"%{name}" if not name or hasattr(_EMPTY, name) else name


_EMPTY = nn.ModuleDict()
