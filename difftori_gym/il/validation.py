"""Windows and demonstrations that cannot be learned from, refused with expected, got, remedy."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
from gymnasium import spaces

from difftori_gym.observations import entries, under


def check_windows(n_obs_steps: int, horizon: int, n_action_steps: int) -> None:
    """A ``ValueError`` unless all are at least 1 and no more is executed than planned."""
    for name, value in (("n_obs_steps", n_obs_steps), ("horizon", horizon), ("n_action_steps", n_action_steps)):
        if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
            raise ValueError(f"Imitation needs an integer {name} >= 1, got {value!r}.")
    if n_action_steps > horizon:
        raise ValueError(f"Imitation needs n_action_steps <= horizon, got {n_action_steps} > {horizon}: plan further.")


def check_same_spaces(
    observation_space: spaces.Space[Any], action_space: spaces.Space[Any], other: Any, *, what: str, whose: str
) -> None:
    """
    A ``ValueError`` if a key, a shape, a type or an action bound of ``other``, called ``what``, is not as in ``whose``
    spaces.
    """
    expected, got = _layout(observation_space), _layout(other.observation_space)
    if expected.keys() != got.keys():
        raise ValueError(
            f"{what}: expected the observation keys {sorted(expected)} of {whose}, got {sorted(got)}: record and run "
            "with the same observations."
        )
    for key, layout in expected.items():
        if layout != got[key]:
            raise ValueError(
                f"{what}: expected observations{under(key or None)} of shape and type {layout} as in {whose}, "
                f"got {got[key]}: record and run with the same observations."
            )
    same = (
        isinstance(action_space, spaces.Box)
        and isinstance(other.action_space, spaces.Box)
        and action_space.shape == other.action_space.shape
        and np.allclose(action_space.low, other.action_space.low)
        and np.allclose(action_space.high, other.action_space.high)
    )
    if not same:
        raise ValueError(
            f"{what}: expected the action space {action_space} of {whose}, got {other.action_space}: actions are "
            "scaled by these bounds, so they must agree."
        )


def _layout(space: spaces.Space[Any]) -> dict[str, tuple[tuple[int, ...] | None, str]]:
    """Shape and kind of every entry; types of one kind, as float32 and float64, may be mixed."""
    return {key or "": (entry.shape, np.dtype(entry.dtype).kind) for key, entry in entries(space).items()}
