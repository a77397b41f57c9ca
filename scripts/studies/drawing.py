"""A study as a figure and as a table in Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from difftori_gym.baselines.methods import METHODS
from difftori_gym.comparison.figures import method_color
from difftori_gym.comparison.statistics import Estimate, area_under_curve, bootstrap, bootstrap_tasks, wilson
from difftori_gym.data.published import PublishedCurve, published_curves, published_means
from difftori_gym.envs import TaskId
from studies.plan import Study
from studies.rows import Row, finished

# Whole curves and points of few: the model this one comes from, its successor, and whoever is best.
_CURVE, _SUCCESSOR, _BEST = "TD-MPC", "TD-MPC2", "best published"
_COLUMNS = 6

Runs = dict[tuple[TaskId, str], list[list[Row]]]  # by task and method, one list of evaluations a seed


def runs_of(study: Study, data: Path) -> Runs:
    """
    :param study: a study
    :param data: folder of the tables
    :return: its finished runs, by task and method
    """
    done = finished(study.cells(), data)
    runs: Runs = {}
    for cell in study.cells():
        if cell.name in done:
            runs.setdefault((cell.task, cell.method), []).append(done[cell.name])
    return runs


def methods_of(study: Study) -> list[str]:
    """:return: methods of a study, of all groups"""
    return [method for group in study.methods for method in group]


def label(study: Study, method: str) -> str:
    """:return: a method's name in figures and tables"""
    if study.frames is not None:
        return METHODS["rl"][method].label
    name, _, base = method.partition("+")
    return METHODS["imitation"][name].label + (f" (+{METHODS['imitation'][base].label})" if base else "")


def _color(study: Study, method: str) -> str:
    return method_color(method) if study.frames is not None else f"C{methods_of(study).index(method)}"


def shared_tasks(study: Study, runs: Runs, methods: Sequence[str]) -> list[TaskId]:
    """:return: tasks that each of the methods has finished with at least one seed"""
    return [task for task in study.tasks if all((task, method) in runs for method in methods)]


def over_tasks(runs: Runs, tasks: Sequence[TaskId], method: str, value: str, index: int = -1) -> Estimate:
    """
    Mean over tasks of the mean over seeds; the interval draws seeds anew within each task.

    :param runs: of a study
    :param tasks: one or more, each with a run of the method
    :param method: a method
    :param value: name of a column
    :param index: which evaluation
    :return: the mean with its 95 % interval, without one unless each task has two seeds
    """
    values = [np.array([getattr(run[index], value) for run in runs[task, method]]) for task in tasks]
    return bootstrap_tasks(values, lambda draws: np.mean([seeds.mean(axis=-1) for seeds in draws], axis=0))


def draw(study: Study, data: Path, path: Path) -> None:
    """
    A panel a task, one of the mean over the tasks that all methods have finished, one against processor time.

    :param study: a study
    :param data: folder of the tables
    :param path: png file
    """
    runs = runs_of(study, data)
    methods = [method for method in methods_of(study) if any(key[1] == method for key in runs)]
    panels = len(study.tasks) + 2
    columns = min(panels, _COLUMNS)
    rows = math.ceil(panels / columns)
    figure = Figure(figsize=(3.5 * columns, 2.9 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis, task in zip(axes, study.tasks, strict=False):
        axis.set_title(str(task), fontsize=10)
        _draw_task(axis, study, task, runs, methods)
    mean, time = axes[len(study.tasks) : panels]
    shared = shared_tasks(study, runs, methods)
    for axis in (mean, time):
        axis.set_title(
            f"mean of {len(shared)} task{'' if len(shared) == 1 else 's'}"
            + ("" if axis is mean else " against processor time"),
            fontsize=10,
        )
        for method in methods if shared else ():
            _draw_mean(axis, study, runs, shared, method, over_time=axis is time)
    handles, labels = [], []
    for axis in axes[:panels]:
        axis.grid(alpha=0.3)
        for handle, text in zip(*axis.get_legend_handles_labels(), strict=True):
            if text not in labels:
                handles.append(handle)
                labels.append(text)
    for axis in axes[panels:]:
        axis.set_axis_off()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), columns + 1), fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}")
    figure.savefig(unfinished, dpi=80, format="png")
    unfinished.replace(path)


def _draw_task(axis: Axes, study: Study, task: TaskId, runs: Runs, methods: Sequence[str]) -> None:
    shown = [method for method in methods if (task, method) in runs]
    if not shown:
        axis.text(0.5, 0.9, "no run yet", ha="center", transform=axis.transAxes, color="0.5")
    if study.frames is None:
        for position, method in enumerate(shown):
            share = _successes(study, runs[task, method])
            error = [[100 * (share.value - (share.low or 0))], [100 * ((share.high or 0) - share.value)]]
            color = _color(study, method)
            axis.bar(position, 100 * share.value, yerr=error, color=color, capsize=3, label=label(study, method))
        axis.set(xticks=[], ylabel="success, %", ylim=(0, 100))
        return
    for method in shown:
        seeds = runs[task, method]
        frames = [row.frames for row in seeds[0]]
        returns = np.array([[row.episode_return for row in run] for run in seeds])
        color = _color(study, method)
        axis.plot(frames, returns.mean(axis=0), color=color, lw=2, label=label(study, method))
        for run in returns if len(seeds) > 1 else ():
            axis.plot(frames, run, color=color, lw=0.7, alpha=0.5)
    _draw_published(axis, study, task)
    axis.set(xlim=(0, 1.02 * study.amount), ylim=(0, None), xlabel="environment frames", ylabel="episode return")


def _draw_published(axis: Axes, study: Study, task: TaskId) -> None:
    for curve in published_curves(task.suite, task.task, study.obs) if _as_published(study) else ():
        if curve.method == _CURVE and curve.within(study.amount):
            shown = int(np.searchsorted(curve.frames, study.amount, side="right"))
            style = dict(color="0.4", ls="--", lw=1, marker=".", markersize=4)
            axis.plot(curve.frames[:shown], curve.mean[:shown], label=f"{_CURVE}, published", **style)
    marks = published_at(study, task)
    for name, mark in ((_SUCCESSOR, "<"), (_BEST, "*")):
        if name in marks:
            text = f"{name} at {study.amount:,} frames" if name == _BEST else f"{name}, published"
            axis.plot([study.amount], [marks[name][0]], color="0.2", ls="", marker=mark, markersize=8, label=text)


def _as_published(study: Study) -> bool:
    """Whether its observations are those that others published with."""
    return "obs_kwargs" not in study.options


def published_at(study: Study, task: TaskId) -> dict[str, tuple[float, PublishedCurve]]:
    """
    :param study: a study of reinforcement learning
    :param task: one of its tasks
    :return: mean returns that others published after the study's frames, by method and as ``best published``
    """
    found = {}
    for curve in published_means(task.suite, task.task, study.obs) if _as_published(study) else ():
        at = np.flatnonzero(curve.frames == study.amount)
        if len(at):
            found[curve.method] = (float(curve.mean[at[0]]), curve)
    if found:
        found[_BEST] = max(found.values(), key=lambda pair: pair[0])
    return found


def _draw_mean(axis: Axes, study: Study, runs: Runs, tasks: Sequence[TaskId], method: str, over_time: bool) -> None:
    value = "episode_return" if study.frames is not None else "success"
    count = min(len(run) for task in tasks for run in runs[task, method])
    points = [over_tasks(runs, tasks, method, value, index) for index in range(count)]
    seconds = [over_tasks(runs, tasks, method, "cpu_s", index).value for index in range(count)]
    amounts = [float(runs[tasks[0], method][0][index].amount) for index in range(count)]
    x = seconds if over_time else amounts
    axis.plot(
        x, [point.value for point in points], color=_color(study, method), lw=2, marker="." if count < 3 else None
    )
    if all(point.low is not None for point in points):
        low, high = [point.low or 0.0 for point in points], [point.high or 0.0 for point in points]
        axis.fill_between(x, low, high, color=_color(study, method), alpha=0.2, lw=0)
    unit = "environment frames" if study.frames is not None else "gradient steps"
    axis.set(xlabel="processor seconds of training" if over_time else unit, ylabel=value.replace("_", " "))
    axis.set_xlim(left=0, auto=True)  # another method may go further
    axis.set_ylim(0, None if study.frames is not None else 1.05, auto=study.frames is not None)


def _successes(study: Study, seeds: Sequence[Sequence[Row]]) -> Estimate:
    return wilson(
        round(sum((run[-1].success or 0) * study.eval_episodes for run in seeds)), study.eval_episodes * len(seeds)
    )


def table(study: Study, data: Path) -> str:
    """
    :param study: a study
    :param data: folder of the tables
    :return: Markdown: what each run ended with, means, published figures, which cells are empty
    """
    runs, methods = runs_of(study, data), methods_of(study)
    cells = study.cells()
    done = finished(cells, data)
    told = study.frames is not None and any(published_at(study, task) for task in study.tasks)
    published = [_CURVE, _SUCCESSOR, _BEST] if told else []
    columns = [*(label(study, method) for method in methods), *(f"{name}, published" for name in published[:2])]
    columns += published[2:]
    lines = [f"| task | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for task in study.tasks:
        marks = published_at(study, task) if published else {}
        best = f"{marks[_BEST][0]:.0f} ({marks[_BEST][1].method})" if _BEST in marks else "-"
        others = [f"{marks[name][0]:.0f}" if name in marks else "-" for name in published[:2]]
        texts = [_cell_text(study, runs.get((task, method))) for method in methods]
        lines.append(f"| {task.task} | {' | '.join([*texts, *others, *([best] if published else [])])} |")
    shown = [method for method in methods if any(key[1] == method for key in runs)]
    if shared := shared_tasks(study, runs, shown):
        texts = [_mean_text(study, runs, shared, method) if method in shown else "" for method in methods]
        lines.append(f"| mean of the {len(shared)} that all have | {' | '.join([*texts, *[''] * len(published)])} |")
    unit = "frames" if study.frames is not None else "gradient steps"
    seeds = ", ".join(map(str, study.seeds))
    dead = sum(row[-1].dead_starts or 0 for row in done.values())
    lines += [
        "",
        f"{date.today().isoformat()}: {len(done)} of {len(cells)} runs of {study.amount:,} {unit}, seeds {seeds}; "
        f"commit {study.commit[:12]}. " + _empty_text(study, runs, len(cells) - len(done)),
    ]
    if study.frames is not None:
        lines[-1] += f" Dead starts in the last evaluations: {dead} of {study.eval_episodes * len(done)} episodes."
    return "\n".join([*lines, *gains(study, runs)])


def gains(study: Study, runs: Runs) -> list[str]:
    """
    :param study: a study
    :param runs: of it
    :return: lines of a table: how far a method is above what it is derived from, with bootstrap intervals. Of imitation
        on a base policy the success, by task; of a learner without the policy gradient the mean height of the learning
        curve, by task and seed
    """
    lines = []
    for method in methods_of(study):
        base = method.partition("+")[2] or ("difftori" if method == "difftori_nopg" else "")
        tasks = shared_tasks(study, runs, [method, base])
        if study.frames is None:
            ends = [
                [100 * over_tasks(runs, [task], each, "success").value for task in tasks] for each in (method, base)
            ]
            found, unit = [ours - theirs for ours, theirs in zip(*ends, strict=True)], "points of success"
        else:
            pairs = [pair for task in tasks for pair in _pairs(runs[task, method], runs[task, base])]
            found, unit = (
                [area_under_curve(ours) - area_under_curve(theirs) for ours, theirs in pairs],
                "return over all frames",
            )
        if found:
            estimate = bootstrap(found)
            low, high = (f"{end or 0:+.1f}" for end in (estimate.low, estimate.high))
            interval = "" if estimate.low is None else f" [{low}, {high}]"
            who = f"{label(study, method)} minus {label(study, base)}"
            lines.append(f"| {who} | {len(tasks)} | {len(found)} | {estimate.value:+.1f}{interval} | {unit} |")
    return ["", "| difference | tasks | pairs | mean | of |", "|---|---|---|---|---|", *lines] if lines else []


def _pairs(ours: Sequence[list[Row]], theirs: Sequence[list[Row]]) -> list[tuple[list[Row], list[Row]]]:
    """Runs of the same seeds."""
    by_seed = {run[0].seed: run for run in theirs}
    return [(run, by_seed[run[0].seed]) for run in ours if run[0].seed in by_seed]


def _cell_text(study: Study, seeds: Sequence[Sequence[Row]] | None) -> str:
    if not seeds:
        return ""
    if study.frames is None:
        share = _successes(study, seeds)
        return f"{100 * share.value:.0f} [{100 * (share.low or 0):.0f}, {100 * (share.high or 0):.0f}] %"
    return ", ".join(f"{run[-1].episode_return:.0f}" for run in seeds)


def _mean_text(study: Study, runs: Runs, tasks: Sequence[TaskId], method: str) -> str:
    scale, unit = (1, "") if study.frames is not None else (100, " %")
    mean = over_tasks(runs, tasks, method, "episode_return" if study.frames is not None else "success")
    interval = "" if mean.low is None else f" [{scale * mean.low:.0f}, {scale * (mean.high or 0):.0f}]"
    return f"{scale * mean.value:.0f}{interval}{unit}"


def _empty_text(study: Study, runs: Runs, count: int) -> str:
    if not count:
        return "No cell is empty."
    empty: dict[str, list[str]] = {}
    methods = methods_of(study)
    for method in methods:
        missing = [task.task for task in study.tasks if len(runs.get((task, method), ())) < len(study.seeds)]
        if missing:
            which = "all tasks" if len(missing) == len(study.tasks) else ", ".join(missing)
            empty.setdefault(which, []).append(label(study, method))
    whose = {which: "all methods" if len(who) == len(methods) > 1 else ", ".join(who) for which, who in empty.items()}
    return f"Empty, wholly or for some seeds: {'. '.join(f'{who} ({which})' for which, who in whose.items())}."


def put_into(page: Path, study: Study, text: str) -> bool:
    """
    Replace what stands between ``<!-- study NAME -->`` and ``<!-- end of study -->``.

    :param page: a page in Markdown
    :param study: a study
    :param text: the new content
    :return: whether the page has such a place
    """
    content = page.read_text(encoding="utf-8")
    begin, end = f"<!-- study {study.name} -->", "<!-- end of study -->"
    before, found, rest = content.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        return False
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")
    return True
