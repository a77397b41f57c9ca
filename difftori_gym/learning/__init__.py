"""What all learners share: the spaces they take, settings that are used or refused, how a planner is set."""

from difftori_gym.learning.planner_settings import refuse_renamed, refuse_unknown, split_planner_kwargs

__all__ = ["refuse_renamed", "refuse_unknown", "split_planner_kwargs"]
