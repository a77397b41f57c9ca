"""The numbers that the page draws, as plain lists and dictionaries: what its script reads is json."""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from difftori_gym.comparison.page.aggregates import (
    aggregate,
    performance_profile,
    probability_of_improvement,
    scores_at,
)
from difftori_gym.comparison.page.records import Key
from difftori_gym.comparison.published import published_curves, published_successes
from difftori_gym.comparison.results import Group, Row, Runs, group_rows
from difftori_gym.comparison.statistics import Estimate, Values, bootstrap
from difftori_gym.comparison.statistics import differences as paired

Json = dict[str, Any]
Grouped = dict[Group, dict[str, Runs]]

_THRESHOLDS = np.linspace(0.0, 1.0, 41)
_TIMES = 25


def title(group: Group) -> str:
    """
    :param group: suite, task, obs, demonstrations
    :return: how it is headed
    """
    suite, task, obs, demos = group
    return f"{suite}/{task} ({obs}{f', {demos} demonstrations' if demos else ''})"


def score_name(rows: Iterable[Row]) -> str:
    """
    :param rows: evaluations of one task
    :return: what their scores measure
    """
    return "success %" if all(row.kind == "imitation" and row.successes is not None for row in rows) else "return"


def rows_of(entries: dict[str, Runs]) -> list[Row]:
    """
    :param entries: runs by entry and seed
    :return: all their evaluations
    """
    return [row for seeds in entries.values() for run in seeds.values() for row in run]


def without(grouped: Grouped, keys: Collection[Key]) -> Grouped:
    """
    :param grouped: runs by group, entry and seed
    :param keys: runs to leave out
    :return: the others
    """
    left = [
        row for entries in grouped.values() for row in rows_of(entries) if (row.group, row.entry, row.seed) not in keys
    ]
    return group_rows(left)


def panels(grouped: Grouped, *, published: bool) -> list[Json]:
    """
    :param grouped: runs by group, entry and seed
    :param published: whether to quote what others published
    :return: a panel of learning curves per task
    """
    return [
        {
            "title": title(group),
            "unit": "environment frames" if rows_of(entries)[0].unit == "frames" else "gradient steps",
            "score": score_name(rows_of(entries)),
            "curves": {entry: _curve(runs) for entry, runs in entries.items()},
            "published": _published(group, rows_of(entries)) if published else [],
        }
        for group, entries in grouped.items()
    ]


def _curve(runs: Runs) -> Json:
    """:return: mean over seeds at each amount with its interval, and mean seconds until then"""
    by_amount: dict[int, list[Row]] = {}
    for run in runs.values():
        for row in run:
            by_amount.setdefault(row.amount, []).append(row)
    points = [by_amount[amount] for amount in sorted(by_amount)]
    return {
        "amount": sorted(by_amount),
        "wall": [_short(np.mean([row.wall_s for row in point])) for point in points],
        "cpu": [_short(np.mean([row.cpu_s for row in point])) for point in points],
        "score": [estimate(_bootstrap(tuple(row.score for row in point))) for point in points],
        "seeds": [len(point) for point in points],
    }


def _published(group: Group, rows: Sequence[Row]) -> list[Json]:
    suite, task, obs, demos = group
    last = max(row.amount for row in rows)
    if not demos:
        curves = [curve for curve in published_curves(suite, task, obs) if curve.within(last)]
        return [
            {
                "name": f"{curve.method}, {curve.num_seeds} seeds",
                "source": curve.source,
                "x": [int(at) for at in curve.frames if at <= last],
                "y": [_short(y) for at, y in zip(curve.frames, curve.mean, strict=True) if at <= last],
            }
            for curve in curves
        ]
    if score_name(rows) != "success %":
        return []
    return [
        {
            "name": each.method,
            "source": f"{each.source}; {each.benchmark}, {each.protocol}: another protocol than ours",
            "x": [0, last],
            "y": [_short(100.0 * each.success)] * 2,
        }
        for each in published_successes(suite, task)
    ]


def differences(grouped: Grouped, labels: Mapping[str, str]) -> list[Json]:
    """
    :param grouped: runs by group, entry and seed
    :param labels: of entries
    :return: see :func:`difftori_gym.comparison.statistics.differences`; of each task, then over all, ``task`` is None
    """
    entries = {label: entry for entry, label in labels.items()}
    found = [(title(group), each) for group in grouped for each in paired({group: grouped[group]})]
    return [
        {
            "task": task,
            "one": entries[each.better],
            "other": entries[each.other],
            "unit": each.unit,
            "pairs": each.pairs,
            "gain": estimate(each.gain),
        }
        for task, each in [*found, *((None, each) for each in paired(grouped) if each.tasks > 1)]
    ]


def overall(grouped: Grouped) -> list[Json]:
    """
    Aggregate scores over the tasks that all methods have, for each kind of score that has one scale on all tasks. A
    method that would leave fewer than two tasks is left out, those with the fewest tasks first.

    :param grouped: runs that are done, by group, entry and seed
    """
    return [_overall(kind, rows) for kind in ("rl", "imitation") for rows in (_scaled(grouped, kind),) if rows]


def _scaled(grouped: Grouped, kind: str) -> tuple[Row, ...]:
    """:return: all evaluations of a kind in tasks whose scores have one scale, none if fewer than two tasks are left"""
    tasks = {group: entries for group, entries in grouped.items() if _has_scale(entries, kind)}
    names = {entry for entries in tasks.values() for entry in entries}
    while names:
        common = {group: entries for group, entries in tasks.items() if names <= entries.keys()}
        if len(common) > 1:
            return tuple(row for entries in common.values() for row in rows_of(entries) if row.entry in names)
        names.remove(min(names, key=lambda name: (sum(name in entries for entries in tasks.values()), name)))
    return ()


def _has_scale(entries: dict[str, Runs], kind: str) -> bool:
    return all(row.kind == kind and _normalised(row) is not None for row in rows_of(entries))


def _normalised(row: Row) -> float | None:
    """:return: success, else the return of a dm_control task as a share of its thousand; None for other returns"""
    if row.success is not None:
        return row.success
    return row.episode_return / 1000.0 if row.suite == "dm_control" else None


@functools.lru_cache(maxsize=4)  # only runs that are done count, so that most writings find nothing new
def _overall(kind: str, rows: tuple[Row, ...]) -> Json:
    grouped = group_rows(rows)
    runs: dict[str, list[list[list[Row]]]] = {}  # by entry, task and run
    for entries in grouped.values():
        for entry, seeds in entries.items():
            runs.setdefault(entry, []).append(list(seeds.values()))
    final = {
        entry: [np.array([_normalised(run[-1]) for run in task]) for task in tasks] for entry, tasks in runs.items()
    }
    seconds = np.linspace(0.0, max(row.cpu_s for row in rows), _TIMES)
    methods = {}
    for entry, tasks in runs.items():
        reached = [np.stack([_reached(run, seconds) for run in task]) for task in tasks]
        last = [run[-1] for task in tasks for run in task]
        methods[entry] = {
            "runs": len(last),
            "iqm": estimate(aggregate(final[entry])),
            "profile": [estimate(each) for each in performance_profile(final[entry], _THRESHOLDS)],
            "reached": [estimate(aggregate([task[:, at] for task in reached])) for at in range(_TIMES)],
            "per_hour": _short(3600 * sum(map(_normalised, last)) / max(sum(row.cpu_s for row in last), 1e-9)),  # type: ignore[arg-type]
        }
    better = {
        one: {other: estimate(probability_of_improvement(final[one], final[other])) for other in final if other != one}
        for one in final
    }
    return {
        "kind": "reinforcement learning" if kind == "rl" else "imitation",
        "tasks": [title(group) for group in grouped],
        "methods": methods,
        "better": better,
        "thresholds": [_short(at) for at in _THRESHOLDS],
        "seconds": [_short(at) for at in seconds],
    }


def _reached(run: Sequence[Row], seconds: Values) -> Values:
    return scores_at(seconds, np.array([row.cpu_s for row in run]), np.array([_normalised(row) for row in run]))


_bootstrap = functools.lru_cache(maxsize=None)(bootstrap)


def estimate(value: Estimate) -> list[float | None]:
    """
    :param value: a statistic
    :return: value and ends of its interval, short for json
    """
    return [_short(value.value), _short(value.low), _short(value.high)]


def _short(value: Any) -> float | None:
    """:return: five digits of a number, None for none and for what json does not have"""
    return float(f"{value:.5g}") if value is not None and math.isfinite(value) else None
