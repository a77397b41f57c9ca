"""Imitation learning: demonstrations and what learns from them."""

from difftori_gym.il.demonstrations import Demonstrations, DemonstrationWindows, Episode, WindowBatch
from difftori_gym.il.normalization import ActionNormalizer, ObservationNormalizer

__all__ = [
    "ActionNormalizer",
    "DemonstrationWindows",
    "Demonstrations",
    "Episode",
    "ObservationNormalizer",
    "WindowBatch",
]
