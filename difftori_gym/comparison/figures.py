"""Learning curves, and success rates with intervals."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from difftori_gym.baselines.methods import METHODS
from difftori_gym.comparison.published import OUR_ENTRY, PublishedCurve, published_curves, published_successes
from difftori_gym.comparison.results import Row, Runs, group_rows
from difftori_gym.comparison.statistics import Groups, bootstrap, pooled_success

# Okabe and Ito's colours, which readers with any colour vision tell apart, then three of Paul Tol's. A method keeps
# its colour in all figures, and DiffTORI has one colour in both kinds.
_COLORS = ("#0072B2", "#56B4E9", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#882255", "#999933", "#332288")
_IMITATION_COLORS = ("#E69F00", "#CC79A7", "#999999", "#009E73", "#D55E00", "#0072B2")
_DASHES = ("-", "--", ":", "-.")
_GREYS = ("0.25", "0.4", "0.55", "0.65", "0.75")


def method_color(name: str) -> str:
    """:return: colour of a method of reinforcement learning"""
    return _COLORS[list(METHODS["rl"]).index(name) % len(_COLORS)]


def _panels(number: int, columns: int, size: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    columns = min(number, columns)
    lines = math.ceil(number / columns)
    figure = Figure(figsize=(size[0] * columns, size[1] * lines), layout="constrained")
    FigureCanvasAgg(figure)
    panels: list[Axes] = list(figure.subplots(lines, columns, squeeze=False).flatten())
    for panel in panels[number:]:
        panel.set_axis_off()
    return figure, panels


def _save(figure: Figure, path: Path) -> None:
    unfinished = path.with_name(f".{path.name}")
    figure.savefig(unfinished, dpi=120, format="png")
    unfinished.replace(path)


def draw_curves(rows: Sequence[Row], path: Path, *, published: bool = True) -> None:
    """
    One panel of return against environment frames per task, and one of return against wall-clock.

    Lines are means over seeds, bands 95 % bootstrap intervals; thin grey lines were published by others.

    :param rows: evaluations of reinforcement learning, at least one
    :param path: png file
    :param published: whether to draw published curves
    """
    groups = group_rows(rows)
    figure, panels = _panels(len(groups) + 1, 4, (5.2, 4.0))
    sources: set[str] = set()
    for panel, ((suite, task, obs, _), entries) in zip(panels, groups.items(), strict=False):
        _draw_task(panel, f"{suite}/{task} ({obs})", entries)
        max_frames = int(panel.get_xlim()[1])
        curves = published_curves(suite, task, obs) if published else []
        curves = [curve for curve in curves if curve.within(max_frames)]
        _draw_published_curves(panel, curves, max_frames)
        sources |= {f"{curve.method}: {curve.source}" for curve in curves}
        panel.legend(fontsize=7, loc="best", framealpha=0.7)
    _draw_wall_clock(panels[len(groups)], groups)
    if sources:
        figure.supxlabel("Published curves. " + "; ".join(sorted(sources)) + ".", fontsize=7, color="0.4")
    _save(figure, path)


def _by_frames(runs: Runs) -> list[list[Row]]:
    """Evaluations of all seeds after the same frames, frames ascending."""
    points: dict[int, list[Row]] = defaultdict(list)
    for run in runs.values():
        for row in run:
            points[row.frames].append(row)
    return [points[frames] for frames in sorted(points)]


def _draw_task(panel: Axes, title: str, entries: Mapping[str, Runs]) -> None:
    last = 0
    for name, runs in entries.items():
        points = _by_frames(runs)
        frames = [point[0].frames for point in points]
        estimates = [bootstrap([row.episode_return for row in point]) for point in points]
        label = f"{METHODS['rl'][name].label} ({len(runs)} seed{'s' if len(runs) > 1 else ''})"
        panel.plot(frames, [each.value for each in estimates], color=method_color(name), lw=2, label=label)
        low = [each.value if each.low is None else each.low for each in estimates]
        high = [each.value if each.high is None else each.high for each in estimates]
        panel.fill_between(frames, low, high, color=method_color(name), alpha=0.2, lw=0)
        last = max(last, frames[-1])
    panel.set(title=title, xlabel="environment frames", ylabel="episode return", xlim=(0, max(last, 1)))
    panel.grid(alpha=0.3)


def _draw_published_curves(panel: Axes, curves: Sequence[PublishedCurve], max_frames: int) -> None:
    for index, curve in enumerate(curves):
        # One point beyond the axis lets the line run to its edge.
        shown = min(int(np.searchsorted(curve.frames, max_frames, side="right")) + 1, len(curve.frames))
        style: dict[str, Any] = dict(color=_GREYS[index % len(_GREYS)], ls=_DASHES[index % len(_DASHES)], lw=0.9)
        label = f"{curve.method}, published ({curve.num_seeds} seeds)"
        panel.plot(curve.frames[:shown], curve.mean[:shown], marker=".", markersize=4, label=label, **style)
    panel.set_xlim(0, max_frames)


def _draw_wall_clock(panel: Axes, groups: Groups) -> None:
    """Mean return against mean seconds of training, per evaluation; the dash tells the task."""
    for index, entries in enumerate(groups.values()):
        for name, runs in entries.items():
            points = _by_frames(runs)
            seconds = [np.mean([row.wall_s for row in point]) for point in points]
            returns = [np.mean([row.episode_return for row in point]) for point in points]
            panel.plot(seconds, returns, color=method_color(name), ls=_DASHES[index % len(_DASHES)], lw=2)
    names = dict.fromkeys(name for entries in groups.values() for name in entries)
    handles = [Line2D([], [], color=method_color(name), lw=2, label=METHODS["rl"][name].label) for name in names]
    if len(groups) > 1:
        handles += [
            Line2D([], [], color="0.3", ls=_DASHES[index % len(_DASHES)], label=group[1])
            for index, group in enumerate(groups)
        ]
    panel.legend(handles=handles, fontsize=7, loc="best", framealpha=0.7)
    panel.set(title="wall-clock", xlabel="seconds of training", ylabel="episode return")
    panel.set_xlim(left=0)
    panel.grid(alpha=0.3)


def draw_successes(rows: Sequence[Row], path: Path, *, published: bool = True) -> None:
    """
    One panel per task: success rates of all seeds together with Wilson's 95 % intervals, small points for single seeds,
    grey marks for what others published of the same method.

    :param rows: evaluations of imitation, at least one
    :param path: png file
    :param published: whether to draw published rates
    """
    groups = group_rows(rows)
    tallest = max(len(entries) for entries in groups.values())
    figure, panels = _panels(len(groups), 3, (6.0, 1.2 + 0.42 * tallest))
    quoted = False
    for panel, (group, entries) in zip(panels, groups.items(), strict=False):
        for height, runs in enumerate(entries.values()):
            _draw_success(panel, height, [run[-1] for run in runs.values()])
        labels = [next(iter(runs.values()))[-1].label for runs in entries.values()]
        suite, task, obs, demos = group
        panel.set(title=f"{suite}/{task} ({obs}, {demos} demos)", xlabel="success %", xlim=(-3, 103))
        panel.set_yticks(range(len(labels)), labels)
        panel.set_ylim(len(labels) - 0.5, -0.5)
        panel.grid(axis="x", alpha=0.3)
        for quote in published_successes(suite, task) if published else []:
            if (entry := OUR_ENTRY.get(quote.method, "")) in entries:
                height = list(entries).index(entry)
                panel.plot(100 * quote.success, height, "D", color="0.55", markersize=6, mfc="none")
                quoted = True
    note = "Large: all seeds together with Wilson's 95 % interval. Small: single seeds."
    if quoted:
        note += " Grey diamonds: published, under another protocol (report.md)."
    figure.supxlabel(note, fontsize=8, color="0.4")
    _save(figure, path)


def _draw_success(panel: Axes, height: int, last: Sequence[Row]) -> None:
    estimate = pooled_success(last)
    if estimate is None:
        panel.text(2, height, "the task does not tell success", va="center", fontsize=8)
        return
    color = _IMITATION_COLORS[list(METHODS["imitation"]).index(last[0].method) % len(_IMITATION_COLORS)]
    assert estimate.low is not None
    assert estimate.high is not None
    panel.plot([100 * estimate.low, 100 * estimate.high], [height, height], color=color, lw=2.5)
    panel.plot(100 * estimate.value, height, "o", color=color, markersize=8)
    shares = [100 * row.success for row in last if row.success is not None]
    panel.plot(shares, [height + 0.22] * len(shares), ".", color=color, alpha=0.6, markersize=5)
