"""The classes that an exported policy may name, ours and Stable-Baselines3's. Nothing else is ever looked up."""

from __future__ import annotations

from typing import Any, get_args

from stable_baselines3.common.torch_layers import CombinedExtractor, FlattenExtractor, NatureCNN
from torch import nn

from difftori_gym.exports.settings import (
    MAX_ITERATIONS,
    MAX_SAMPLES,
    SAMPLES,
    SHARE,
    SIZE,
    SIZES,
    Choice,
    Flag,
    Named,
    Number,
    OneOf,
    Optionally,
    Setting,
    Table,
    Whole,
)
from difftori_gym.models import CombinedEncoder, ImageEncoder, PointNetEncoder, StateEncoder
from difftori_gym.trajopt import TrajectoryOptimizer
from difftori_gym.trajopt.optimizer import SOLVERS
from difftori_gym.trajopt.solution import BackwardMode, Bounds, WallGradient

EXTRACTORS: dict[str, type] = {
    cls.__name__: cls
    for cls in (
        FlattenExtractor,
        NatureCNN,
        CombinedExtractor,
        StateEncoder,
        ImageEncoder,
        PointNetEncoder,
        CombinedEncoder,
    )
}
ACTIVATIONS: dict[str, type] = {
    cls.__name__: cls
    for cls in (
        nn.ELU,
        nn.GELU,
        nn.Identity,
        nn.LeakyReLU,
        nn.Mish,
        nn.ReLU,
        nn.SELU,
        nn.SiLU,
        nn.Sigmoid,
        nn.Softplus,
        nn.Tanh,
    )
}
ACTIVATION = Named(ACTIVATIONS, "activations")

_ONE_EXTRACTOR: dict[str, Setting] = dict(
    features_dim=Optionally(SIZE),
    hidden_dims=SIZES,
    activation_fn=ACTIVATION,
    channels=SIZE,
    kernels=SIZES,
    strides=SIZES,
    squash=Flag(),
    whiten=Flag(),
    use_color=Flag(),
)
_KEYWORDS = Optionally(Table(_ONE_EXTRACTOR, partial=True))
_ALL_EXTRACTORS: dict[str, Setting] = dict(
    **_ONE_EXTRACTOR,
    image_kwargs=_KEYWORDS,
    point_cloud_kwargs=_KEYWORDS,
    vector_kwargs=_KEYWORDS,
    cnn_output_dim=SIZE,
    normalized_image=Flag(),
)
#: A policy's settings of its feature extractor.
EXTRACTOR_SETTINGS: dict[str, Setting] = dict(
    features_extractor_class=Named(EXTRACTORS, "feature extractors"),
    features_extractor_kwargs=Optionally(Table(_ALL_EXTRACTORS, partial=True)),
)
_HEADS = ("pi", "qf", "dynamics", "reward", "encoder")
#: Sizes for all heads of a latent model, or by head.
HEAD_SIZES = OneOf(Table(dict.fromkeys(_HEADS, SIZES), partial=True), SIZES)


def _words(literal: Any) -> Choice:
    return Choice(get_args(literal))


TRAJECTORY_OPTIMIZER = Table(
    dict(
        solver=Choice(tuple(SOLVERS)),
        max_iterations=Optionally(Whole(0, MAX_ITERATIONS)),
        step_size=Number(0.0),
        damping=Number(0.0),
        residual_offset=Number(),
        bounds=Optionally(_words(Bounds)),
        wall_gradient=_words(WallGradient),
        backward_mode=_words(BackwardMode),
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
