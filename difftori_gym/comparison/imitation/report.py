"""The report of a comparison of imitation methods, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, median, stdev

from difftori_gym.comparison.files import write_text
from difftori_gym.comparison.imitation.differences import overall_section
from difftori_gym.comparison.imitation.published import METAWORLD_MEAN, OUR_ENTRY, PublishedSuccess, published_successes
from difftori_gym.comparison.imitation.results import Group, ImitationRow, Seeds, newest
from difftori_gym.comparison.imitation.settings import ImitationRun
from difftori_gym.comparison.imitation.training import film_error, film_path
from difftori_gym.comparison.machine import describe_machine, package_versions
from difftori_gym.comparison.report import ReportInputs, failure_section, interval, table
from difftori_gym.comparison.statistics import Estimate, bootstrap, wilson

_HEADER = (
    "method",
    "seeds",
    "episodes",
    "success %, pooled",
    "success %, mean over seeds",
    "return",
    "gradient steps",
    "wall-clock s",
    "processor s",
    "plan ms",
    "actions per plan",
)


_Inputs = ReportInputs[ImitationRow, ImitationRun]


def write_report(inputs: _Inputs) -> None:
    """
    Write ``out/report.md``.

    :param inputs: what it is made from
    """
    groups = newest(inputs.rows)
    parts = ["# Comparison of imitation learners"]
    parts += ["```\n" + "\n".join(inputs.commands) + "\n```"] if inputs.commands else []
    if (inputs.out / "success.png").exists():
        parts.append("![success rates](success.png)")
    for group, entries in groups.items():
        parts += _task_section(inputs, group, entries)
    parts += overall_section(groups)
    parts += _reading(inputs)
    parts += failure_section(inputs.failures)
    parts += _films(inputs)
    versions = ", ".join(f"{name} {version}" for name, version in package_versions().items())
    parts += ["## Machine", f"{describe_machine()}; {inputs.jobs} runs side by side, one thread each.", versions + "."]
    write_text(inputs.out / "report.md", "\n\n".join(parts) + "\n")


def pooled(seeds: Seeds) -> Estimate | None:
    """
    :param seeds: newest evaluations of an entry
    :return: share of successful episodes of all seeds together, None when the task does not tell
    """
    successes = [row.successes for row in seeds.values() if row.successes is not None]
    if len(successes) < len(seeds):
        return None
    return wilson(sum(successes), sum(row.episodes for row in seeds.values()))


def rates(seeds: Seeds) -> list[float]:
    """
    :param seeds: newest evaluations of an entry
    :return: per cent of successful episodes, seed by seed
    """
    return [100.0 * row.successes / row.episodes for row in seeds.values() if row.successes is not None]


def percent(estimate: Estimate | None) -> str:
    """
    :param estimate: a share with its interval, or None
    :return: both in per cent
    """
    if estimate is None:
        return "-"
    assert estimate.low is not None
    assert estimate.high is not None
    return f"{100 * estimate.value:.1f} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def _task_section(inputs: _Inputs, group: Group, entries: dict[str, Seeds]) -> list[str]:
    """
    :param inputs: what the report is made from
    :param group: suite, task, obs, number of demonstrations
    :param entries: newest evaluations by entry and seed
    :return: paragraphs
    """
    suite, task, obs, demos = group
    parts = [f"## {suite}/{task} ({obs}, {demos} demonstrations)"]
    parts.append(table(_HEADER, [_line(seeds) for seeds in entries.values()]))
    quotes = published_successes(suite, task) if inputs.published else []
    if quotes:
        lines = [_quote(quote, entries) for quote in quotes]
        parts.append("Published by others, under another protocol (below), beside ours:")
        parts.append(table(("method", "published %", "std", "ours %, pooled", "benchmark", "source"), lines))
        parts.append(_protocols(inputs, group, quotes))
    return parts


def _line(seeds: Seeds) -> list[str]:
    """
    :param seeds: newest evaluations of an entry
    :return: cells
    """
    rows = list(seeds.values())
    values = rates(seeds)
    spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
    steps = sorted({row.steps for row in rows})
    return [
        rows[0].label,
        str(len(rows)),
        str(sum(row.episodes for row in rows)),
        percent(pooled(seeds)),
        f"{mean(values):.1f}{spread}" if values else "-",
        interval(bootstrap([row.mean_return for row in rows])),
        str(steps[0]) if len(steps) == 1 else f"{steps[0]} to {steps[-1]}",
        f"{mean(row.wall_s for row in rows):.0f}",
        f"{mean(row.cpu_s for row in rows):.0f}",
        f"{median(row.plan_ms for row in rows):.2f}",
        str(rows[0].n_action_steps),
    ]


def _quote(quote: PublishedSuccess, entries: dict[str, Seeds]) -> list[str]:
    """
    :param quote: a published line
    :param entries: our newest evaluations
    :return: cells
    """
    ours = entries.get(OUR_ENTRY.get(quote.method, ""))
    return [
        quote.method,
        f"{100 * quote.success:.0f}",
        f"{100 * quote.std:.0f}",
        "-" if ours is None else percent(pooled(ours)),
        quote.benchmark,
        quote.source,
    ]


def _protocols(inputs: _Inputs, group: Group, quotes: Sequence[PublishedSuccess]) -> str:
    """
    :param inputs: what the report is made from
    :param group: suite, task, obs, number of demonstrations
    :param quotes: published lines
    :return: how theirs were made, and how ours were
    """
    suite, task, obs, demos = group
    runs = [run for run in inputs.runs.values() if (run.suite, run.task, run.obs) == (suite, task, obs)]
    episodes = ", ".join(sorted({str(run.eval_episodes) for run in runs}))
    steps = ", ".join(sorted({str(run.steps) for run in runs}))
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


def _reading(inputs: _Inputs) -> list[str]:
    """
    :param inputs: what the report is made from
    :return: how the numbers were made
    """
    sampled = {run.sample for run in inputs.runs.values()}
    how = " or ".join(
        {True: "with latents, noise and modes drawn", False: "deterministic"}[value] for value in sorted(sampled)
    )
    return [
        "## How to read this",
        "All methods learn from the same demonstrations and are evaluated from the same starts, which depend on the "
        f"seed of the run only and are none of the demonstrations'. Policies act {how or 'as set'}. Pooled: successes "
        "over the episodes of all seeds, with Wilson's 95 % interval, which does not know that networks of one seed "
        "share their weights. Mean over seeds: with the standard deviation between seeds. Return: brackets are 95 % "
        "bootstrap intervals over seeds. A base policy is trained once per seed, and its own line holds the time of "
        "its training. Wall-clock and processor: seconds of the gradient steps, without evaluations and "
        "checkpoints. Plan: median time of a new plan for one observation, of processor time on a CPU, what a base "
        "policy needs included; a plan serves as many steps as it has executed actions.",
        "Hyper-parameters of each run: `runs/*/args.json`. Training logs: `runs/*/log-*/progress.csv`. Evaluations "
        "during training, if any: `results.csv`.",
    ]


def _films(inputs: _Inputs) -> list[str]:
    """
    :param inputs: what the report is made from
    :return: links to films, and the reason where there is none
    """
    lines = []
    reasons: dict[str, list[str]] = {}
    for name, run in sorted(inputs.runs.items()):
        path, error = film_path(inputs.out, run), film_error(inputs.out, run)
        if path.exists():
            lines.append(f"- [{name}]({path.relative_to(inputs.out).as_posix()})")
        elif error is not None:
            reasons.setdefault(error, []).append(name)
    lines += [f"- no film of {', '.join(names)}: {reason}" for reason, names in reasons.items()]
    return ["## Films", "\n".join(lines)] if lines else []
