"""The classes that an exported policy may name, ours and Stable-Baselines3's. Nothing else is ever looked up."""

from __future__ import annotations

from typing import get_args

from stable_baselines3.common.torch_layers import CombinedExtractor, FlattenExtractor, NatureCNN
from torch import nn

from difftori_gym.exports.settings import (
    FLAG,
    MAX_ITERATIONS,
    MAX_SAMPLES,
    SAMPLES,
    SHARE,
    SIZE,
    SIZES,
    Named,
    Number,
    OneOf,
    Optionally,
    Setting,
    Table,
    Whole,
    choice,
)
from difftori_gym.models import CombinedEncoder, ImageEncoder, PointNetEncoder, StateEncoder
from difftori_gym.trajopt import TrajectoryOptimizer
from difftori_gym.trajopt.optimizer import SOLVERS
from difftori_gym.trajopt.solution import BackwardMode, Bounds, WallGradient


def _by_name(*classes: type) -> dict[str, type]:
    return {cls.__name__: cls for cls in classes}


EXTRACTORS = _by_name(
    FlattenExtractor, NatureCNN, CombinedExtractor, StateEncoder, ImageEncoder, PointNetEncoder, CombinedEncoder
)
ACTIVATIONS = _by_name(
    *(nn.ELU, nn.GELU, nn.Identity, nn.LeakyReLU, nn.Mish, nn.ReLU, nn.SELU, nn.SiLU, nn.Sigmoid, nn.Softplus, nn.Tanh)
)
ACTIVATION = Named(ACTIVATIONS, "activations")

_ONE_EXTRACTOR: dict[str, Setting] = dict(
    features_dim=Optionally(SIZE),
    hidden_dims=SIZES,
    activation_fn=ACTIVATION,
    channels=SIZE,
    kernels=SIZES,
    strides=SIZES,
    squash=FLAG,
    whiten=FLAG,
    use_color=FLAG,
)
_KEYWORDS = Optionally(Table(_ONE_EXTRACTOR, partial=True))
_ALL_EXTRACTORS: dict[str, Setting] = dict(
    **_ONE_EXTRACTOR,
    image_kwargs=_KEYWORDS,
    point_cloud_kwargs=_KEYWORDS,
    vector_kwargs=_KEYWORDS,
    cnn_output_dim=SIZE,
    normalized_image=FLAG,
)
#: A policy's settings of its feature extractor.
EXTRACTOR_SETTINGS: dict[str, Setting] = dict(
    features_extractor_class=Named(EXTRACTORS, "feature extractors"),
    features_extractor_kwargs=Optionally(Table(_ALL_EXTRACTORS, partial=True)),
)
_HEADS = ("pi", "qf", "dynamics", "reward", "encoder")
#: Sizes for all heads of a latent model, or by head.
HEAD_SIZES = OneOf(Table(dict.fromkeys(_HEADS, SIZES), partial=True), SIZES)


TRAJECTORY_OPTIMIZER = Table(
    dict(
        solver=choice(tuple(SOLVERS)),
        max_iterations=Optionally(Whole(0, MAX_ITERATIONS)),
        step_size=Number(0.0),
        damping=Number(0.0),
        residual_offset=Number(),
        bounds=Optionally(choice(get_args(Bounds))),
        wall_gradient=choice(get_args(WallGradient)),
        backward_mode=choice(get_args(BackwardMode)),
        backward_num_iterations=Whole(1, MAX_ITERATIONS),
        stationarity_tolerance=Number(0.0),
        num_starts=Whole(1, 1000),
        num_samples=SAMPLES,
        num_elites=SAMPLES,
        temperature=Number(0.0),
        momentum=SHARE,
        min_std=Number(0.0),
        max_std=Number(0.0),
    ),
    build=TrajectoryOptimizer,
)
PRIOR_SAMPLES = Whole(0, MAX_SAMPLES)
