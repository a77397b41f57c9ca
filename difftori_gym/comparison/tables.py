"""The newest evaluations of a task, a line an entry, as the report and the page show them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import mean, median, stdev

from difftori_gym.comparison.records import Results
from difftori_gym.comparison.results import Group, Row
from difftori_gym.comparison.statistics import Estimate, area_under_curve, bootstrap, interquartile_mean, pooled_success


def interval(estimate: Estimate | None, scale: float = 1.0, form: str = ".1f") -> str:
    """The statistic and its interval, times ``scale``."""
    if estimate is None:
        return "-"
    value, low, high = (
        None if each is None else format(scale * each, form) for each in (estimate.value, estimate.low, estimate.high)
    )
    return f"{value or '-'}" if low is None else f"{value} [{low}, {high}]"


def _amounts(last: Sequence[Row]) -> str:
    amounts = sorted({row.amount for row in last})
    return str(amounts[0]) if len(amounts) == 1 else f"{amounts[0]} to {amounts[-1]}"


def _mean_success(last: Sequence[Row]) -> str:
    shares = [100 * row.success for row in last if row.success is not None]
    spread = f" ± {stdev(shares):.1f}" if len(shares) > 1 else ""
    return f"{mean(shares):.1f}{spread}" if shares else "-"


def _per_second(last: Sequence[Row]) -> str:
    rates = [row.score / row.cpu_s for row in last if row.cpu_s]
    return f"{mean(rates):.3g}" if rates else "-"


def _median(values: Sequence[float | None]) -> str:
    told = [value for value in values if value is not None]
    return f"{median(told):.2f}" if told else "-"


# Of each column, its cell for the newest evaluations of the seeds of an entry.
_COLUMNS: dict[str, Callable[[Sequence[Row]], str]] = {
    "method": lambda last: last[0].label,
    "seeds": lambda last: str(len(last)),
    "frames": _amounts,
    "gradient steps": _amounts,
    "episodes": lambda last: str(sum(row.episodes for row in last)),
    "success %, pooled": lambda last: interval(pooled_success(last), 100.0),
    "success %, mean over seeds": _mean_success,
    "final return": lambda last: interval(bootstrap([row.episode_return for row in last])),
    "IQM of final return": lambda last: interval(bootstrap([row.episode_return for row in last], interquartile_mean)),
    "wall-clock s": lambda last: f"{mean(row.wall_s for row in last):.0f}",
    "processor s": lambda last: f"{mean(row.cpu_s for row in last):.0f}",
    "score per processor s": _per_second,
    "plan ms": lambda last: _median([row.plan_ms for row in last]),
    "actions per plan": lambda last: str(last[0].n_action_steps),
}
_COMMON = ("wall-clock s", "processor s", "plan ms")
_RL = ("method", "seeds", "frames", "final return", "IQM of final return", "area under curve", "success %, pooled",
       *_COMMON, "update ms")  # fmt: skip
_IMITATION = ("method", "seeds", "episodes", "success %, pooled", "success %, mean over seeds", "final return",
              "gradient steps", *_COMMON, "actions per plan")  # fmt: skip


def newest_scores(results: Results, group: Group, more: Sequence[str] = ()) -> dict[str, dict[str, str]]:
    """
    :param results: what is shown
    :param group: a task of them
    :param more: further columns: ``seeds done``, ``score per processor s``
    :return: cells by entry and column
    """
    lines = {}
    for entry, runs in results.groups[group].items():
        last = [run[-1] for run in runs.values()]
        cells = {name: cell(last) for name, cell in _COLUMNS.items()}
        cells["area under curve"] = interval(bootstrap([area_under_curve(run) for run in runs.values()]))
        records = [results.by_key.get((group, entry, seed)) for seed in runs]
        done = sum(record is None or record.state == "done" for record in records)
        cells["seeds done"] = f"{done} of {len(runs)}"
        if not group.demos:  # measured when a run is over
            over = [record.finished for record in records if record and record.finished]
            cells["plan ms"] = _median([each.plan_ms for each in over])
            cells["update ms"] = _median([each.update_ms for each in over])
        lines[entry] = {name: cells[name] for name in (*(_IMITATION if group.demos else _RL), *more)}
    return lines
