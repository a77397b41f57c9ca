"""The training curve of a card, from what Stable-Baselines3 and examples/compare.py write."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

WINDOW = 10
"""Training episodes that are averaged."""


@dataclass(frozen=True)
class Curve:
    """
    :param steps: agent steps ``[N]``
    :param returns: episode returns ``[N]``
    :param what: what they are, for the axis
    """

    steps: NDArray[np.float64]
    returns: NDArray[np.float64]
    what: str


def read_curve(path: Path) -> Curve:
    """
    :param path: csv of ``Monitor``, ``evaluations.npz`` of ``EvalCallback``, or ``results.csv`` of a comparison's run
    :return: its curve
    :raises ValueError: if it is neither, or empty
    """
    if path.suffix == ".npz":
        with np.load(path) as found:
            return _curve(found["timesteps"], found["results"].mean(axis=1), "evaluation", path)
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    names = set(rows[0]) if rows else set()
    if {"agent_steps", "episode_return"} <= names:
        steps = [float(row["agent_steps"]) for row in rows]
        return _curve(steps, [float(row["episode_return"]) for row in rows], "evaluation", path)
    if {"r", "l"} <= names:
        returns = np.array([float(row["r"]) for row in rows])
        means = [returns[max(0, end - WINDOW) : end].mean() for end in range(1, len(returns) + 1)]
        steps = np.cumsum([float(row["l"]) for row in rows]).tolist()
        return _curve(steps, means, f"training, mean of {WINDOW} episodes", path)
    raise ValueError(
        f"{path}: expected Monitor's csv, evaluations.npz or results.csv with rows, got the columns {sorted(names)}."
    )


def _curve(steps: object, returns: object, what: str, path: Path) -> Curve:
    curve = Curve(np.asarray(steps, np.float64), np.asarray(returns, np.float64), what)
    if not len(curve.steps):
        raise ValueError(f"{path}: expected at least one row, got none.")
    return curve


def draw_curve(curve: Curve, title: str, path: Path) -> None:
    """
    :param curve: what to draw
    :param title: of the figure
    :param path: png file
    """
    figure = Figure(figsize=(6.0, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot(curve.steps, curve.returns, marker="." if len(curve.steps) < 50 else None)
    axes.set(title=title, xlabel="agent steps", ylabel=f"return ({curve.what})")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
