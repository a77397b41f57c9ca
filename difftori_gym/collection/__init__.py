"""Collecting demonstrations from experts."""

from difftori_gym.collection.collect import CollectionReport, CollectionSettings, collect
from difftori_gym.collection.experts import EXPERT_SUITES, Expert, make_expert
from difftori_gym.collection.robomimic_env import make_robomimic_env

__all__ = [
    "EXPERT_SUITES",
    "CollectionReport",
    "CollectionSettings",
    "Expert",
    "collect",
    "make_expert",
    "make_robomimic_env",
]
