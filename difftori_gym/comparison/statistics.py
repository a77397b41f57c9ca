"""Summaries of a few runs, and how sure one can be of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations

import numpy as np
from numpy.typing import NDArray

from difftori_gym.comparison.results import Group, Row, Runs

Groups = Mapping[Group, Mapping[str, Runs]]  # from results.group_rows
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


def interquartile_mean(values: Values) -> Values:
    """
    Mean of the middle half: the lowest and the highest quarter, rounded down, are left out.

    :param values: ``[..., n]``
    :return: ``[...]``; the plain mean with fewer than four values
    """
    cut = values.shape[-1] // 4
    ordered = np.sort(values, axis=-1)
    return np.asarray(ordered[..., cut : values.shape[-1] - cut].mean(axis=-1))


def bootstrap(values: Sequence[float], statistic: Statistic | None = None) -> Estimate:
    """
    Percentile bootstrap over runs, with a fixed random stream.

    :param values: one value per run, at least one
    :param statistic: what to estimate, over the last axis; None: the mean
    :return: the estimate
    """
    array = np.asarray(values, dtype=np.float64)
    statistic = statistic or (lambda samples: np.asarray(samples.mean(axis=-1)))
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


def pooled_success(last: Sequence[Row]) -> Estimate | None:
    """
    :param last: one evaluation of each seed
    :return: share of successful episodes of all seeds together, None when the task does not tell
    """
    successes = [row.successes for row in last if row.successes is not None]
    if not last or len(successes) < len(last):
        return None
    return wilson(sum(successes), sum(row.episodes for row in last))


def dead_starts(returns: Values) -> int:
    """
    Count starts from which a policy does nothing, which a mean over few episodes hides.

    :param returns: of the episodes of one evaluation ``[episodes]``
    :return: how many are below a tenth of their median; none where the median is not positive
    """
    return int((returns < 0.1 * np.median(returns)).sum()) if np.median(returns) > 0 else 0


def area_under_curve(rows: Sequence[Row]) -> float:
    """
    Mean height of a learning curve, by the trapezoid rule.

    :param rows: evaluations of one run, in the order of training
    :return: in units of return; the only evaluation when there is one
    """
    if len(rows) == 1:
        return rows[0].episode_return
    amounts = np.array([row.amount for row in rows], dtype=np.float64)
    returns = np.array([row.episode_return for row in rows])
    areas = 0.5 * (returns[1:] + returns[:-1]) * np.diff(amounts)
    return float(areas.sum() / (amounts[-1] - amounts[0]))


@dataclass(frozen=True)
class Difference:
    """
    :param better: label of a method
    :param other: label of the method that is subtracted from it
    :param unit: ``points of success``, or ``return`` with the suite, as suites have scales of their own
    :param tasks: on how many
    :param pairs: on how many tasks and seeds
    :param gain: mean over pairs with its bootstrap interval
    """

    better: str
    other: str
    unit: str
    tasks: int
    pairs: int
    gain: Estimate


def differences(groups: Groups) -> list[Difference]:
    """
    :param groups: evaluations by group, entry and seed
    :return: over all groups together. In imitation a method on a base policy against that base and every other method
        on it, and variants of one method against each other; in reinforcement learning every two methods
    """
    gains: dict[tuple[str, str, str], dict[Group, list[float]]] = {}
    for group, entries in groups.items():
        for (_, one), (_, other) in combinations(entries.items(), 2):
            first, second = _any(one), _any(other)
            if not _related(first, second):
                continue
            # Where the registry puts our own methods first, they are the ones that gain.
            better, worse = (one, other) if first.kind == "rl" else (other, one)
            if found := _paired(better, worse):
                key = (_any(better).label, _any(worse).label, _unit(first, second))
                gains.setdefault(key, {})[group] = found
    return [
        Difference(*key, len(by_group), sum(map(len, by_group.values())), bootstrap([*chain(*by_group.values())]))
        for key, by_group in gains.items()
    ]


def _any(runs: Runs) -> Row:
    return next(iter(runs.values()))[-1]


def _related(one: Row, other: Row) -> bool:
    if one.kind == "rl":
        return True
    return other.base == one.method or bool(other.base and other.base == one.base) or other.method == one.method


def _unit(one: Row, other: Row) -> str:
    told = one.kind == "imitation" and None not in (one.success, other.success)
    return "points of success" if told else f"return in {one.suite}"


def _paired(one: Runs, other: Runs) -> list[float]:
    """Differences by seed, at the last amount of training after which both were evaluated."""
    gains = []
    for seed in one.keys() & other.keys():
        mine, theirs = ({row.amount: row for row in runs[seed] if row.amount} for runs in (one, other))
        if shared := mine.keys() & theirs.keys():
            gains.append(mine[max(shared)].score - theirs[max(shared)].score)
    return gains
