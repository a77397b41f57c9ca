"""Gymnasium wrappers, installed as ``difftori_gym.wrappers``."""

from ..observations import TensorObs
from .action_repeat import ActionRepeat
from .batched_env import BatchedEnv, TensorStep
from .cameras import CameraPose, Cameras
from .distractors import Distractors
from .farthest_point_sampling import farthest_point_sampling
from .named_env import NamedEnv
from .pixel_observation import PixelObservation
from .point_cloud_observation import PointCloudObservation
from .seed_first_reset import SeedFirstReset
from .single_env import SingleEnv
from .state_observation import StateObservation
from .success import EpisodeSuccess, SuccessReward, told_success
from .tensor_vec_env import TensorVecEnv

__all__ = [
    "ActionRepeat",
    "BatchedEnv",
    "CameraPose",
    "Cameras",
    "Distractors",
    "EpisodeSuccess",
    "NamedEnv",
    "PixelObservation",
    "PointCloudObservation",
    "SeedFirstReset",
    "SingleEnv",
    "StateObservation",
    "SuccessReward",
    "TensorObs",
    "TensorStep",
    "TensorVecEnv",
    "farthest_point_sampling",
    "told_success",
]
