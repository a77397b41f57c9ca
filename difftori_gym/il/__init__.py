"""Imitation learning: demonstrations, DiffTORI's imitation, and what every imitation learner shares."""

from difftori_gym.il.demonstrations import Demonstrations
from difftori_gym.il.difftori import DiffTORIImitation, DiffTORIImitationPolicy
from difftori_gym.il.episode import Episode
from difftori_gym.il.formats.maniskill_reader import read_maniskill
from difftori_gym.il.formats.minari_reader import read_minari
from difftori_gym.il.formats.minari_writer import MinariWriter, write_minari
from difftori_gym.il.formats.robomimic_reader import RobomimicEnvArgs, read_env_args, read_robomimic
from difftori_gym.il.learner import ImitationAlgorithm
from difftori_gym.il.normalization import ObservationNormalizer
from difftori_gym.il.policies import ImitationPolicy
from difftori_gym.il.schedules import CosineSchedule
from difftori_gym.il.windows import DemonstrationWindows, WindowBatch

__all__ = [
    "CosineSchedule",
    "DemonstrationWindows",
    "Demonstrations",
    "DiffTORIImitation",
    "DiffTORIImitationPolicy",
    "Episode",
    "ImitationAlgorithm",
    "ImitationPolicy",
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
