"""The numbers that the page draws, as plain lists and dictionaries: what its script reads is json."""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from difftori_gym.comparison.records import Key
from difftori_gym.comparison.results import Group, Groups, Row, Runs, by_amount, group_rows
from difftori_gym.comparison.statistics import (
    Estimate,
    Tasks,
    Values,
    aggregate,
    bootstrap,
    probability_of_improvement,
    share_above,
)
from difftori_gym.comparison.statistics import differences as paired
from difftori_gym.data.published import published_curves, published_successes

Json = dict[str, Any]

_THRESHOLDS = np.linspace(0.0, 1.0, 41)
_TIMES = 25


def score_name(rows: Sequence[Row]) -> str:
    """What the scores of one task's evaluations measure."""
    return "success %" if all(row.kind == "imitation" and row.successes is not None for row in rows) else "return"


def rows_of(entries: Mapping[str, Runs]) -> list[Row]:
    """All evaluations of a task."""
    return [row for seeds in entries.values() for run in seeds.values() for row in run]


def panels(groups: Groups, *, published: bool) -> list[Json]:
    """Learning curves, a panel per task."""
    return [
        {
            "title": group.title,
            "unit": "gradient steps" if group.demos else "environment frames",
            "score": score_name(rows_of(entries)),
            "curves": {entry: _curve(runs) for entry, runs in entries.items()},
            "published": _published(group, rows_of(entries)) if published else [],
        }
        for group, entries in groups.items()
    ]


def _curve(runs: Runs) -> Json:
    """Mean over seeds at each amount with its interval, and mean seconds until then."""
    points = by_amount(runs)
    return {
        "amount": list(points),
        "wall": [_short(np.mean([row.wall_s for row in point])) for point in points.values()],
        "cpu": [_short(np.mean([row.cpu_s for row in point])) for point in points.values()],
        "score": [estimate(_bootstrap(tuple(row.score for row in point))) for point in points.values()],
        "seeds": [len(point) for point in points.values()],
    }


def _published(group: Group, rows: Sequence[Row]) -> list[Json]:
    last = max(row.amount for row in rows)
    lines = []
    for curve in published_curves(*group[:3]) if not group.demos else []:
        if curve.within(last):
            shown = curve.frames <= last
            x, y = curve.frames[shown].tolist(), [_short(mean) for mean in curve.mean[shown]]
            lines.append(dict(name=f"{curve.method}, {curve.num_seeds} seeds", source=curve.source, x=x, y=y))
    for each in published_successes(*group[:2]) if score_name(rows) == "success %" else []:
        source = f"{each.source}; {each.benchmark}, {each.protocol}: another protocol than ours"
        lines.append(dict(name=each.method, source=source, x=[0, last], y=[_short(100.0 * each.success)] * 2))
    return lines


def differences(groups: Groups, labels: Mapping[str, str]) -> list[Json]:
    """Of each task, then over all, where ``task`` is None: see :func:`.statistics.differences`."""
    entries = {label: entry for entry, label in labels.items()}
    found = [(group.title, each) for group in groups for each in paired({group: groups[group]})]
    over_all = [(None, each) for each in paired(groups) if each.tasks > 1]
    return [
        {
            "task": task,
            "one": entries[each.better],
            "other": entries[each.other],
            "unit": each.unit,
            "pairs": each.pairs,
            "gain": estimate(each.gain),
        }
        for task, each in [*found, *over_all]
    ]


def overall(groups: Groups, unfinished: Collection[Key]) -> list[Json]:
    """
    Aggregate scores of either kind of learning, over tasks whose scores have one scale.

    Only the tasks and seeds count of which every method has a run that is done. A method that would leave fewer than
    two tasks is left out, those with the fewest runs first.
    """
    found = []
    for imitates in (False, True):
        runs: dict[str, dict[tuple[Group, int], list[Row]]] = {}
        for group, entries in groups.items():
            if bool(group.demos) == imitates and all(_normalised(row) is not None for row in rows_of(entries)):
                for entry, seeds in entries.items():
                    done = {(group, seed): run for seed, run in seeds.items() if (group, entry, seed) not in unfinished}
                    runs.setdefault(entry, {}).update(done)
        while runs:
            common = set.intersection(*(set(keys) for keys in runs.values()))
            if len({group for group, _ in common}) > 1:
                rows = (row for keys in runs.values() for key, run in keys.items() if key in common for row in run)
                found.append(_overall("imitation" if imitates else "reinforcement learning", tuple(rows)))
                break
            del runs[min(runs, key=lambda entry: (len(runs[entry]), entry))]
    return found


def _normalised(row: Row) -> float | None:
    """Success, else the return of a dm_control task as a share of its thousand; None for other returns."""
    if row.success is not None:
        return row.success
    return row.episode_return / 1000.0 if row.suite == "dm_control" else None


@functools.lru_cache(maxsize=4)  # runs that are done do not change, so that most writings find nothing new
def _overall(kind: str, rows: tuple[Row, ...]) -> Json:
    groups = group_rows(rows)
    seconds = np.linspace(0.0, max(row.cpu_s for row in rows), _TIMES)
    runs: dict[str, list[list[list[Row]]]] = {}  # by entry, task and seed
    for entries in groups.values():
        for entry, seeds in entries.items():
            runs.setdefault(entry, []).append(list(seeds.values()))
    final: dict[str, Tasks] = {
        entry: [np.array([_normalised(run[-1]) for run in task]) for task in tasks] for entry, tasks in runs.items()
    }
    methods = {}
    for entry, tasks in runs.items():
        reached = [np.stack([_reached(run, seconds) for run in task]) for task in tasks]
        hours = sum(run[-1].cpu_s for task in tasks for run in task) / 3600.0
        methods[entry] = {
            "runs": sum(map(len, tasks)),
            "iqm": estimate(aggregate(final[entry])),
            "profile": [estimate(share_above(at, final[entry])) for at in _THRESHOLDS],
            "reached": [estimate(aggregate([task[:, at] for task in reached])) for at in range(_TIMES)],
            "per_hour": _short(sum(scores.sum() for scores in final[entry]) / hours) if hours else None,
        }
    return {
        "kind": kind,
        "tasks": [group.title for group in groups],
        "methods": methods,
        "better": {
            one: {each: estimate(probability_of_improvement(final[one], final[each])) for each in final if each != one}
            for one in final
        },
        "thresholds": [_short(at) for at in _THRESHOLDS],
        "seconds": [_short(at) for at in seconds],
    }


def _reached(run: Sequence[Row], seconds: Values) -> Values:
    """The newest score of a run at each time, the first one before there is any."""
    newest = np.searchsorted([row.cpu_s for row in run], seconds, side="right") - 1
    return np.array([_normalised(run[at]) for at in np.maximum(newest, 0)])


_bootstrap = functools.lru_cache(maxsize=None)(bootstrap)


def estimate(value: Estimate) -> list[float | None]:
    """Value and ends of its interval."""
    return [_short(value.value), _short(value.low), _short(value.high)]


def _short(value: Any) -> float | None:
    """Five digits of a number, None for none and for what json does not have."""
    return float(f"{value:.5g}") if value is not None and math.isfinite(value) else None
