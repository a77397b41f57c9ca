"""What an exported planning policy may say about itself."""

from __future__ import annotations

from typing import get_args

from difftori_gym.exports.classes import (
    ACTIVATION,
    EXTRACTOR_SETTINGS,
    HEAD_SIZES,
    PRIOR_SAMPLES,
    TRAJECTORY_OPTIMIZER,
)
from difftori_gym.exports.settings import SHARE, SIZE, STEPS, Choice, Flag, Number, Optionally, Setting, Table, Whole
from difftori_gym.rl.planning import Init, Planner

#: Without ``compile``, which changes how fast a plan is found and not which: a loaded policy does not compile.
PLANNER = Table(
    dict(
        optimizer=TRAJECTORY_OPTIMIZER,
        init=Choice(get_args(Init)),
        discount=SHARE,
        num_prior_samples=PRIOR_SAMPLES,
    ),
    build=Planner,
)

POLICY_SETTINGS: dict[str, Setting] = dict(
    net_arch=Optionally(HEAD_SIZES),
    activation_fn=ACTIVATION,
    **EXTRACTOR_SETTINGS,
    normalize_images=Flag(),
    n_critics=Whole(1, 32),
    latent_dim=SIZE,
    planner=PLANNER,
    horizon=STEPS,
    exploration_std=Number(0.0, 100.0),
    image_shift=Optionally(Whole(0, 10_000)),
    slow_targets=Flag(),
)
