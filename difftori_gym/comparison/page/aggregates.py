"""
Scores over many tasks, as Agarwal et al. (2021, arXiv 2108.13264) and their package rliable define them.

rliable itself is not used: it wants the same number of seeds on every task, which a comparison that is going on does
not have, and takes minutes for the intervals of probabilities of improvement. A test compares the numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from difftori_gym.comparison.statistics import Estimate, Values, interquartile_mean

_RESAMPLES = 2000
Tasks = Sequence[Values]  # scores of one method by task, each ``[runs of the task]`` or ``[runs of the task, points]``


def aggregate(tasks: Tasks) -> Estimate:
    """
    :param tasks: normalised scores ``[runs]`` by task
    :return: interquartile mean over all runs of all tasks
    """
    return _estimate(lambda draws: interquartile_mean(np.concatenate(draws, axis=-1)), tasks)


def probability_of_improvement(one: Tasks, other: Tasks) -> Estimate:
    """
    :param one: normalised scores ``[runs]`` by task
    :param other: another method's on the same tasks
    :return: probability that a run of ``one`` is better than one of ``other`` on the same task; equal ones count half
    """

    def statistic(draws: Sequence[Values]) -> Values:
        shares = []
        for x, y in zip(draws[: len(one)], draws[len(one) :], strict=True):
            x, y = x[..., :, None], y[..., None, :]
            shares.append(((x > y) + 0.5 * (x == y)).mean(axis=(-2, -1)))
        return np.asarray(np.mean(shares, axis=0))

    return _estimate(statistic, [*one, *other])


def performance_profile(tasks: Tasks, thresholds: Values) -> list[Estimate]:
    """
    :param tasks: normalised scores ``[runs]`` by task
    :param thresholds: ``[T]``
    :return: share of all runs with a score above each threshold
    """
    return [
        _estimate(lambda draws, at=at: (np.concatenate(draws, axis=-1) > at).mean(axis=-1), tasks)  # type: ignore[misc]
        for at in thresholds
    ]


def scores_at(seconds: Values, times: Values, scores: Values) -> Values:
    """
    :param seconds: where to look ``[T]``
    :param times: of one run's evaluations, ascending ``[N]``
    :param scores: theirs ``[N]``
    :return: the newest score at each of ``seconds``; the first one before there is any
    """
    return np.asarray(scores[np.maximum(np.searchsorted(times, seconds, side="right") - 1, 0)])


def _estimate(statistic: Callable[[Sequence[Values]], Values], tasks: Tasks) -> Estimate:
    """
    Percentile bootstrap, runs drawn anew within each task; without interval where a task has one run only.

    :param statistic: of scores ``[..., runs]`` by task, over their last axes
    :param tasks: the scores themselves
    """
    value = float(statistic(tasks))
    if min(len(task) for task in tasks) < 2:
        return Estimate(value, None, None)
    stream = np.random.default_rng(0)
    draws: list[NDArray[np.float64]] = [
        task[stream.integers(len(task), size=(_RESAMPLES, len(task)))] for task in tasks
    ]
    low, high = np.percentile(statistic(draws), [2.5, 97.5])
    return Estimate(value, float(low), float(high))
