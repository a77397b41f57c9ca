"""What reinforcement and imitation learners share."""

from difftori_gym.learning.planner_settings import refuse_renamed, split_planner_kwargs

__all__ = ["refuse_renamed", "split_planner_kwargs"]
