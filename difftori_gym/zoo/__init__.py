"""Our learners in the RL Zoo (rl_zoo3): training by one command, tuning with Optuna, plots. See docs/zoo.md."""

from difftori_gym.zoo.registration import ALGORITHMS, register, register_environment

__all__ = ["ALGORITHMS", "register", "register_environment"]
