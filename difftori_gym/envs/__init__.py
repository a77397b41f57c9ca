"""Environments by name."""

from difftori_gym.envs.observations import Observation
from difftori_gym.envs.registry import SUITES, make_env, make_vec_env, parse_task, parse_tasks, task_action_repeat
from difftori_gym.envs.suite import Suite, TaskId

__all__ = [
    "SUITES",
    "Observation",
    "Suite",
    "TaskId",
    "make_env",
    "make_vec_env",
    "parse_task",
    "parse_tasks",
    "task_action_repeat",
]
