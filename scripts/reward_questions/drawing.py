"""One figure a question: every seed a point, lines through their means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from reward_questions import known, metaworld, reinforcement

Rows = Sequence[dict[str, str]]
# Okabe and Ito's colours, as in the figures of comparisons; a learner keeps its colour.
COLORS = {
    "true cost": "black",
    "identified cost": "#0072B2",
    "f, true dynamics": "#009E73",
    "f, latent dynamics": "#E69F00",
    "f of the chunk": "#D55E00",
    "cloned policy": "#CC79A7",
    "old expert": "0.6",
}


def draw(data: Path, figures: Path) -> None:
    """
    :param data: folder of the csv files; a figure without rows is left out
    :param figures: folder of the figures
    """
    figures.mkdir(parents=True, exist_ok=True)
    for question, rows, draw_rows in (
        ("correlation", known.correlation_table(data).rows, _correlation),
        ("transfer", known.transfer_table(data).rows, _transfer),
        ("ranking", metaworld.table(data).rows, _ranking),
        ("reward", reinforcement.table(data).rows, _reward),
    ):
        if rows:
            figure = draw_rows(rows)
            figure.savefig(figures / f"reward_{question}.png", dpi=120)


def _panels(number: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(4.6 * number, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(1, number, squeeze=False).flatten())


def _named(rows: Rows, column: str) -> list[str]:
    """Values of a column, in the order of the rows."""
    return list(dict.fromkeys(row[column] for row in rows))


def _line(
    axis: Axes, rows: Rows, where: Callable[[dict[str, str]], float], value: str, label: str, **style: str
) -> None:
    points = [(where(row), float(row[value])) for row in rows if row[value]]
    places = sorted({place for place, _ in points})
    means = [np.mean([found for place, found in points if place == at]) for at in places]
    axis.plot(places, means, label=label, linewidth=1.2, **style)
    axis.plot(*zip(*points, strict=True), ".", color=style["color"], markersize=4)


def _correlation(rows: Rows) -> Figure:
    rows = [row for row in rows if "across" not in row["plans"] and row["learner"] != "true cost"]
    kinds = _named(rows, "plans")
    figure, panels = _panels(len(_named(rows, "system")))
    for axis, system in zip(panels, _named(rows, "system"), strict=True):
        for learner in _named(rows, "learner"):
            own = [row for row in rows if (row["system"], row["learner"]) == (system, learner)]
            if own:
                _line(axis, own, lambda row: kinds.index(row["plans"]), "spearman", learner, color=COLORS[learner])
        axis.axhline(0.0, color="black", linewidth=0.5)
        axis.set(title=system, xlabel="plans that are ordered", ylabel="rank correlation within a state")
        axis.set_xticks(range(len(kinds)), kinds)
        axis.set_ylim(-0.7, 1.05)
        axis.legend(fontsize=7, loc="lower left")
    return figure


def _transfer(rows: Rows) -> Figure:
    rows = [row for row in rows if row["learner"] != "true cost"]
    figure, panels = _panels(len(_named(rows, "system")))
    factors = sorted({float(row["factor"]) for row in rows})
    for axis, system in zip(panels, _named(rows, "system"), strict=True):
        for learner in _named(rows, "learner"):
            for way, dash in (("planned", "-"), ("policy", "--")):
                own = [row for row in rows if (row["system"], row["learner"], row["way"]) == (system, learner, way)]
                if own:
                    style = dict(color=COLORS[learner], linestyle=dash)
                    _line(
                        axis,
                        own,
                        lambda row: factors.index(float(row["factor"])),
                        "regret",
                        f"{learner}, {way}",
                        **style,
                    )
        axis.axhline(1.0, color="black", linewidth=0.5)
        axis.set(
            title=system, xlabel="mass, times that of the demonstrations", ylabel="regret: 0 true cost planned, 1 idle"
        )
        axis.set_xticks(range(len(factors)), [f"{factor:g}" for factor in factors])
        axis.set_yscale("symlog", linthresh=0.01)
        axis.set_ylim(-0.002, None)
        axis.legend(fontsize=6, loc=(0.02, 0.12))
    return figure


def _ranking(rows: Rows) -> Figure:
    tasks = _named(rows, "task")
    figure, panels = _panels(len(tasks))
    styles = {"chunk": "#D55E00", "latent": "#E69F00"}
    for axis, task in zip(panels, tasks, strict=True):
        here = [row for row in rows if row["task"] == task]
        for objective in _named(here, "objective"):
            own = [row for row in here if (row["objective"], row["score"]) == (objective, "objective")]
            _line(axis, own, lambda row: float(row["sigma"]), "accuracy", f"f, {objective}", color=styles[objective])
        own = [row for row in here if (row["objective"], row["score"]) == ("chunk", "distance to clone")]
        if own:
            _line(axis, own, lambda row: float(row["sigma"]), "accuracy", "nearness to the clone", color="#CC79A7")
        axis.axhline(0.5, color="black", linewidth=0.5)
        axis.set(title=task, xlabel="deviation of the perturbation", ylabel="expert above perturbed", xscale="log")
        axis.set_ylim(0.3, 1.02)
    panels[-1].legend(fontsize=7, loc="lower right")
    return figure


def _reward(rows: Rows) -> Figure:
    figure, (axis,) = _panels(1)
    colors = dict(zip(reinforcement.REWARDS, ("#D55E00", "#0072B2", "#E69F00", "black"), strict=True))
    for reward in _named(rows, "reward"):
        own = [row for row in rows if row["reward"] == reward]
        if reward == "clone":
            success = np.mean([float(row["success"]) for row in own])
            axis.axhline(100 * success, color="#CC79A7", linestyle="--", label="imitation alone")
            continue
        percent = [{**row, "success": str(100 * float(row["success"]))} for row in own]
        _line(axis, percent, lambda row: float(row["frames"]) / 1000, "success", reward, color=colors[reward])
    axis.set(title=rows[0]["task"], xlabel="thousands of environment frames", ylabel="success, %")
    axis.set_ylim(-3, 103)
    axis.legend(fontsize=7, loc="best", title="reward", title_fontsize=7)
    return figure
