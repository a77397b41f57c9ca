"""
Summaries of a few runs, and how sure one can be of them.

Scores over many tasks are those of Agarwal et al. (2021, arXiv 2108.13264) and their package rliable. It is not used
itself: it wants the same number of seeds on every task, which a comparison that is going on does not have, and takes
ten seconds for the interval of one probability of improvement. A test compares the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, combinations

import numpy as np
from numpy.typing import NDArray

from difftori_gym.comparison.results import Group, Groups, Row, Runs

Values = NDArray[np.float64]
Tasks = Sequence[Values]  # scores of one method by task, each [runs]

_RESAMPLES = 2000
_NORMAL_975 = 1.959963984540054  # 97.5 % quantile of the standard normal


@dataclass(frozen=True)
class Estimate:
    """A statistic of some values, and the ends of its 95 % interval, None with fewer than two values."""

    value: float
    low: float | None
    high: float | None


def _mean(values: Values) -> Values:
    return np.asarray(values.mean(axis=-1))


def interquartile_mean(values: Values) -> Values:
    """Mean ``[...]`` of values ``[..., n]`` without the lowest and the highest quarter, rounded down."""
    cut = values.shape[-1] // 4
    return _mean(np.sort(values, axis=-1)[..., cut : values.shape[-1] - cut])


def bootstrap(values: Sequence[float], statistic: Callable[[Values], Values] = _mean) -> Estimate:
    """Percentile bootstrap over runs, with a fixed random stream; ``statistic`` is over the last axis."""
    return bootstrap_tasks([np.asarray(values, dtype=np.float64)], lambda draws: statistic(draws[0]))


def bootstrap_tasks(tasks: Tasks, statistic: Callable[[Tasks], Values]) -> Estimate:
    """
    The same where runs are drawn anew within each task; without interval where a task has one run only.

    :param statistic: of values ``[..., runs]`` by task, over their last axes
    """
    value = float(statistic(tasks))
    if min(len(task) for task in tasks) < 2:
        return Estimate(value, None, None)
    stream = np.random.default_rng(0)
    draws = [task[stream.integers(len(task), size=(_RESAMPLES, len(task)))] for task in tasks]
    low, high = np.percentile(statistic(draws), [2.5, 97.5])
    return Estimate(value, float(low), float(high))


def aggregate(tasks: Tasks) -> Estimate:
    """Interquartile mean over all runs of all tasks."""
    return bootstrap_tasks(tasks, lambda draws: interquartile_mean(np.concatenate(draws, axis=-1)))


def share_above(threshold: float, tasks: Tasks) -> Estimate:
    """Share of all runs with a score above a threshold: a point of the performance profile."""
    return bootstrap_tasks(tasks, lambda draws: (np.concatenate(draws, axis=-1) > threshold).mean(axis=-1))


def probability_of_improvement(one: Tasks, other: Tasks) -> Estimate:
    """Probability that a run of ``one`` is better than one of ``other`` on the same task; equal ones count half."""

    def statistic(draws: Tasks) -> Values:
        pairs = zip(draws[: len(one)], draws[len(one) :], strict=True)
        signs = [np.sign(x[..., :, None] - y[..., None, :]).mean(axis=(-2, -1)) for x, y in pairs]
        return np.asarray(0.5 + 0.5 * np.mean(signs, axis=0))

    return bootstrap_tasks([*one, *other], statistic)


def wilson(successes: int, trials: int) -> Estimate:
    """Share of successes with Wilson's interval (1927), which stays in [0, 1] and says something at 0 and 1 too."""
    share, z2 = successes / trials, _NORMAL_975**2
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _NORMAL_975 * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2)) / (1 + z2 / trials)
    return Estimate(share, max(centre - half, 0.0), min(centre + half, 1.0))


def pooled_success(last: Sequence[Row]) -> Estimate | None:
    """Share of successes in one evaluation of each seed, all episodes together; None when the task does not tell."""
    successes = [row.successes for row in last if row.successes is not None]
    if not last or len(successes) < len(last):
        return None
    return wilson(sum(successes), sum(row.episodes for row in last))


def dead_starts(returns: Values) -> int:
    """
    How many of the returns ``[episodes]`` of an evaluation are below a tenth of their median, none where that is not
    positive: starts from which a policy does nothing, which a mean over few episodes hides.
    """
    return int((returns < 0.1 * np.median(returns)).sum()) if np.median(returns) > 0 else 0


def area_under_curve(rows: Sequence[Row]) -> float:
    """Mean height of one run's learning curve in units of return, by the trapezoid rule."""
    if len(rows) == 1:
        return rows[0].episode_return
    amounts = np.array([row.amount for row in rows], dtype=np.float64)
    returns = np.array([row.episode_return for row in rows])
    areas = 0.5 * (returns[1:] + returns[:-1]) * np.diff(amounts)
    return float(areas.sum() / (amounts[-1] - amounts[0]))


@dataclass(frozen=True)
class Difference:
    """How much better one method is than another, over pairs of runs."""

    better: str  # label of a method
    other: str  # of the one that is subtracted from it
    unit: str  # "points of success", or "return" with the suite, as suites have scales of their own
    tasks: int
    pairs: int  # tasks and seeds
    gain: Estimate  # mean over pairs


def differences(groups: Groups) -> list[Difference]:
    """
    :param groups: evaluations by group, entry and seed
    :return: over all groups together. In imitation a method on a base policy against that base and every other method
        on it, and variants of one method against each other; in reinforcement learning every two methods
    """
    gains: dict[tuple[str, str, str], dict[Group, list[float]]] = {}
    for group, entries in groups.items():
        for one, other in combinations(entries.values(), 2):
            first, second = (next(iter(runs.values()))[-1] for runs in (one, other))
            unit = f"return in {group.suite}"
            if group.demos:
                shares_base = second.base in (first.method, first.base) if second.base else False
                if not shares_base and first.method != second.method:
                    continue
                if None not in (first.success, second.success):
                    unit = "points of success"
                # Of reinforcement learning the registry has our own methods first: those that gain come first.
                one, other, first, second = other, one, second, first
            if found := _paired(one, other):
                gains.setdefault((first.label, second.label, unit), {})[group] = found
    return [
        Difference(*key, len(by_group), sum(map(len, by_group.values())), bootstrap([*chain(*by_group.values())]))
        for key, by_group in gains.items()
    ]


def _paired(one: Runs, other: Runs) -> list[float]:
    """Differences by seed, at the last amount of training after which both were evaluated."""
    gains = []
    for seed in one.keys() & other.keys():
        mine, theirs = ({row.amount: row for row in runs[seed] if row.amount} for runs in (one, other))
        if shared := mine.keys() & theirs.keys():
            gains.append(mine[max(shared)].score - theirs[max(shared)].score)
    return gains
