"""Gymnasium wrappers, installed as ``difftori_gym.wrappers``."""

from .action_repeat import ActionRepeat
from .batched_env import BatchedEnv, TensorObs, TensorStep
from .seed_first_reset import SeedFirstReset
from .single_env import SingleEnv
from .state_observation import StateObservation
from .tensor_vec_env import TensorVecEnv

__all__ = [
    "ActionRepeat",
    "BatchedEnv",
    "SeedFirstReset",
    "SingleEnv",
    "StateObservation",
    "TensorObs",
    "TensorStep",
    "TensorVecEnv",
]
