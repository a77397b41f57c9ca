"""Published methods to compare with, as Stable-Baselines3 algorithms."""

from difftori_gym.baselines.drqv2 import DrQv2
from difftori_gym.baselines.tdmpc import TDMPC

__all__ = ["TDMPC", "DrQv2"]
