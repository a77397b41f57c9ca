"""Success rates with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from difftori_gym.baselines.methods import METHODS
from difftori_gym.comparison.imitation.published import OUR_ENTRY, published_successes
from difftori_gym.comparison.imitation.report import pooled, rates
from difftori_gym.comparison.imitation.results import Group, ImitationRow, Seeds, newest
from difftori_gym.comparison.statistics import Estimate

# Okabe and Ito's colours, which readers with any colour vision tell apart; DiffTORI has the same as in other figures.
_COLORS = ("#E69F00", "#CC79A7", "#999999", "#009E73", "#D55E00", "#0072B2")
_COLUMNS = 3


def draw_successes(rows: Sequence[ImitationRow], path: Path, *, published: bool = True) -> None:
    """
    One panel per task: success rates of all seeds together with Wilson's 95 % intervals, small points for single seeds,
    grey marks for what others published of the same method.

    :param rows: evaluations, at least one
    :param path: png file
    :param published: whether to draw published rates
    """
    groups = newest(rows)
    columns = min(len(groups), _COLUMNS)
    lines = math.ceil(len(groups) / columns)
    tallest = max(len(entries) for entries in groups.values())
    figure = Figure(figsize=(6.0 * columns, (1.2 + 0.42 * tallest) * lines), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(lines, columns, squeeze=False).flatten()
    quoted = False
    for panel, (group, entries) in zip(panels, groups.items(), strict=False):
        _draw_task(panel, group, entries)
        quoted |= published and _draw_published(panel, group, list(entries))
    for panel in panels[len(groups) :]:
        panel.set_axis_off()
    note = "Large: all seeds together with Wilson's 95 % interval. Small: single seeds."
    if quoted:
        note += " Grey diamonds: published, under another protocol (report.md)."
    figure.supxlabel(note, fontsize=8, color="0.4")
    unfinished = path.with_name(f".{path.name}")
    figure.savefig(unfinished, dpi=120, format="png")
    unfinished.replace(path)


def _draw_task(panel: Axes, group: Group, entries: dict[str, Seeds]) -> None:
    """
    :param panel: where to draw
    :param group: suite, task, obs, number of demonstrations
    :param entries: newest evaluations by entry and seed
    """
    labels = []
    for height, seeds in enumerate(entries.values()):
        row = next(iter(seeds.values()))
        color = _COLORS[list(METHODS["imitation"]).index(row.method) % len(_COLORS)]
        labels.append(row.label)
        estimate = pooled(seeds)
        if estimate is None:
            panel.text(2, height, "the task does not tell success", va="center", fontsize=8)
            continue
        _draw_interval(panel, height, estimate, color)
        values = rates(seeds)
        panel.plot(values, [height + 0.22] * len(values), ".", color=color, alpha=0.6, markersize=5)
    suite, task, obs, demos = group
    panel.set(title=f"{suite}/{task} ({obs}, {demos} demos)", xlabel="success %", xlim=(-3, 103))
    panel.set_yticks(range(len(labels)), labels)
    panel.set_ylim(len(labels) - 0.5, -0.5)
    panel.grid(axis="x", alpha=0.3)


def _draw_interval(panel: Axes, height: float, estimate: Estimate, color: str) -> None:
    """
    :param panel: where to draw
    :param height: of the line
    :param estimate: a share
    :param color: of the line
    """
    assert estimate.low is not None
    assert estimate.high is not None
    panel.plot([100 * estimate.low, 100 * estimate.high], [height, height], color=color, lw=2.5)
    panel.plot(100 * estimate.value, height, "o", color=color, markersize=8)


def _draw_published(panel: Axes, group: Group, entries: list[str]) -> bool:
    """
    :param panel: where to draw
    :param group: suite, task, obs, number of demonstrations
    :param entries: what stands on the lines
    :return: whether there was anything to draw
    """
    drawn = False
    for quote in published_successes(group[0], group[1]):
        entry = OUR_ENTRY.get(quote.method)
        if entry in entries:
            panel.plot(100 * quote.success, entries.index(entry), "D", color="0.55", markersize=6, mfc="none")
            drawn = True
    return drawn
