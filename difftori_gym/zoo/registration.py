"""Puts our learners and environments where the RL Zoo looks for algorithms, search spaces and environments."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec, registry
from stable_baselines3.common.base_class import BaseAlgorithm

from difftori_gym.baselines.methods import METHODS
from difftori_gym.envs import make_env
from difftori_gym.zoo.search import convert, sample_drqv2, sample_planner

#: Names of methods that are registered, the same as in examples/compare.py.
ALGORITHMS = ("difftori", "tdmpc", "drqv2")
_SAMPLERS = {"difftori": sample_planner, "tdmpc": sample_planner, "drqv2": sample_drqv2}


def register() -> None:
    """
    Make the RL Zoo know our learners and how to search their hyper-parameters.

    :raises ImportError: if rl_zoo3 is not installed; names the command that installs it
    """
    try:
        from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER
        from rl_zoo3.utils import ALGOS
    except ModuleNotFoundError as error:
        raise ImportError(f'The RL Zoo needs the package {error.name}. Run: pip install "difftori-gym[zoo]"') from error
    algorithms: dict[str, type[BaseAlgorithm]] = ALGOS
    converters: dict[str, Any] = HYPERPARAMS_CONVERTER
    for name in ALGORITHMS:
        algorithms[name] = METHODS["rl"][name].learner()
        HYPERPARAMS_SAMPLER[name] = _SAMPLERS[name]
        converters[name] = convert


def hyperparameters_file(name: str) -> Path:
    """:return: an algorithm's tuned hyper-parameters, as the RL Zoo reads them"""
    return Path(__file__).with_name(f"{name}.yml")


class _TaskSpec(EnvSpec):
    """What ``gymnasium.spec`` answers for one of our ids; the RL Zoo builds environments by its ``make``."""

    def make(self, **kwargs: Any) -> gym.Env[Any, Any]:
        return make_env(self.id, **kwargs)


def register_environment(id: str) -> None:
    """
    Put a ``suite/task`` into Gymnasium's registry, unless it is there.

    :raises ValueError: if there is no such task
    """
    if id in registry:
        return
    # What a suite registers itself, as Shimmy does, refuses to come after ours.
    make_env(id).close()
    # Not by gymnasium.register, which refuses an id without a version beside one of Shimmy's with it.
    known: Mapping[str, EnvSpec] = registry
    assert isinstance(known, dict)
    known[id] = _TaskSpec(id=id, entry_point=lambda **kwargs: make_env(id, **kwargs))
