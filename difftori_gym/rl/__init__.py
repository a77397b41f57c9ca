"""DiffTORI for reinforcement learning."""

from difftori_gym.rl.difftori import DiffTORI
from difftori_gym.rl.policies import CnnPolicy, DiffTORIPolicy, MlpPolicy, MultiInputPolicy

__all__ = ["CnnPolicy", "DiffTORI", "DiffTORIPolicy", "MlpPolicy", "MultiInputPolicy"]
