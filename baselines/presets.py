"""
Hyper-parameters of the methods that can be compared: defaults, and layers of what differs from them by ``suite/*``,
``suite/task``, kind of observation, size, and ``size obs``.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

Hyperparameters = dict[str, Any]
Layers = Mapping[str, Hyperparameters]


def merged(*layers: Mapping[str, Any]) -> Hyperparameters:
    """All hyper-parameters, later ones win; dictionaries inside are merged in the same way."""
    result: Hyperparameters = {}
    for layer in layers:
        for name, value in layer.items():
            both = isinstance(value, Mapping) and isinstance(result.get(name), Mapping)
            result[name] = merged(result[name], value) if both else copy.deepcopy(value)
    return result


# DiffTORI and TD-MPC, for every task that has no line of its own below. Networks have 128 units, a quarter of the
# paper's, which is five times faster on a CPU. One update per agent step, whatever the number of environments.
PLANNER: Hyperparameters = dict(
    learning_starts=1000,
    batch_size=128,
    train_freq=1,
    gradient_steps=-1,
    horizon=5,
    schedule_steps=10_000,
    policy_kwargs=dict(net_arch=dict(pi=[128, 128], qf=[128, 128], dynamics=[128, 128], reward=[128, 128])),
)
# From images and clouds nearly all of an update's time goes into the encoder: half the windows, each of three steps.
_PLANNER_SEEN: Hyperparameters = dict(learning_rate=1e-3, buffer_size=100_000, batch_size=64, horizon=3)
# Smaller convolutions of whitened images: what finger-spin was learned with (docs/results_pixels.md).
_CONVOLUTIONS: Hyperparameters = dict(kernels=[8, 4, 3], strides=[4, 2, 1], whiten=True, squash=True)
PLANNER_LAYERS: Layers = {
    # Rewards up to 10 a step: a tenth of them puts values where those of the control suite are.
    "metaworld/*": dict(reward_scale=0.1),
    # Learned within 10,000 agent steps.
    "dm_control/cartpole-swingup": dict(horizon=3, schedule_steps=6000),
    # White noise never swings the pendulum up: its reward is found by noise that keeps pushing one way.
    "dm_control/pendulum-swingup": dict(
        horizon=3,
        schedule_steps=25_000,
        learning_starts=2500,
        exploration_kwargs=dict(initial_std=1.0, final_std=0.05, correlation=0.95),
    ),
    "pixels": dict(_PLANNER_SEEN, policy_kwargs=dict(features_extractor_kwargs=_CONVOLUTIONS)),
    # Clouds take two copies of every observation, 24 kB at 1024 points. An update after every fourth agent step.
    "pointcloud": dict(_PLANNER_SEEN, train_freq=4, gradient_steps=1),
}
# A quarter less time at the same returns (docs/lab.md): the prior every second time, as in TD3, and the policy gradient
# through the last iteration.
DIFFTORI: Hyperparameters = dict(PLANNER, policy_delay=2, planner_kwargs=dict(backward_num_iterations=1))
DIFFTORI_LAYERS = merged(
    PLANNER_LAYERS,
    # More return per frame, twice as much where forces are among the observations (docs/lab.md).
    {"dm_control/*": dict(policy_kwargs=dict(norm_obs=True))},
    {key: dict(pg_batch_size=32, policy_kwargs=dict(norm_obs=False)) for key in ("pixels", "pointcloud")},
)

# All as published but for the size of the networks, which a CPU trains, and the memory.
TDMPC2: Hyperparameters = dict(buffer_size=100_000, policy_kwargs=dict(size="small"))
# Agent steps of an episode where the task's action repeat is not the published 2; discount and random steps follow it.
_REPEAT_4 = ("cartpole-swingup", "hopper-stand", "quadruped-run", "quadruped-walk", "reacher-easy", "reacher-hard")
TDMPC2_LAYERS: Layers = {
    **{f"dm_control/{task}": dict(episode_length=250) for task in _REPEAT_4},
    "dm_control/cartpole-swingup-sparse": dict(episode_length=125),
}
# All as published but for the memory, which a comparison of 100,000 agent steps does not need more of.
DRQV2: Hyperparameters = dict(buffer_size=100_000)

# One update per agent step whatever the number of environments. Two layers of 256 units are Stable-Baselines3's own
# size; one of 128 is three times faster on a CPU and learns the control suite's small tasks as well.
_OFF_POLICY: Hyperparameters = dict(
    learning_starts=1000,
    train_freq=1,
    gradient_steps=-1,
    batch_size=256,
    learning_rate=1e-3,
    policy_kwargs=dict(net_arch=[128, 128]),
)
SAC: Hyperparameters = dict(_OFF_POLICY, ent_coef="auto_0.1")
TD3: Hyperparameters = dict(_OFF_POLICY, action_noise_std=0.1)
# Its critics, which have no targets, are wider than the others', as published; a quarter of sb3-contrib's 1024 units.
CROSSQ: Hyperparameters = dict(SAC, policy_kwargs=dict(net_arch=dict(pi=[128, 128], qf=[256, 256])))
# From images and clouds the time of an update goes into the encoder: an update after every fourth agent step.
_OFF_POLICY_SEEN = dict(buffer_size=100_000, batch_size=128, train_freq=4, gradient_steps=1, learning_rate=3e-4)
OFF_POLICY_LAYERS: Layers = {"pixels": _OFF_POLICY_SEEN, "pointcloud": _OFF_POLICY_SEEN}
PPO: Hyperparameters = dict(
    n_steps=500,
    batch_size=50,
    n_epochs=10,
    learning_rate=3e-4,
    gae_lambda=0.95,
    clip_range=0.2,
    policy_kwargs=dict(net_arch=[128, 128], log_std_init=-0.5),
)
# Swinging up a pendulum for 200 steps: the discount of rl-zoo3's tuned setting.
PPO_LAYERS: Layers = {"gymnasium/Pendulum-v1": dict(gamma=0.9, learning_rate=1e-3)}

# The window of DiffTORI's release and of DP3: a base policy, its correction and DiffTORI plan the same chunk.
WINDOW: Hyperparameters = dict(n_obs_steps=2, horizon=4, n_action_steps=3)
# The small size is ours, for a few thousand steps on one core. What every point of a cloud goes through is most of a
# step's time.
_IMITATION_LAYERS: Layers = {
    "pixels": dict(policy_kwargs=dict(image_shift=None)),
    "small pixels": dict(batch_size=64),
    "small pointcloud": dict(
        batch_size=64,
        policy_kwargs=dict(features_extractor_kwargs=dict(point_cloud_kwargs=dict(hidden_dims=[32, 64, 128]))),
    ),
}
_SMALL_RATE: Hyperparameters = dict(cosine_learning_rate=1e-3)
BC_LAYERS = merged(_IMITATION_LAYERS, {"small": dict(_SMALL_RATE, policy_kwargs=dict(net_arch=[256, 256]))})
BCRNN_LAYERS = merged(
    _IMITATION_LAYERS,
    {
        "pixels": dict(batch_size=16, policy_kwargs=dict(hidden_dim=1000)),  # robomimic's size for images
        "small": dict(_SMALL_RATE, batch_size=64, policy_kwargs=dict(hidden_dim=100)),
        "small pixels": dict(batch_size=16),
        "small pointcloud": dict(batch_size=16),
    },
)
IBC_LAYERS = merged(
    _IMITATION_LAYERS,
    {"small": dict(batch_size=64, policy_kwargs=dict(depth=4, num_counter_examples=64, num_action_samples=1024))},
)
# Flow matching and MIP have Diffusion Policy's networks, and DP3's from point clouds.
UNET: Hyperparameters = dict(WINDOW, batch_size=128)
UNET_LAYERS = merged(_IMITATION_LAYERS, {"pointcloud": dict(size="dp3"), "small": dict(size="small", **_SMALL_RATE)})
DIFFUSION_LAYERS = merged(UNET_LAYERS, {"pointcloud": dict(prediction="sample")})  # from point clouds it is DP3
RESIDUAL_LAYERS = merged(_IMITATION_LAYERS, {"small": _SMALL_RATE})
# Reasons in docs/imitation.md: a base policy that is exact on its demonstrations teaches nothing without noise; larger
# steps fit them in few iterations; one scripted expert has one mode.
_FEW_ITERATIONS = dict(step_size=1e-2, max_iterations=3, backward_num_iterations=3)
PLANNED_LAYERS = merged(RESIDUAL_LAYERS, {"small": dict(start_noise=0.2, latent_dim=0, planner_kwargs=_FEW_ITERATIONS)})
