"""Imitation learning: demonstrations and what learns from them."""

from difftori_gym.il.demonstrations import Demonstrations, DemonstrationWindows, Episode, WindowBatch
from difftori_gym.il.maniskill_reader import read_maniskill
from difftori_gym.il.minari_reader import read_minari
from difftori_gym.il.minari_writer import MinariWriter, write_minari
from difftori_gym.il.normalization import ActionNormalizer, ObservationNormalizer
from difftori_gym.il.robomimic_reader import RobomimicEnvArgs, read_env_args, read_robomimic

__all__ = [
    "ActionNormalizer",
    "DemonstrationWindows",
    "Demonstrations",
    "Episode",
    "MinariWriter",
    "ObservationNormalizer",
    "RobomimicEnvArgs",
    "WindowBatch",
    "read_env_args",
    "read_maniskill",
    "read_minari",
    "read_robomimic",
    "write_minari",
]
