"""The report of a comparison, in Markdown."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from statistics import mean, median, stdev
from typing import Any

from difftori_gym.comparison.files import write_text
from difftori_gym.comparison.provenance import describe_machine, package_versions
from difftori_gym.comparison.records import Results
from difftori_gym.comparison.results import Group, Groups, Row
from difftori_gym.comparison.statistics import (
    Difference,
    Estimate,
    area_under_curve,
    bootstrap,
    differences,
    interquartile_mean,
    pooled_success,
)
from difftori_gym.data.published import (
    METAWORLD_MEAN,
    OUR_ENTRY,
    PublishedSuccess,
    published_curves,
    published_successes,
)
from difftori_gym.envs import task_action_repeat

_READING_RL = (
    "Reinforcement learning. Each evaluation is the mean over {} episodes of a separate environment, from starts "
    "that depend on the seed of the run only, with the deterministic policy. Brackets are 95 % bootstrap intervals "
    "over seeds. Final return: the last evaluation. IQM: mean of the middle half. Area under curve: mean return "
    "over all frames of training. Success, pooled: over the episodes of all seeds, with Wilson's 95 % interval. "
    "Wall-clock and processor: seconds of training, without evaluations, checkpoints and films. Plan: median time "
    "of `predict` for one observation. Update: median time of a gradient update, means of ten; empty for on-policy "
    "methods. Both are measured after training, while the other runs go on, in processor time on a CPU. Frames are "
    "environment frames: agent steps times action repeat."
)
_READING_IMITATION = (
    "Imitation. All methods learn from the same demonstrations and are evaluated from the same starts, which depend "
    "on the seed of the run only and are none of the demonstrations'. Policies act {}. Pooled: successes over the "
    "episodes of all seeds, with Wilson's 95 % interval, which does not know that networks of one seed share their "
    "weights. Mean over seeds: with the standard deviation between seeds. Return: brackets are 95 % bootstrap "
    "intervals over seeds. A base policy is trained once per seed, and its own line holds the time of its training. "
    "Wall-clock and processor: seconds of the gradient steps, without evaluations and checkpoints. Plan: median "
    "time of a new plan for one observation, of processor time on a CPU, what a base policy needs included; a plan "
    "serves as many steps as it has executed actions."
)
_DIFFERENCES = (
    "Each pair is one task and seed, evaluated from the same starts after the same amount of training. Brackets are "
    "95 % bootstrap intervals over pairs."
)
_RECORDS = (
    "Settings of each run and the command that repeats it: `runs/*/run.json`; versions, commit and machine: "
    "`runs/*/sessions.json`. Training logs: `runs/*/log-*/progress.csv`. All evaluations: `results.csv`."
)


def write_report(results: Results) -> None:
    """Write ``out/report.md``."""
    groups = results.groups
    parts = ["# Comparison"]
    parts += [_block("\n".join(results.commands))] if results.commands else []
    for name, what in (("curves.png", "learning curves"), ("success.png", "success rates")):
        parts += [f"![{what}]({name})"] if (results.out / name).exists() else []
    for group, entries in groups.items():
        parts += _task_section(results, group)
        if len(groups) > 1:
            parts += _differences_table(differences({group: entries}))
    parts += _overall_section(groups)
    if lines := _differences_table(differences(groups)):
        parts += ["## Differences", *lines, _DIFFERENCES]
    parts.append("## How to read this")
    if learned := results.runs(kind="rl"):
        parts.append(_READING_RL.format(_told(run.eval_episodes for run in learned)))
    if imitated := results.runs(kind="imitation"):
        how = {True: "with latents, noise and modes drawn", False: "deterministic"}
        parts.append(
            _READING_IMITATION.format(" or ".join(how[drawn] for drawn in sorted({run.sample for run in imitated})))
        )
    parts.append(_RECORDS)
    died = [record for record in results.records if record.state == "died"]
    parts += ["## Runs that died"] if died else []
    for record in died:
        parts += [f"### {record.name}", _block(record.traceback.strip())]
    parts += _films(results)
    versions = ", ".join(f"{name} {version}" for name, version in package_versions().items())
    parts += ["## Machine", f"{describe_machine()}; {results.jobs} runs side by side, one thread each.", versions + "."]
    write_text(results.out / "report.md", "\n\n".join(parts) + "\n")


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


def _block(text: str) -> str:
    return f"```\n{text}\n```"


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, ["---"] * len(header), *lines))


def _told(values: Iterable[Any]) -> str:
    """Different ones, in order."""
    return ", ".join(map(str, sorted(set(values))))


def _task_section(results: Results, group: Group) -> list[str]:
    lines = list(newest_scores(results, group).values())
    parts = [f"## {group.title}", _table(list(lines[0]), [list(line.values()) for line in lines])]
    if group.demos:
        return parts + (_published_successes(results, group) if results.published else [])
    runs = results.runs(group)
    if changed := _told(f"`{json.dumps(kwargs)}`" for run in runs if (kwargs := run.env_kwargs.get("obs_kwargs"))):
        parts += [f"Observations differ from the task's preset: {changed}."]
    preset = task_action_repeat(runs[0].task_id) if runs else 1
    if repeats := _told(run.action_repeat for run in runs if run.action_repeat != preset):
        parts += [f"Action repeat differs from the task's preset: {repeats}."]
    return parts + (_published_returns(results, group) if results.published else [])


def _published_returns(results: Results, group: Group) -> list[str]:
    frames = max(run[-1].frames for runs in results.groups[group].values() for run in runs.values())
    quotes = []
    for curve in published_curves(*group[:3]):
        if curve.within(frames):
            at = int((curve.frames <= frames).nonzero()[0][-1])
            value = f"{curve.mean[at]:.1f}"
            quotes.append([curve.method, str(curve.num_seeds), str(int(curve.frames[at])), value, curve.source])
    if not quotes:
        return []
    told = "Published by others, at their last evaluation within these frames:"
    return [told, _table(("method", "seeds", "frames", "return", "source"), quotes)]


def _published_successes(results: Results, group: Group) -> list[str]:
    quotes = published_successes(*group[:2])
    if not quotes:
        return []
    lines = []
    for quote in quotes:
        runs = results.groups[group].get(OUR_ENTRY.get(quote.method, ""), {})
        ours = interval(pooled_success([run[-1] for run in runs.values()]), 100.0)
        theirs = [quote.method, f"{100 * quote.success:.0f}", f"{100 * quote.std:.0f}"]
        lines.append([*theirs, ours, quote.benchmark, quote.source])
    return [
        "Published by others, under another protocol (below), beside ours:",
        _table(("method", "published %", "std", "ours %, pooled", "benchmark", "source"), lines),
        _protocols(results, group, quotes),
    ]


def _protocols(results: Results, group: Group, quotes: Sequence[PublishedSuccess]) -> str:
    runs = results.runs(group)
    lengths = _told(str(run.env_kwargs.get("max_episode_steps", "the environment's own")) for run in runs)
    theirs = "; ".join(sorted({f"{quote.benchmark}: {quote.protocol}" for quote in quotes}))
    metaworld = group.suite == "metaworld"
    return (
        f"Protocols. Published, {theirs}. Ours: {'v3 tasks, ' if metaworld else ''}{group.obs}, {group.demos} "
        f"demonstrations, {_told(str(run.amount) for run in runs)} gradient steps, networks of size "
        f"`{_told(run.size for run in runs)}`, episodes of {lengths} steps, "
        f"{_told(str(run.eval_episodes) for run in runs)} episodes per seed, weights of the last step. The two cannot "
        f"be subtracted from each other.{f' {METAWORLD_MEAN}' if metaworld else ''}"
    )


def _overall_section(groups: Groups) -> list[str]:
    """Means over tasks whose scores share one scale: returns of dm_control, per cent of success."""
    parts = []
    for imitates, title in ((False, "All dm_control tasks together"), (True, "All tasks together")):
        rows: dict[str, list[Row]] = {}
        for group, entries in groups.items():
            for entry, runs in entries.items():
                last = [run[-1] for run in runs.values()]
                shared = pooled_success(last) is not None if imitates else group.suite == "dm_control"
                if shared and bool(group.demos) == imitates:
                    rows.setdefault(entry, []).extend(last)
        if len({row.group for of_entry in rows.values() for row in of_entry}) < 2:
            continue
        lines = []
        for of_entry in rows.values():
            scores, on = [row.score for row in of_entry], len({row.group for row in of_entry})
            estimate = bootstrap(scores) if imitates else bootstrap(scores, interquartile_mean)
            lines.append([of_entry[0].label, str(on), str(len(of_entry)), interval(estimate)])
        what = "success %" if imitates else "IQM of final return"
        parts += [f"## {title}", _table(("method", "tasks", "runs", what), lines)]
    return parts


def _differences_table(found: Sequence[Difference]) -> list[str]:
    lines = [[it.better, it.other, str(it.tasks), str(it.pairs), interval(it.gain), it.unit] for it in found]
    return [_table(("method", "minus", "tasks", "pairs", "difference", "in"), lines)] if lines else []


def _films(results: Results) -> list[str]:
    lines = []
    reasons: dict[str, list[str]] = {}
    for record in sorted(results.records, key=lambda record: record.name):
        if record.film:
            lines.append(f"- [{record.name}]({record.film})")
        elif record.finished is not None and record.finished.film_error is not None:
            reasons.setdefault(record.finished.film_error, []).append(record.name)
    lines += [f"- no film of {', '.join(names)}: {reason}" for reason, names in reasons.items()]
    return ["## Films of the final policies", "\n".join(lines)] if lines else []
