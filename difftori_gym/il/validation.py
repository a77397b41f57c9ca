"""Windows and demonstrations that cannot be learned from, refused with expected, got, remedy."""

from __future__ import annotations

from numbers import Integral

from difftori_gym.learning.spaces import check_same_spaces

__all__ = ["check_same_spaces", "check_windows"]


def check_windows(n_obs_steps: int, horizon: int, n_action_steps: int) -> None:
    """A ``ValueError`` unless all are at least 1 and no more is executed than planned."""
    for name, value in (("n_obs_steps", n_obs_steps), ("horizon", horizon), ("n_action_steps", n_action_steps)):
        if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
            raise ValueError(f"Imitation needs an integer {name} >= 1, got {value!r}.")
    if n_action_steps > horizon:
        raise ValueError(f"Imitation needs n_action_steps <= horizon, got {n_action_steps} > {horizon}: plan further.")
