"""Gymnasium wrappers, installed as ``difftori_gym.wrappers``."""

from .action_repeat import ActionRepeat
from .seed_first_reset import SeedFirstReset
from .state_observation import StateObservation

__all__ = ["ActionRepeat", "SeedFirstReset", "StateObservation"]
