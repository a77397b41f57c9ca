"""Methods x tasks x seeds, side by side: the engine behind ``examples/compare.py``."""

from difftori_gym.comparison.compare import compare
from difftori_gym.comparison.runner import Failure
from difftori_gym.comparison.settings import ComparisonSettings, RunSettings, plan_runs

__all__ = ["ComparisonSettings", "Failure", "RunSettings", "compare", "plan_runs"]
