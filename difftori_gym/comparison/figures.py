"""Learning curves, and success rates with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from difftori_gym.baselines.methods import METHODS
from difftori_gym.comparison.results import Groups, Row, Runs, by_amount, group_rows
from difftori_gym.comparison.statistics import bootstrap, pooled_success
from difftori_gym.data.published import OUR_ENTRY, PublishedCurve, published_curves, published_successes

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
    """
    groups = group_rows(rows)
    figure, panels = _panels(len(groups) + 1, 4, (5.2, 4.0))
    sources: set[str] = set()
    for panel, (group, entries) in zip(panels, groups.items(), strict=False):
        max_frames = max(1, *(run[-1].frames for runs in entries.values() for run in runs.values()))
        for name, runs in entries.items():
            _draw_curve(panel, name, runs)
        panel.set(title=group.title, xlabel="environment frames", ylabel="episode return")
        panel.grid(alpha=0.3)
        curves = published_curves(*group[:3]) if published else []
        curves = [curve for curve in curves if curve.within(max_frames)]
        for index, curve in enumerate(curves):
            _draw_published(panel, index, curve, max_frames)
        panel.set_xlim(0, max_frames)
        sources |= {f"{curve.method}: {curve.source}" for curve in curves}
        panel.legend(fontsize=7, loc="best", framealpha=0.7)
    _draw_wall_clock(panels[len(groups)], groups)
    if sources:
        figure.supxlabel("Published curves. " + "; ".join(sorted(sources)) + ".", fontsize=7, color="0.4")
    _save(figure, path)


def _draw_curve(panel: Axes, name: str, runs: Runs) -> None:
    points, color = by_amount(runs), method_color(name)
    estimates = [bootstrap([row.episode_return for row in point]) for point in points.values()]
    label = f"{METHODS['rl'][name].label} ({len(runs)} seed{'s' if len(runs) > 1 else ''})"
    panel.plot(list(points), [each.value for each in estimates], color=color, lw=2, label=label)
    low = [each.value if each.low is None else each.low for each in estimates]
    high = [each.value if each.high is None else each.high for each in estimates]
    panel.fill_between(list(points), low, high, color=color, alpha=0.2, lw=0)


def _draw_published(panel: Axes, index: int, curve: PublishedCurve, max_frames: int) -> None:
    # One point beyond the axis lets the line run to its edge.
    shown = min(int(np.searchsorted(curve.frames, max_frames, side="right")) + 1, len(curve.frames))
    label = f"{curve.method}, published ({curve.num_seeds} seeds)"
    panel.plot(curve.frames[:shown], curve.mean[:shown], marker=".", markersize=4, label=label,
               color=_GREYS[index % len(_GREYS)], ls=_DASHES[index % len(_DASHES)], lw=0.9)  # fmt: skip


def _draw_wall_clock(panel: Axes, groups: Groups) -> None:
    """Mean return against mean seconds of training, per evaluation; the dash tells the task."""
    handles: dict[str, Line2D] = {}
    for index, entries in enumerate(groups.values()):
        for name, runs in entries.items():
            points = by_amount(runs).values()
            seconds = [np.mean([row.wall_s for row in point]) for point in points]
            returns = [np.mean([row.episode_return for row in point]) for point in points]
            panel.plot(seconds, returns, color=method_color(name), ls=_DASHES[index % len(_DASHES)], lw=2)
            handles[name] = Line2D([], [], color=method_color(name), lw=2, label=METHODS["rl"][name].label)
    tasks = [
        Line2D([], [], color="0.3", ls=_DASHES[index % len(_DASHES)], label=group.task)
        for index, group in enumerate(groups if len(groups) > 1 else ())
    ]
    panel.legend(handles=[*handles.values(), *tasks], fontsize=7, loc="best", framealpha=0.7)
    panel.set(title="wall-clock", xlabel="seconds of training", ylabel="episode return")
    panel.set_xlim(left=0)
    panel.grid(alpha=0.3)


def draw_successes(rows: Sequence[Row], path: Path, *, published: bool = True) -> None:
    """
    One panel per task: success rates of all seeds together with Wilson's 95 % intervals, small points for single seeds,
    grey marks for what others published of the same method.
    """
    groups = group_rows(rows)
    tallest = max(len(entries) for entries in groups.values())
    figure, panels = _panels(len(groups), 3, (6.0, 1.2 + 0.42 * tallest))
    note = "Large: all seeds together with Wilson's 95 % interval. Small: single seeds."
    quoted = ""
    for panel, (group, entries) in zip(panels, groups.items(), strict=False):
        last = {entry: [run[-1] for run in runs.values()] for entry, runs in entries.items()}
        for height, newest in enumerate(last.values()):
            _draw_success(panel, height, newest)
        panel.set(title=group.title, xlabel="success %", xlim=(-3, 103))
        panel.set_yticks(range(len(last)), [newest[0].label for newest in last.values()])
        panel.set_ylim(len(last) - 0.5, -0.5)
        panel.grid(axis="x", alpha=0.3)
        for quote in published_successes(*group[:2]) if published else []:
            if (entry := OUR_ENTRY.get(quote.method, "")) in last:
                panel.plot(100 * quote.success, list(last).index(entry), "D", color="0.55", markersize=6, mfc="none")
                quoted = " Grey diamonds: published, under another protocol (report.md)."
    figure.supxlabel(note + quoted, fontsize=8, color="0.4")
    _save(figure, path)


def _draw_success(panel: Axes, height: int, last: Sequence[Row]) -> None:
    estimate = pooled_success(last)
    if estimate is None or estimate.low is None or estimate.high is None:
        panel.text(2, height, "the task does not tell success", va="center", fontsize=8)
        return
    color = _IMITATION_COLORS[list(METHODS["imitation"]).index(last[0].method) % len(_IMITATION_COLORS)]
    panel.plot([100 * estimate.low, 100 * estimate.high], [height, height], color=color, lw=2.5)
    panel.plot(100 * estimate.value, height, "o", color=color, markersize=8)
    shares = [100 * row.success for row in last if row.success is not None]
    panel.plot(shares, [height + 0.22] * len(shares), ".", color=color, alpha=0.6, markersize=5)
