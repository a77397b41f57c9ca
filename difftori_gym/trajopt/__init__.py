"""Differentiable trajectory optimisation: an objective and a start in, a solution out. Needs torch only."""

from difftori_gym.trajopt.optimizer import TrajectoryOptimizer
from difftori_gym.trajopt.solution import BackwardMode, Bounds, Objective, SampledSolution, Solution, Solve

__all__ = ["BackwardMode", "Bounds", "Objective", "SampledSolution", "Solution", "Solve", "TrajectoryOptimizer"]
