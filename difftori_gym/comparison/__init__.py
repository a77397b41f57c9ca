"""Methods x tasks x seeds, side by side: what ``examples/compare.py`` is made of."""

from difftori_gym.comparison.compare import compare
from difftori_gym.comparison.plan import ABLATIONS, plan_ablation, plan_runs
from difftori_gym.comparison.run_record import Run
from difftori_gym.comparison.settings import ComparisonSettings

__all__ = ["ABLATIONS", "ComparisonSettings", "Run", "compare", "plan_ablation", "plan_runs"]
