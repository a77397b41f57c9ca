"""
Scores over many tasks, as Agarwal et al. (2021, arXiv 2108.13264) and their package rliable define them.

rliable itself is not used: it wants the same number of seeds on every task, which a comparison that is going on does
not have, and takes ten seconds for the interval of one probability of improvement. A test compares the numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from difftori_gym.comparison.statistics import Estimate, Values, interquartile_mean

_RESAMPLES = 2000
Tasks = Sequence[Values]  # normalised scores of one method by task, each ``[runs]``


def aggregate(tasks: Tasks) -> Estimate:
    """Interquartile mean over all runs of all tasks."""
    return _estimate(lambda draws: interquartile_mean(np.concatenate(draws, axis=-1)), tasks)


def probability_of_improvement(one: Tasks, other: Tasks) -> Estimate:
    """Probability that a run of ``one`` is better than one of ``other`` on the same task; equal ones count half."""

    def statistic(draws: Tasks) -> Values:
        pairs = zip(draws[: len(one)], draws[len(one) :], strict=True)
        signs = [np.sign(x[..., :, None] - y[..., None, :]).mean(axis=(-2, -1)) for x, y in pairs]
        return np.asarray(0.5 + 0.5 * np.mean(signs, axis=0))

    return _estimate(statistic, [*one, *other])


def share_above(threshold: float, tasks: Tasks) -> Estimate:
    """Share of all runs with a score above a threshold: a point of the performance profile."""
    return _estimate(lambda draws: (np.concatenate(draws, axis=-1) > threshold).mean(axis=-1), tasks)


def _estimate(statistic: Callable[[Tasks], Values], tasks: Tasks) -> Estimate:
    """
    Percentile bootstrap, runs drawn anew within each task; without interval where a task has one run only.

    :param statistic: of scores ``[..., runs]`` by task, over their last axes
    :param tasks: the scores themselves
    """
    value = float(statistic(tasks))
    if min(len(task) for task in tasks) < 2:
        return Estimate(value, None, None)
    stream = np.random.default_rng(0)
    draws = [task[stream.integers(len(task), size=(_RESAMPLES, len(task)))] for task in tasks]
    low, high = np.percentile(statistic(draws), [2.5, 97.5])
    return Estimate(value, float(low), float(high))
