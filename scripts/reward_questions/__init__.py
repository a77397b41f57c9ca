"""Is the objective that imitation learns a reward? One module a question, for ``scripts/objective_or_reward.py``."""
