"""Imitation learning: demonstrations and what learns from them."""

from difftori_gym.il.demonstrations import Demonstrations, DemonstrationWindows, Episode, WindowBatch
from difftori_gym.il.minari_reader import read_minari
from difftori_gym.il.minari_writer import MinariWriter, write_minari
from difftori_gym.il.normalization import ActionNormalizer, ObservationNormalizer

__all__ = [
    "ActionNormalizer",
    "DemonstrationWindows",
    "Demonstrations",
    "Episode",
    "MinariWriter",
    "ObservationNormalizer",
    "WindowBatch",
    "read_minari",
    "write_minari",
]
