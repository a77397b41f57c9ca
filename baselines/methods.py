"""The methods that can be compared: learner, label, and hyper-parameters per task."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3 import PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from ..learning import refuse_unknown
from ..models import CombinedEncoder, ImageEncoder, observation_kind
from ..rl import DiffTORI
from ..rl.frame_replay import DictFrameReplayBuffer, FrameReplayBuffer
from .drqv2 import DrQv2
from .tdmpc import TDMPC
from .tdmpc2 import TDMPC2

Hyperparameters = dict[str, Any]

# DiffTORI and TD-MPC, for every task that has no line of its own below. Networks have 128 units, a quarter of the
# paper's, which is five times faster on a CPU. One update per agent step, whatever the number of environments.
_PLANNER: Hyperparameters = dict(
    learning_starts=1000,
    batch_size=128,
    train_freq=1,
    gradient_steps=-1,
    horizon=5,
    schedule_steps=10_000,
    policy_kwargs=dict(net_arch=dict(pi=[128, 128], qf=[128, 128], dynamics=[128, 128], reward=[128, 128])),
)

# A quarter less time at the same returns (docs/lab.md): the prior every second time, as in TD3, and the policy gradient
# through the last iteration.
_DIFFTORI: Hyperparameters = dict(_PLANNER, policy_delay=2, planner_kwargs=dict(backward_num_iterations=1))

# What differs from _PLANNER, by "suite/*" and "suite/task".
_PLANNER_TASKS: dict[str, Hyperparameters] = {
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
}

# From images and clouds nearly all of an update's time goes into the encoder: half the windows, each of three steps.
_PLANNER_SEEN: Hyperparameters = dict(learning_rate=1e-3, buffer_size=100_000, batch_size=64, horizon=3)
# Smaller convolutions of whitened images: what finger-spin was learned with (docs/results_pixels.md).
_PLANNER_PIXELS: Hyperparameters = dict(
    _PLANNER_SEEN,
    policy_kwargs=dict(
        _PLANNER["policy_kwargs"],
        features_extractor_kwargs=dict(kernels=[8, 4, 3], strides=[4, 2, 1], whiten=True, squash=True),
    ),
)
# Clouds take two copies of every observation, 24 kB at 1024 points. An update after every fourth agent step.
_PLANNER_CLOUDS: Hyperparameters = dict(_PLANNER_SEEN, train_freq=4, gradient_steps=1)
# All as published but for the size of the networks, which a CPU trains, and the memory.
_TDMPC2: Hyperparameters = dict(buffer_size=100_000, policy_kwargs=dict(size="small"))
# Agent steps of an episode where the task's action repeat is not the published 2; discount and random steps follow it.
_TDMPC2_TASKS: dict[str, Hyperparameters] = {
    "dm_control/cartpole-swingup": dict(episode_length=250),
    "dm_control/cartpole-swingup-sparse": dict(episode_length=125),
    "dm_control/hopper-stand": dict(episode_length=250),
    "dm_control/quadruped-run": dict(episode_length=250),
    "dm_control/quadruped-walk": dict(episode_length=250),
    "dm_control/reacher-easy": dict(episode_length=250),
    "dm_control/reacher-hard": dict(episode_length=250),
}
# All as published but for the memory, which a comparison of 100,000 agent steps does not need more of.
_DRQV2: Hyperparameters = dict(buffer_size=100_000)

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
_SAC: Hyperparameters = {**_OFF_POLICY, "ent_coef": "auto_0.1"}
_TD3: Hyperparameters = {**_OFF_POLICY, "action_noise_std": 0.1}
# Its critics, which have no targets, are wider than the others', as published; a quarter of sb3-contrib's 1024 units.
_CROSSQ: Hyperparameters = {**_SAC, "policy_kwargs": dict(net_arch=dict(pi=[128, 128], qf=[256, 256]))}
_PPO: Hyperparameters = dict(
    n_steps=500,
    batch_size=50,
    n_epochs=10,
    learning_rate=3e-4,
    gae_lambda=0.95,
    clip_range=0.2,
    policy_kwargs=dict(net_arch=[128, 128], log_std_init=-0.5),
)
# From images and clouds the time of an update goes into the encoder: an update after every fourth agent step.
_OFF_POLICY_SEEN: Hyperparameters = dict(
    buffer_size=100_000, batch_size=128, train_freq=4, gradient_steps=1, learning_rate=3e-4
)
# Swinging up a pendulum for 200 steps: the discount of rl-zoo3's tuned setting.
_PPO_TASKS: dict[str, Hyperparameters] = {"gymnasium/Pendulum-v1": dict(gamma=0.9, learning_rate=1e-3)}


@dataclass(frozen=True)
class Method:
    """
    A learner with its hyper-parameters.

    :param name: name on the command line and in tables
    :param label: name in figures
    :param learner: returns the class
    :param default: hyper-parameters for every task: the class's keywords, and ``action_noise_std`` for a Gaussian
        exploration noise of that standard deviation
    :param tasks: what differs from ``default``, by ``suite/*`` and, winning over that, by ``suite/task``
    :param fixed: hyper-parameters that make the method what it is; they win over everything else
    :param obs: kinds of observation it learns from
    :param pixels: what differs from ``default`` when it learns from images; wins over ``tasks``
    :param clouds: the same for point clouds
    """

    name: str
    label: str
    learner: Callable[[], type[BaseAlgorithm]]
    default: Hyperparameters
    tasks: Mapping[str, Hyperparameters] = field(default_factory=dict)
    fixed: Hyperparameters = field(default_factory=dict)
    obs: tuple[str, ...] = ("state",)
    pixels: Hyperparameters = field(default_factory=dict)
    clouds: Hyperparameters = field(default_factory=dict)

    def hyperparameters(
        self, task: str, overrides: Mapping[str, Any] | None = None, obs: str = "state"
    ) -> Hyperparameters:
        """
        Keywords of the learner for a task and a kind of observation; where two layers hold a dictionary, it is merged.

        :param task: ``suite/task``, canonical
        :param overrides: the user's own choices
        :raises ValueError: on a name that the learner does not have, or one that the method fixes
        """
        overrides = dict(overrides or {})
        refuse_unknown(overrides, self.hyperparameter_names(), f"{self.name} has no hyper-parameter")
        for name, value in overrides.items():
            if name in self.fixed and value != self.fixed[name]:
                raise ValueError(f"{self.name} is defined by {name}={self.fixed[name]!r}, got {value!r}.")
        of_obs = {"pixels": self.pixels, "pointcloud": self.clouds}.get(obs, {})
        of_suite = self.tasks.get(f"{task.partition('/')[0]}/*", {})
        return merged(self.default, of_suite, self.tasks.get(task, {}), of_obs, overrides, self.fixed)

    def hyperparameter_names(self) -> set[str]:
        """Names that :meth:`build` understands."""
        names = keyword_names(self.learner()) - {"policy", "env"}
        return names | {"action_noise_std"} if "action_noise" in names else names

    def build(self, env: VecEnv, *, seed: int, device: str, hyperparameters: Mapping[str, Any]) -> BaseAlgorithm:
        """An untrained learner of :meth:`hyperparameters` in the training environments ``env``."""
        keywords = copy.deepcopy(dict(hyperparameters))  # Stable-Baselines3 writes into policy_kwargs
        noise_std = keywords.pop("action_noise_std", None)
        if noise_std is not None:
            shape = env.action_space.shape
            assert shape is not None
            keywords["action_noise"] = NormalActionNoise(np.zeros(shape), np.full(shape, float(noise_std)))
        policy = policy_name(env.observation_space)
        if policy != "MlpPolicy" and self.learner().__module__.startswith(("stable_baselines3.", "sb3_contrib.")):
            # The encoders of our own, and a memory that keeps each image frame once.
            is_dict = policy == "MultiInputPolicy"
            encoder = CombinedEncoder if is_dict else ImageEncoder
            keywords["policy_kwargs"] = {"features_extractor_class": encoder, **(keywords.get("policy_kwargs") or {})}
            if issubclass(self.learner(), OffPolicyAlgorithm):
                keywords.setdefault("replay_buffer_class", DictFrameReplayBuffer if is_dict else FrameReplayBuffer)
        extractor = keywords.get("policy_kwargs", {}).get("features_extractor_kwargs", {})
        if policy == "MultiInputPolicy" and "kernels" in extractor:  # beside a state, an image has its own encoder
            keywords["policy_kwargs"]["features_extractor_kwargs"] = {"image_kwargs": extractor}
        return self.learner()(policy, env, seed=seed, device=device, verbose=0, **keywords)


def merged(*layers: Mapping[str, Any]) -> Hyperparameters:
    """All hyper-parameters, later ones win; dictionaries inside are merged in the same way."""
    result: Hyperparameters = {}
    for layer in layers:
        for name, value in layer.items():
            both = isinstance(value, Mapping) and isinstance(result.get(name), Mapping)
            result[name] = merged(result[name], value) if both else copy.deepcopy(value)
    return result


def keyword_names(learner: type[BaseAlgorithm]) -> set[str]:
    """
    What a learner's constructor understands, parents that keywords are passed on to included, without what every
    learner is given: seed, device and verbosity.
    """
    names: set[str] = set()
    for cls in learner.__mro__:
        parameters = inspect.signature(cls).parameters
        names |= {name for name, parameter in parameters.items() if parameter.kind is not parameter.VAR_KEYWORD}
        if "kwargs" not in parameters:
            break  # this class passes nothing on to its base
    return names - {"seed", "device", "verbose", "_init_setup_model"}


def policy_name(space: spaces.Space[Any]) -> str:
    """Stable-Baselines3's name of the policy that reads these observations."""
    if isinstance(space, spaces.Dict):
        return "MultiInputPolicy"
    return "CnnPolicy" if observation_kind(space) == "image" else "MlpPolicy"


def _contrib(name: str) -> type[BaseAlgorithm]:
    import sb3_contrib

    learner: type[BaseAlgorithm] = getattr(sb3_contrib, name)
    return learner


_ALL_OBS = ("state", "pixels", "pointcloud")
_SEEING_TDMPC: dict[str, Any] = dict(obs=_ALL_OBS, pixels=_PLANNER_PIXELS, clouds=_PLANNER_CLOUDS)
_SEEING: dict[str, Any] = dict(
    obs=_ALL_OBS, pixels=dict(_PLANNER_PIXELS, pg_batch_size=32), clouds=dict(_PLANNER_CLOUDS, pg_batch_size=32)
)
_SEEING_OFF_POLICY: dict[str, Any] = dict(obs=_ALL_OBS, pixels=_OFF_POLICY_SEEN, clouds=_OFF_POLICY_SEEN)

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("difftori", "DiffTORI", lambda: DiffTORI, _DIFFTORI, _PLANNER_TASKS, **_SEEING),
        Method(
            "difftori_nopg",
            "DiffTORI, no policy gradient",
            lambda: DiffTORI,
            _DIFFTORI,
            _PLANNER_TASKS,
            {"pg_coef": 0.0},
            **_SEEING,
        ),
        Method("tdmpc", "TD-MPC", lambda: TDMPC, _PLANNER, _PLANNER_TASKS, **_SEEING_TDMPC),
        Method("tdmpc2", "TD-MPC2", lambda: TDMPC2, _TDMPC2, _TDMPC2_TASKS, obs=("state", "pixels")),
        Method("drqv2", "DrQ-v2", lambda: DrQv2, _DRQV2, obs=("pixels",)),
        Method("sac", "SAC", lambda: SAC, _SAC, **_SEEING_OFF_POLICY),
        Method("td3", "TD3", lambda: TD3, _TD3, **_SEEING_OFF_POLICY),
        Method("tqc", "TQC", lambda: _contrib("TQC"), _SAC, **_SEEING_OFF_POLICY),
        Method("crossq", "CrossQ", lambda: _contrib("CrossQ"), _CROSSQ),
        Method("ppo", "PPO", lambda: PPO, _PPO, _PPO_TASKS, obs=_ALL_OBS),
    )
}


def get_method(name: str, obs: str = "state") -> Method:
    """
    The method of that name.

    :raises ValueError: if there is no such method, or it does not learn from ``obs``
    """
    if name not in METHODS:
        raise ValueError(f"Unknown method {name!r}. Methods: {', '.join(METHODS)}.")
    method = METHODS[name]
    if obs not in method.obs:
        raise ValueError(f"{name} learns from {' or '.join(method.obs)} observations, got obs={obs!r}.")
    return method
