"""Imitation learning: demonstrations, DiffTORI's imitation, and what every imitation learner shares."""

from difftori_gym.il.demonstrations import Demonstrations, DemonstrationWindows, Episode, WindowBatch
from difftori_gym.il.difftori import DiffTORIImitation, DiffTORIImitationPolicy
from difftori_gym.il.learner import ImitationAlgorithm
from difftori_gym.il.normalization import ActionNormalizer, ObservationNormalizer
from difftori_gym.il.policies import ImitationPolicy
from difftori_gym.il.schedules import CosineSchedule

__all__ = [
    "ActionNormalizer",
    "CosineSchedule",
    "DemonstrationWindows",
    "Demonstrations",
    "DiffTORIImitation",
    "DiffTORIImitationPolicy",
    "Episode",
    "ImitationAlgorithm",
    "ImitationPolicy",
    "ObservationNormalizer",
    "WindowBatch",
]
