"""Summaries of a few runs, and how sure one can be of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from difftori_gym.comparison.old_results import ResultRow

Values = NDArray[np.float64]
Statistic = Callable[[Values], Values]

_RESAMPLES = 2000
_NORMAL_975 = 1.959963984540054  # 97.5 % quantile of the standard normal


@dataclass(frozen=True)
class Estimate:
    """
    A statistic with its 95 % interval.

    :param value: the statistic of the values themselves
    :param low: lower end, None with fewer than two values
    :param high: upper end, None with fewer than two values
    """

    value: float
    low: float | None
    high: float | None


def mean(values: Values) -> Values:
    """
    :param values: ``[..., n]``
    :return: mean over the last axis ``[...]``
    """
    return np.asarray(values.mean(axis=-1))


def interquartile_mean(values: Values) -> Values:
    """
    Mean of the middle half: the lowest and the highest quarter, rounded down, are left out.

    :param values: ``[..., n]``
    :return: ``[...]``; the plain mean with fewer than four values
    """
    cut = values.shape[-1] // 4
    ordered = np.sort(values, axis=-1)
    return np.asarray(ordered[..., cut : values.shape[-1] - cut].mean(axis=-1))


def bootstrap(values: Sequence[float], statistic: Statistic = mean) -> Estimate:
    """
    Percentile bootstrap over runs, with a fixed random stream.

    :param values: one value per run, at least one
    :param statistic: what to estimate, over the last axis
    :return: the estimate
    """
    array = np.asarray(values, dtype=np.float64)
    value = float(statistic(array))
    if len(array) < 2:
        return Estimate(value, None, None)
    draws = np.random.default_rng(0).integers(len(array), size=(_RESAMPLES, len(array)))
    low, high = np.percentile(statistic(array[draws]), [2.5, 97.5])
    return Estimate(value, float(low), float(high))


def wilson(successes: int, trials: int) -> Estimate:
    """
    Share of successes with the interval of Wilson (1927), which stays inside [0, 1] and says something at 0 and 1 too.

    :param successes: number of successes, in [0, ``trials``]
    :param trials: independent trials, at least 1
    :return: the share with its 95 % interval
    """
    share, z2 = successes / trials, _NORMAL_975**2
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _NORMAL_975 * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2)) / (1 + z2 / trials)
    return Estimate(share, max(centre - half, 0.0), min(centre + half, 1.0))


def dead_starts(returns: Values) -> int:
    """
    Count starts from which a policy does nothing, which a mean over few episodes hides.

    :param returns: of the episodes of one evaluation ``[episodes]``
    :return: how many are below a tenth of their median; none where the median is not positive
    """
    return int((returns < 0.1 * np.median(returns)).sum()) if np.median(returns) > 0 else 0


def area_under_curve(rows: Sequence[ResultRow]) -> float:
    """
    Mean height of a learning curve, by the trapezoid rule.

    :param rows: evaluations of one run, frames ascending
    :return: in units of return; the only evaluation when there is one
    """
    if len(rows) == 1:
        return rows[0].episode_return
    frames = np.array([row.frames for row in rows], dtype=np.float64)
    returns = np.array([row.episode_return for row in rows])
    areas = 0.5 * (returns[1:] + returns[:-1]) * np.diff(frames)
    return float(areas.sum() / (frames[-1] - frames[0]))
