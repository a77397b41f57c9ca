"""Gymnasium wrappers, installed as ``difftori_gym.wrappers``."""

from .action_repeat import ActionRepeat
from .cameras import CameraPose, Cameras
from .farthest_point_sampling import farthest_point_sampling
from .pixel_observation import PixelObservation
from .point_cloud_observation import PointCloudObservation
from .seed_first_reset import SeedFirstReset
from .state_observation import StateObservation

__all__ = [
    "ActionRepeat",
    "CameraPose",
    "Cameras",
    "PixelObservation",
    "PointCloudObservation",
    "SeedFirstReset",
    "StateObservation",
    "farthest_point_sampling",
]
