"""What Optuna tries for our learners. Hyper-parameters that are not searched stay as in the file of the task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna import Trial


def sample_planner(trial: Trial, n_actions: int, n_envs: int, additional_args: dict[str, Any]) -> dict[str, Any]:
    """
    For DiffTORI and TD-MPC: learning rate, batch, discount, planning horizon, noise, weights of the model's losses.

    Of the RL Zoo's arguments only the first is used.
    """
    suggested = _shared(trial)
    suggested["horizon"] = trial.suggest_int("horizon", 1, 7)
    suggested["exploration_final_std"] = trial.suggest_float("exploration_final_std", 0.05, 0.4)
    suggested["exploration_correlation"] = trial.suggest_float("exploration_correlation", 0.0, 0.95)
    suggested["consistency_coef"] = trial.suggest_float("consistency_coef", 0.2, 5.0, log=True)
    suggested["value_coef"] = trial.suggest_float("value_coef", 0.02, 0.5, log=True)
    return convert(suggested)


def sample_drqv2(trial: Trial, n_actions: int, n_envs: int, additional_args: dict[str, Any]) -> dict[str, Any]:
    """For DrQ-v2: learning rate, batch, discount, length of returns, clip of the noise. See :func:`sample_planner`."""
    suggested = _shared(trial)
    suggested["return_steps"] = trial.suggest_int("return_steps", 1, 5)
    suggested["noise_clip"] = trial.suggest_float("noise_clip", 0.1, 0.5)
    return convert(suggested)


def _shared(trial: Trial) -> dict[str, Any]:
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 3e-3, log=True),
        "batch_size_pow": trial.suggest_int("batch_size_pow", 5, 9),
        "one_minus_gamma": trial.suggest_float("one_minus_gamma", 0.003, 0.05, log=True),
    }


def convert(suggested: dict[str, Any]) -> dict[str, Any]:
    """:return: keyword arguments of the learner, from a trial's values by Optuna's names"""
    found = dict(suggested)
    found["batch_size"] = 2 ** found.pop("batch_size_pow")
    found["gamma"] = 1.0 - found.pop("one_minus_gamma")
    prefix = "exploration_"
    noise = {name.removeprefix(prefix): found.pop(name) for name in list(found) if name.startswith(prefix)}
    if noise:
        found["exploration_kwargs"] = noise
    return found
