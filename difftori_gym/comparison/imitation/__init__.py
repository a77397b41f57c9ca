"""Imitation methods x tasks x seeds, side by side: behind ``examples/compare.py --demos`` and the ablations."""

from difftori_gym.comparison.imitation.ablations import ABLATIONS, plan_ablation
from difftori_gym.comparison.imitation.compare import compare_imitation
from difftori_gym.comparison.imitation.plan import plan_imitation
from difftori_gym.comparison.imitation.settings import CollectionRun, ImitationRun, ImitationSettings

__all__ = [
    "ABLATIONS",
    "CollectionRun",
    "ImitationRun",
    "ImitationSettings",
    "compare_imitation",
    "plan_ablation",
    "plan_imitation",
]
