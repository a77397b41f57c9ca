"""The report of a comparison, in Markdown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Generic, TypeVar

from difftori_gym.baselines.methods import METHODS
from difftori_gym.comparison.files import write_text
from difftori_gym.comparison.machine import describe_machine, package_versions
from difftori_gym.comparison.published import published_curves
from difftori_gym.comparison.results import ResultRow, Task, group_tasks
from difftori_gym.comparison.runner import Failure
from difftori_gym.comparison.settings import RunSettings
from difftori_gym.comparison.statistics import (
    Estimate,
    area_under_curve,
    bootstrap,
    interquartile_mean,
)
from difftori_gym.comparison.summary import RunSummary, read_summary
from difftori_gym.comparison.training import film_path
from difftori_gym.envs import task_action_repeat

Seeds = dict[int, list[ResultRow]]

_HEADER = (
    "method",
    "seeds",
    "frames",
    "final return",
    "IQM of final return",
    "area under curve",
    "success",
    "wall-clock s",
    "processor s",
    "plan ms",
    "update ms",
)


#: A row of the table, and the kind of run that it comes from.
Row = TypeVar("Row")
RunOfRow = TypeVar("RunOfRow")


@dataclass(frozen=True)
class ReportInputs(Generic[Row, RunOfRow]):
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
    runs: dict[str, RunOfRow]
    failures: Sequence[Failure]
    commands: Sequence[str]
    jobs: int
    published: bool


_Inputs = ReportInputs[ResultRow, RunSettings]


def write_report(inputs: _Inputs) -> None:
    """
    Write ``out/report.md``.

    :param inputs: what it is made from
    """
    tasks = group_tasks(inputs.rows)
    parts = ["# Comparison", *_commands(inputs)]
    if (inputs.out / "curves.png").exists():
        parts.append("![learning curves](curves.png)")
    for task, methods in tasks.items():
        parts += _task_section(inputs, task, methods)
    parts += _overall_section(tasks)
    parts += _reading(inputs)
    parts += failure_section(inputs.failures)
    parts += _films(inputs)
    versions = ", ".join(f"{name} {version}" for name, version in package_versions().items())
    parts += ["## Machine", f"{describe_machine()}; {inputs.jobs} runs side by side, one thread each.", versions + "."]
    write_text(inputs.out / "report.md", "\n\n".join(parts) + "\n")


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """
    :param header: names of the columns
    :param lines: cells, line by line
    :return: Markdown table
    """
    rule = ["---"] * len(header)
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, rule, *lines))


def interval(estimate: Estimate) -> str:
    """
    :param estimate: a statistic
    :return: the statistic and its interval
    """
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.1f}"
    return f"{estimate.value:.1f} [{estimate.low:.1f}, {estimate.high:.1f}]"


def _commands(inputs: _Inputs) -> list[str]:
    """
    :param inputs: what the report is made from
    :return: the commands as a block
    """
    return ["```\n" + "\n".join(inputs.commands) + "\n```"] if inputs.commands else []


def _task_section(inputs: _Inputs, task: Task, methods: dict[str, Seeds]) -> list[str]:
    """
    :param inputs: what the report is made from
    :param task: suite, task, obs
    :param methods: evaluations by method and seed
    :return: paragraphs
    """
    suite, name, obs = task
    lines = [_method_line(inputs, method, seeds) for method, seeds in methods.items()]
    parts = [f"## {suite}/{name} ({obs})", table(_HEADER, lines)]
    runs = [run for run in inputs.runs.values() if (run.suite, run.task, run.obs) == task]
    changed = sorted({json.dumps(run.obs_kwargs) for run in runs if run.obs_kwargs})
    if changed:
        parts += [f"Observations differ from the task's preset: {', '.join(f'`{text}`' for text in changed)}."]
    repeats = sorted({run.action_repeat for run in runs if run.action_repeat != task_action_repeat(run.task_id)})
    if repeats:
        parts += [f"Action repeat differs from the task's preset: {', '.join(map(str, repeats))}."]
    frames = max(row.frames for seeds in methods.values() for run in seeds.values() for row in run)
    quotes = []
    for curve in published_curves(suite, name, obs) if inputs.published else []:
        for at, value in zip(curve.frames, curve.mean, strict=True):
            if 0 < at <= frames:
                latest = (str(int(at)), f"{value:.1f}")
        if curve.within(frames):
            quotes.append([curve.method, str(curve.num_seeds), *latest, curve.source])
    if quotes:
        parts += ["Published by others, at their last evaluation within these frames:"]
        parts += [table(("method", "seeds", "frames", "return", "source"), quotes)]
    return parts


def _method_line(inputs: _Inputs, method: str, seeds: Seeds) -> list[str]:
    """
    :param inputs: what the report is made from
    :param method: name of the method
    :param seeds: its evaluations by seed
    :return: cells
    """
    last = [run[-1] for run in seeds.values()]
    final = [row.episode_return for row in last]
    successes = [row.success for row in last if row.success is not None]
    frames = sorted({row.frames for row in last})
    summaries = _summaries(inputs, method, last)
    updates = [summary.update_ms for summary in summaries if summary.update_ms is not None]
    return [
        METHODS["rl"][method].label,
        str(len(seeds)),
        str(frames[0]) if len(frames) == 1 else f"{frames[0]} to {frames[-1]}",
        interval(bootstrap(final)),
        interval(bootstrap(final, interquartile_mean)),
        interval(bootstrap([area_under_curve(run) for run in seeds.values()])),
        f"{sum(successes) / len(successes):.2f}" if successes else "-",
        f"{sum(row.wall_s for row in last) / len(last):.0f}",
        f"{sum(row.cpu_s for row in last) / len(last):.0f}",
        f"{median(summary.plan_ms for summary in summaries):.2f}" if summaries else "-",
        f"{median(updates):.2f}" if updates else "-",
    ]


def _summaries(inputs: _Inputs, method: str, last: Sequence[ResultRow]) -> list[RunSummary]:
    """
    :param inputs: what the report is made from
    :param method: name of the method
    :param last: newest evaluation of each of its runs
    :return: summaries of those that have finished
    """
    seeds = {(row.suite, row.task, row.obs, row.seed) for row in last}
    runs = [
        run
        for run in inputs.runs.values()
        if run.method == method and (run.suite, run.task, run.obs, run.seed) in seeds
    ]
    found = [read_summary(inputs.out / "runs" / run.name) for run in runs]
    return [summary for summary in found if summary is not None]


def _overall_section(tasks: dict[Task, dict[str, Seeds]]) -> list[str]:
    """
    :param tasks: evaluations by task, method and seed
    :return: one table over all dm_control tasks, whose returns share one scale; nothing with fewer than two
    """
    suite_tasks = {task: methods for task, methods in tasks.items() if task[0] == "dm_control"}
    if len(suite_tasks) < 2:
        return []
    final: dict[str, list[float]] = {}
    for methods in suite_tasks.values():
        for method, seeds in methods.items():
            final.setdefault(method, []).extend(run[-1].episode_return for run in seeds.values())
    lines = [
        [METHODS["rl"][name].label, str(len(values)), interval(bootstrap(values, interquartile_mean))]
        for name, values in final.items()
    ]
    return ["## All dm_control tasks together", table(("method", "runs", "IQM of final return"), lines)]


def _reading(inputs: _Inputs) -> list[str]:
    """
    :param inputs: what the report is made from
    :return: how the numbers were made
    """
    episodes = sorted({run.eval_episodes for run in inputs.runs.values()})
    return [
        "## How to read this",
        f"Each evaluation is the mean over {', '.join(map(str, episodes))} episodes of a separate environment, from "
        "starts that depend on the seed of the run only, with the deterministic policy. Brackets are 95 % bootstrap "
        "intervals over seeds. Final return: the last evaluation. IQM: mean of the middle half. Area under curve: mean "
        "return over all frames of training. Wall-clock: seconds of training, without evaluations, checkpoints and "
        "films. Plan: median time of `predict` for one observation. Update: median time of a gradient update, means "
        "of ten; empty for on-policy methods. Both are measured after training, while the other runs go on. Frames "
        "are environment frames: agent steps times action repeat.",
        "Arguments of each run, versions, commit, machine, and the command that repeats it: `runs/*/run.json`. "
        "Training logs: `runs/*/log-*/progress.csv`.",
    ]


def failure_section(failures: Sequence[Failure]) -> list[str]:
    """
    :param failures: runs that died
    :return: their tracebacks
    """
    if not failures:
        return []
    parts = ["## Runs that died"]
    for failure in failures:
        parts += [f"### {failure.name}", f"```\n{failure.traceback.strip()}\n```"]
    return parts


def _films(inputs: _Inputs) -> list[str]:
    """
    :param inputs: what the report is made from
    :return: links to films, and the reason where there is none
    """
    lines = []
    reasons: dict[str, list[str]] = {}
    for name, run in sorted(inputs.runs.items()):
        summary = read_summary(inputs.out / "runs" / name)
        path = film_path(inputs.out / "runs" / name, run)
        if path.exists():
            lines.append(f"- [{name}]({path.relative_to(inputs.out).as_posix()})")
        elif summary is not None and summary.film_error is not None:
            reasons.setdefault(summary.film_error, []).append(name)
    lines += [f"- no film of {', '.join(names)}: {reason}" for reason, names in reasons.items()]
    return ["## Films of the final policies", "\n".join(lines)] if lines else []
