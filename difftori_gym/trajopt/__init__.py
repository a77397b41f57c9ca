"""Differentiable trajectory optimisation: an objective and a start in, a solution out. Needs torch only."""

from difftori_gym.trajopt.objective import FastObjective, Objective
from difftori_gym.trajopt.optimizer import TrajectoryOptimizer
from difftori_gym.trajopt.settings import Settings, Solve
from difftori_gym.trajopt.solution import BackwardMode, Bounds, SampledSolution, Solution

__all__ = [
    "BackwardMode",
    "Bounds",
    "FastObjective",
    "Objective",
    "SampledSolution",
    "Settings",
    "Solution",
    "Solve",
    "TrajectoryOptimizer",
]
