"""The report of a comparison, in Markdown."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median, stdev

from difftori_gym.comparison.files import write_text
from difftori_gym.comparison.provenance import describe_machine, package_versions
from difftori_gym.comparison.published import (
    METAWORLD_MEAN,
    OUR_ENTRY,
    PublishedSuccess,
    published_curves,
    published_successes,
)
from difftori_gym.comparison.report_texts import DIFFERENCES, READING_IMITATION, READING_RL, RECORDS
from difftori_gym.comparison.results import Group, Row, Runs, group_rows
from difftori_gym.comparison.run_record import Run
from difftori_gym.comparison.runner import Failure
from difftori_gym.comparison.statistics import (
    Difference,
    Estimate,
    Groups,
    area_under_curve,
    bootstrap,
    differences,
    interquartile_mean,
    pooled_success,
)
from difftori_gym.comparison.training import film_path, read_finished
from difftori_gym.envs import task_action_repeat


@dataclass(frozen=True)
class ReportInputs:
    """
    What a report is made from.

    :param out: folder of the results
    :param rows: all evaluations
    :param runs: all runs in the folder, by name
    :param failures: runs that died
    :param commands: command lines that made the results
    :param jobs: processes side by side
    :param published: whether to quote published results
    """

    out: Path
    rows: Sequence[Row]
    runs: Mapping[str, Run]
    failures: Sequence[Failure]
    commands: Sequence[str]
    jobs: int
    published: bool


def write_report(inputs: ReportInputs) -> None:
    """Write ``out/report.md``."""
    groups = group_rows(inputs.rows)
    parts = ["# Comparison"]
    parts += ["```\n" + "\n".join(inputs.commands) + "\n```"] if inputs.commands else []
    for name, what in (("curves.png", "learning curves"), ("success.png", "success rates")):
        parts += [f"![{what}]({name})"] if (inputs.out / name).exists() else []
    for group, entries in groups.items():
        parts += _task_section(inputs, group, entries)
        if len(groups) > 1:
            parts += _differences_table(differences({group: entries}))
    parts += _overall_section(groups)
    if lines := _differences_table(differences(groups)):
        parts += ["## Differences", *lines, DIFFERENCES]
    parts += _reading(inputs)
    parts += ["## Runs that died"] if inputs.failures else []
    for failure in inputs.failures:
        parts += [f"### {failure.name}", f"```\n{failure.traceback.strip()}\n```"]
    parts += _films(inputs)
    versions = ", ".join(f"{name} {version}" for name, version in package_versions().items())
    parts += ["## Machine", f"{describe_machine()}; {inputs.jobs} runs side by side, one thread each.", versions + "."]
    write_text(inputs.out / "report.md", "\n\n".join(parts) + "\n")


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """:return: Markdown table"""
    rule = ["---"] * len(header)
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, rule, *lines))


def interval(estimate: Estimate | None, scale: float = 1.0) -> str:
    """:return: the statistic and its interval, times ``scale``"""
    if estimate is None:
        return "-"
    if estimate.low is None or estimate.high is None:
        return f"{scale * estimate.value:.1f}"
    return f"{scale * estimate.value:.1f} [{scale * estimate.low:.1f}, {scale * estimate.high:.1f}]"


def _amounts(last: Sequence[Row]) -> str:
    amounts = sorted({row.amount for row in last})
    return str(amounts[0]) if len(amounts) == 1 else f"{amounts[0]} to {amounts[-1]}"


def _mean_success(last: Sequence[Row]) -> str:
    shares = [100 * row.success for row in last if row.success is not None]
    spread = f" ± {stdev(shares):.1f}" if len(shares) > 1 else ""
    return f"{mean(shares):.1f}{spread}" if shares else "-"


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
    "plan ms": lambda last: _median([row.plan_ms for row in last]),
    "actions per plan": lambda last: str(last[0].n_action_steps),
}
_COMMON = ("wall-clock s", "processor s", "plan ms")
_RL = ("method", "seeds", "frames", "final return", "IQM of final return", "area under curve", "success %, pooled",
       *_COMMON, "update ms")  # fmt: skip
_IMITATION = ("method", "seeds", "episodes", "success %, pooled", "success %, mean over seeds", "final return",
              "gradient steps", *_COMMON, "actions per plan")  # fmt: skip


def _median(values: Sequence[float | None]) -> str:
    told = [value for value in values if value is not None]
    return f"{median(told):.2f}" if told else "-"


def _cells(inputs: ReportInputs, group: Group, runs: Runs, header: Sequence[str]) -> list[str]:
    last = [run[-1] for run in runs.values()]
    cells = {name: cell(last) for name, cell in _COLUMNS.items()}
    cells["area under curve"] = interval(bootstrap([area_under_curve(run) for run in runs.values()]))
    if last[0].kind == "rl":  # measured when a run is over
        mine = [run for run in _runs_of(inputs, group) if run.method == last[0].method and run.seed in runs]
        over = [each for run in mine if (each := read_finished(inputs.out / "runs" / run.name)) is not None]
        cells["plan ms"] = _median([each.plan_ms for each in over])
        cells["update ms"] = _median([each.update_ms for each in over])
    return [cells[name] for name in header]


def _runs_of(inputs: ReportInputs, group: Group) -> list[Run]:
    """The runs of a group; those of all numbers of demonstrations in imitation."""
    suite, task, obs, demos = group
    kind = "imitation" if demos else "rl"
    wanted = (kind, suite, task, obs)
    return [run for run in inputs.runs.values() if (run.kind, run.suite, run.task, run.obs) == wanted]


def _task_section(inputs: ReportInputs, group: Group, entries: Mapping[str, Runs]) -> list[str]:
    suite, task, obs, demos = group
    header = _IMITATION if demos else _RL
    lines = [_cells(inputs, group, runs, header) for runs in entries.values()]
    parts = [f"## {suite}/{task} ({obs}{f', {demos} demonstrations' if demos else ''})", table(header, lines)]
    if demos:
        return parts + (_published_successes(inputs, group, entries) if inputs.published else [])
    runs = _runs_of(inputs, group)
    changed = sorted({json.dumps(run.env_kwargs["obs_kwargs"]) for run in runs if run.env_kwargs["obs_kwargs"]})
    if changed:
        parts += [f"Observations differ from the task's preset: {', '.join(f'`{text}`' for text in changed)}."]
    repeats = sorted({run.action_repeat for run in runs if run.action_repeat != task_action_repeat(run.task_id)})
    if repeats:
        parts += [f"Action repeat differs from the task's preset: {', '.join(map(str, repeats))}."]
    return parts + (_published_returns(group, entries) if inputs.published else [])


def _published_returns(group: Group, entries: Mapping[str, Runs]) -> list[str]:
    frames = max(run[-1].frames for runs in entries.values() for run in runs.values())
    quotes = []
    for curve in published_curves(*group[:3]):
        if curve.within(frames):
            at = int((curve.frames <= frames).nonzero()[0][-1])
            value = f"{curve.mean[at]:.1f}"
            quotes.append([curve.method, str(curve.num_seeds), str(int(curve.frames[at])), value, curve.source])
    if not quotes:
        return []
    told = "Published by others, at their last evaluation within these frames:"
    return [told, table(("method", "seeds", "frames", "return", "source"), quotes)]


def _published_successes(inputs: ReportInputs, group: Group, entries: Mapping[str, Runs]) -> list[str]:
    quotes = published_successes(*group[:2])
    if not quotes:
        return []
    lines = []
    for quote in quotes:
        runs = entries.get(OUR_ENTRY.get(quote.method, ""), {})
        ours = interval(pooled_success([run[-1] for run in runs.values()]), 100.0)
        theirs = [quote.method, f"{100 * quote.success:.0f}", f"{100 * quote.std:.0f}"]
        lines.append([*theirs, ours, quote.benchmark, quote.source])
    return [
        "Published by others, under another protocol (below), beside ours:",
        table(("method", "published %", "std", "ours %, pooled", "benchmark", "source"), lines),
        _protocols(inputs, group, quotes),
    ]


def _protocols(inputs: ReportInputs, group: Group, quotes: Sequence[PublishedSuccess]) -> str:
    suite, _, obs, demos = group
    runs = _runs_of(inputs, group)
    episodes = ", ".join(sorted({str(run.eval_episodes) for run in runs}))
    steps = ", ".join(sorted({str(run.amount) for run in runs}))
    lengths = sorted({str(run.env_kwargs.get("max_episode_steps", "the environment's own")) for run in runs})
    sizes = ", ".join(sorted({run.size for run in runs}))
    theirs = "; ".join(sorted({f"{quote.benchmark}: {quote.protocol}" for quote in quotes}))
    version = "v3 tasks, " if suite == "metaworld" else ""
    text = (
        f"Protocols. Published, {theirs}. Ours: {version}{obs}, {demos} demonstrations, {steps} gradient steps, "
        f"networks of size `{sizes}`, episodes of {', '.join(lengths)} steps, {episodes} episodes per seed, weights "
        "of the last step. The two cannot be subtracted from each other."
    )
    return f"{text} {METAWORLD_MEAN}" if suite == "metaworld" else text


def _overall_section(groups: Groups) -> list[str]:
    """Means over tasks whose scores share one scale: returns of dm_control, per cent of success."""
    parts = []
    for kind, title in (("rl", "All dm_control tasks together"), ("imitation", "All tasks together")):
        rows: dict[str, list[Row]] = {}
        for group, entries in groups.items():
            for entry, runs in entries.items():
                last = [run[-1] for run in runs.values()]
                shared = group[0] == "dm_control" if kind == "rl" else pooled_success(last) is not None
                if shared and last[0].kind == kind:
                    rows.setdefault(entry, []).extend(last)
        if len({row.group for of_entry in rows.values() for row in of_entry}) < 2:
            continue
        lines = []
        for of_entry in rows.values():
            estimate = bootstrap([row.score for row in of_entry], interquartile_mean if kind == "rl" else None)
            on = len({row.group for row in of_entry})
            lines.append([of_entry[0].label, str(on), str(len(of_entry)), interval(estimate)])
        what = "IQM of final return" if kind == "rl" else "success %"
        parts += [f"## {title}", table(("method", "tasks", "runs", what), lines)]
    return parts


def _differences_table(found: Sequence[Difference]) -> list[str]:
    lines = [[it.better, it.other, str(it.tasks), str(it.pairs), interval(it.gain), it.unit] for it in found]
    return [table(("method", "minus", "tasks", "pairs", "difference", "in"), lines)] if lines else []


def _reading(inputs: ReportInputs) -> list[str]:
    parts = ["## How to read this"]
    learned, imitated = ([run for run in inputs.runs.values() if run.kind == kind] for kind in ("rl", "imitation"))
    if learned:
        parts.append(READING_RL.format(", ".join(map(str, sorted({run.eval_episodes for run in learned})))))
    if imitated:
        how = {True: "with latents, noise and modes drawn", False: "deterministic"}
        parts.append(
            READING_IMITATION.format(" or ".join(how[drawn] for drawn in sorted({run.sample for run in imitated})))
        )
    return [*parts, RECORDS]


def _films(inputs: ReportInputs) -> list[str]:
    lines = []
    reasons: dict[str, list[str]] = {}
    for name, run in sorted(inputs.runs.items()):
        path, finished = film_path(inputs.out, run), read_finished(inputs.out / "runs" / name)
        if path.exists():
            lines.append(f"- [{name}]({path.relative_to(inputs.out).as_posix()})")
        elif finished is not None and finished.film_error is not None:
            reasons.setdefault(finished.film_error, []).append(name)
    lines += [f"- no film of {', '.join(names)}: {reason}" for reason, names in reasons.items()]
    return ["## Films of the final policies", "\n".join(lines)] if lines else []
