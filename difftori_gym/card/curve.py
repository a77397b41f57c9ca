"""The training curve of a card, from what Stable-Baselines3 and examples/compare.py write."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

WINDOW = 10
"""Training episodes that are averaged."""
_MONITOR = ["r", "l", "t"]  # Monitor's columns, after which those of its info_keywords stand


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
    :return: its curve; a last line that is cut is left out, training may go on or have been killed
    :raises ValueError: naming file and line, if it is neither, empty, or damaged
    """
    if path.suffix == ".npz":
        return _evaluations(path)
    names, lines = _read_csv(path)
    if {"steps", "episode_return"} <= set(names):
        steps, returns = _numbers(names, lines, ("steps", "episode_return"), path).T
        return _curve(steps, returns, "evaluation", path)
    if {"r", "l"} <= set(names):
        returns, lengths = _numbers(names, lines, ("r", "l"), path).T
        means = [returns[max(0, end - WINDOW) : end].mean() for end in range(1, len(returns) + 1)]
        return _curve(np.cumsum(lengths), means, f"training, mean of {WINDOW} episodes", path)
    raise ValueError(
        f"{path}: expected Monitor's csv, evaluations.npz or results.csv with rows, got the columns {sorted(names)}."
    )


def _evaluations(path: Path) -> Curve:
    try:
        with path.open("rb") as file, np.load(file) as found:
            return _curve(found["timesteps"], found["results"].mean(axis=1), "evaluation", path)
    except (KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path}: expected timesteps and results as EvalCallback saves them, got none that can be read ({error})."
        ) from error


def _read_csv(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """
    :return: names of the columns; number and cells of each line. Monitor appends to a new file without a line of names
    :raises ValueError: if it is no text
    """
    try:
        reader = csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline=""))
        lines = [(reader.line_num, cells) for cells in reader if cells and not cells[0].startswith("#")]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: expected csv in UTF-8, got {error}. Save it again in UTF-8.") from error
    if not lines:
        return [], []
    names = lines[0][1]
    if len(names) >= len(_MONITOR) and all(map(_is_number, names[: len(_MONITOR)])):
        return [*_MONITOR, *names[len(_MONITOR) :]], lines
    return names, [(number, cells) for number, cells in lines if cells != names]  # joined files repeat it


def _numbers(
    names: list[str], lines: list[tuple[int, list[str]]], wanted: Sequence[str], path: Path
) -> NDArray[np.float64]:
    """
    :return: the numbers of the wanted columns, ``[N, len(wanted)]``
    :raises ValueError: naming the line, if one that is not the last does not hold them
    """
    columns = [names.index(name) for name in wanted]
    found = []
    for index, (number, cells) in enumerate(lines):
        if len(cells) == len(names) and all(_is_number(cells[column]) for column in columns):
            found.append([float(cells[column]) for column in columns])
        elif index < len(lines) - 1:
            raise ValueError(
                f"{path}, line {number}: expected {len(names)} columns with numbers under {' and '.join(wanted)}, got "
                f"{','.join(cells)}. Two environments may have written to it at once: remove the line, and give each "
                "Monitor a file of its own."
            )
    return np.array(found, np.float64).reshape(-1, len(columns))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _curve(steps: object, returns: object, what: str, path: Path) -> Curve:
    curve = Curve(np.asarray(steps, np.float64), np.asarray(returns, np.float64), what)
    if not len(curve.steps):
        raise ValueError(f"{path}: expected at least one row, got none.")
    return curve


def draw_curve(curve: Curve, title: str, path: Path) -> None:
    """Write the figure, a png file."""
    figure = Figure(figsize=(6.0, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot(curve.steps, curve.returns, marker="." if len(curve.steps) < 50 else None)
    axes.set(title=title, xlabel="agent steps", ylabel=f"return ({curve.what})")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
