"""Learning curves."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from difftori_gym.baselines.methods import METHODS
from difftori_gym.comparison.published import PublishedCurve, published_curves
from difftori_gym.comparison.results import ResultRow, Task, group_tasks
from difftori_gym.comparison.statistics import bootstrap

# Okabe and Ito's colours, which readers with any colour vision tell apart, then three of Paul Tol's. A method keeps
# its colour in all figures.
_COLORS = ("#0072B2", "#56B4E9", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#882255", "#999933", "#332288")
_DASHES = ("-", "--", ":", "-.")
_GREYS = ("0.25", "0.4", "0.55", "0.65", "0.75")
_COLUMNS = 4


def method_color(name: str) -> str:
    """
    :param name: name of a method
    :return: its colour
    """
    return _COLORS[list(METHODS["rl"]).index(name) % len(_COLORS)]


def draw_curves(rows: Sequence[ResultRow], path: Path, *, published: bool = True) -> None:
    """
    One panel of return against environment frames per task, and one of return against wall-clock.

    Lines are means over seeds, bands 95 % bootstrap intervals; thin grey lines were published by others.

    :param rows: evaluations, at least one
    :param path: png file
    :param published: whether to draw published curves
    """
    tasks = group_tasks(rows)
    num_panels = len(tasks) + 1
    columns = min(num_panels, _COLUMNS)
    lines = math.ceil(num_panels / columns)
    figure = Figure(figsize=(5.2 * columns, 4.0 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(lines, columns, squeeze=False).flatten()
    sources: set[str] = set()
    for panel, ((suite, task, obs), methods) in zip(panels, tasks.items(), strict=False):
        _draw_task(panel, f"{suite}/{task} ({obs})", methods)
        max_frames = int(panel.get_xlim()[1])
        curves = published_curves(suite, task, obs) if published else []
        curves = [curve for curve in curves if curve.within(max_frames)]
        _draw_published(panel, curves, max_frames)
        sources |= {f"{curve.method}: {curve.source}" for curve in curves}
        panel.legend(fontsize=7, loc="best", framealpha=0.7)
    _draw_wall_clock(panels[len(tasks)], tasks)
    for panel in panels[num_panels:]:
        panel.set_axis_off()
    if sources:
        figure.supxlabel("Published curves. " + "; ".join(sorted(sources)) + ".", fontsize=7, color="0.4")
    unfinished = path.with_name(f".{path.name}")
    figure.savefig(unfinished, dpi=120, format="png")
    unfinished.replace(path)


def _draw_task(panel: Axes, title: str, methods: dict[str, dict[int, list[ResultRow]]]) -> None:
    """
    :param panel: where to draw
    :param title: name of the task
    :param methods: evaluations by method and seed
    """
    last = 0
    for name, seeds in methods.items():
        returns: dict[int, list[float]] = defaultdict(list)
        for run in seeds.values():
            for row in run:
                returns[row.frames].append(row.episode_return)
        frames = sorted(returns)
        estimates = [bootstrap(returns[frame]) for frame in frames]
        seeds_text = f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''}"
        color = method_color(name)
        panel.plot(
            frames, [e.value for e in estimates], color=color, lw=2, label=f"{METHODS['rl'][name].label} ({seeds_text})"
        )
        low = [e.value if e.low is None else e.low for e in estimates]
        high = [e.value if e.high is None else e.high for e in estimates]
        panel.fill_between(frames, low, high, color=color, alpha=0.2, lw=0)
        last = max(last, frames[-1])
    panel.set(title=title, xlabel="environment frames", ylabel="episode return", xlim=(0, max(last, 1)))
    panel.grid(alpha=0.3)


def _draw_published(panel: Axes, curves: Sequence[PublishedCurve], max_frames: int) -> None:
    """
    :param panel: where to draw
    :param curves: what to draw
    :param max_frames: end of the axis
    """
    for index, curve in enumerate(curves):
        # One point beyond the axis lets the line run to its edge.
        shown = min(int(np.searchsorted(curve.frames, max_frames, side="right")) + 1, len(curve.frames))
        panel.plot(
            curve.frames[:shown],
            curve.mean[:shown],
            color=_GREYS[index % len(_GREYS)],
            ls=_DASHES[index % len(_DASHES)],
            lw=0.9,
            marker=".",
            markersize=4,
            label=f"{curve.method}, published ({curve.num_seeds} seeds)",
        )
    panel.set_xlim(0, max_frames)


def _draw_wall_clock(panel: Axes, tasks: dict[Task, dict[str, dict[int, list[ResultRow]]]]) -> None:
    """
    Mean return against mean seconds of training, per evaluation; the dash tells the task.

    :param panel: where to draw
    :param tasks: evaluations by task, method and seed
    """
    names: dict[str, None] = {}
    for index, methods in enumerate(tasks.values()):
        for name, seeds in methods.items():
            by_frames: dict[int, list[ResultRow]] = defaultdict(list)
            for run in seeds.values():
                for row in run:
                    by_frames[row.frames].append(row)
            points = [by_frames[frame] for frame in sorted(by_frames)]
            seconds = [np.mean([row.wall_s for row in point]) for point in points]
            returns = [np.mean([row.episode_return for row in point]) for point in points]
            panel.plot(seconds, returns, color=method_color(name), ls=_DASHES[index % len(_DASHES)], lw=2)
            names[name] = None
    handles = [Line2D([], [], color=method_color(name), lw=2, label=METHODS["rl"][name].label) for name in names]
    if len(tasks) > 1:
        handles += [
            Line2D([], [], color="0.3", ls=_DASHES[index % len(_DASHES)], label=task)
            for index, (_, task, _) in enumerate(tasks)
        ]
    panel.legend(handles=handles, fontsize=7, loc="best", framealpha=0.7)
    panel.set(title="wall-clock", xlabel="seconds of training", ylabel="episode return")
    panel.set_xlim(left=0)
    panel.grid(alpha=0.3)
