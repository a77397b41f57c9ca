"""
Plan with known dynamics, and learn what is not known of them by differentiating the planner.

    python examples/known_dynamics.py --experiment all --out results/known_dynamics

swingup swings up a cart-pole and holds it. identify learns its masses and length, or the weights of its cost, from what
an expert does. imitate repeats the pendulum imitation of Amos et al. 2018 and of DiffTORI's appendix. modes says which
solvers and backward modes give the right gradient. Each prints a table and saves it as csv and Markdown, with figures.
Everything runs on the CPU. --quick takes smaller settings, to see that it works; its numbers mean little.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Callable
from pathlib import Path

import matplotlib
import torch
from known_dynamics_cartpole import (
    FIRST_GUESS,
    Identified,
    IdentifySettings,
    SwingUp,
    SwingUpSettings,
    Unknown,
    identify,
    swing_up,
)
from known_dynamics_learning import LearningSettings
from known_dynamics_modes import SOLVERS, compare_modes
from known_dynamics_pendulum import PUBLISHED, ImitationSettings, Outcome, PendulumImitation
from known_dynamics_systems import TIME_STEP, wrap

matplotlib.use("Agg")
from matplotlib import pyplot

Row = dict[str, object]
UNKNOWNS: tuple[Unknown, ...] = ("physics", "cost")


def save_table(rows: list[Row], folder: Path, name: str) -> None:
    """
    Print a table, and save it as csv and Markdown.

    :param rows: cells by heading, the same headings in each
    :param folder: where to
    :param name: of the files
    """

    def cell(value: object) -> str:
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    headings = list(rows[0])
    lines = [f"| {' | '.join(headings)} |", "|" + "---|" * len(headings)]
    lines += [f"| {' | '.join(cell(row[heading]) for heading in headings)} |" for row in rows]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    with open(folder / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, headings)
        writer.writeheader()
        writer.writerows(rows)
    print(f"\n{name}\n\n" + "\n".join(lines), flush=True)


def run_swing_up(folder: Path, quick: bool) -> SwingUp:
    """
    :param folder: where table and figure go
    :param quick: two starts instead of five
    :return: what was driven
    """
    settings = SwingUpSettings(angles=SwingUpSettings.angles[:2], steps=70) if quick else SwingUpSettings()
    driven = swing_up(settings)
    upright, angle = driven.seconds_to_upright(), driven.greatest_angle_of_last_second()
    rows: list[Row] = [
        {
            "first angle, rad": settings.angles[index],
            "upright after, s": upright[index].item(),
            "greatest angle of the last second, rad": angle[index].item(),
            "cart at the end, m": driven.states[index, -1, 0].item(),
            "cart at most, m": driven.states[index, :, 0].abs().max().item(),
            "force at most, of 10 N": driven.actions[index].abs().max().item(),
        }
        for index in range(len(settings.angles))
    ]
    save_table(rows, folder, "swingup")
    later = sum(driven.seconds[1:]) / max(len(driven.seconds) - 1, 1)
    print(f"first plans {driven.seconds[0]:.2f} s, later ones {1000 * later:.0f} ms of processor time for all starts")
    draw_swing_up(driven, folder / "swingup.png")
    return driven


def draw_swing_up(driven: SwingUp, path: Path) -> None:
    """
    :param driven: swing-ups
    :param path: of the figure
    """
    figure, axes = pyplot.subplots(1, 3, figsize=(10, 2.8), constrained_layout=True)
    seconds = TIME_STEP * torch.arange(driven.states.shape[1])
    curves = {
        "angle from upright, rad": wrap(driven.states[:, :, 1]).abs(),
        "cart, m": driven.states[:, :, 0],
        "force, of 10 N": driven.actions[:, :, 0],
    }
    for axis, (label, curve) in zip(axes, curves.items(), strict=True):
        axis.plot(seconds[: curve.shape[1]], curve.T)
        axis.set(xlabel="s", ylabel=label)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def run_identify(folder: Path, quick: bool) -> list[Identified]:
    """
    :param folder: where table and figure go
    :param quick: fewer and shorter plans
    :return: what was learned, physics and cost
    """
    settings = IdentifySettings(demonstrations=6, horizon=12, evaluations=25) if quick else IdentifySettings()
    found = [identify(unknown, settings) for unknown in UNKNOWNS]
    rows: list[Row] = []
    for each in found:
        values = zip(each.names, each.true, FIRST_GUESS[each.unknown], each.learned, strict=True)
        for name, true, guess, learned in values:
            row: Row = {"learned": each.unknown, "parameter": name, "true": true, "first guess": guess}
            rows.append({**row, "recovered": learned, "error, %": 100.0 * abs(learned / true - 1.0)})
    save_table(rows, folder, "identify")
    for each in found:
        print(f"{each.unknown}: loss {each.losses[0]:.2e} -> {min(each.losses):.2e}, {each.seconds:.0f} s")
    draw_identify(found, folder / "identify.png")
    return found


def draw_identify(found: list[Identified], path: Path) -> None:
    """
    :param found: what was learned
    :param path: of the figure
    """
    figure, axes = pyplot.subplots(1, len(found), figsize=(8, 2.8), constrained_layout=True, squeeze=False)
    for axis, each in zip(axes[0], found, strict=True):
        axis.plot(torch.tensor(each.history) / torch.tensor(each.true), label=each.names)
        axis.axhline(1.0, color="black", linewidth=0.5)
        axis.set(xlabel="evaluations of the loss", ylabel="value / true value", title=each.unknown, yscale="log")
        axis.legend(fontsize=7)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def run_imitate(folder: Path, quick: bool) -> list[Outcome]:
    """
    :param folder: where table and figure go
    :param quick: few learning steps
    :return: lines of the table
    """
    few = LearningSettings(steps=4, learning_rate=0.1, batch_size=20)
    settings = ImitationSettings(few, few, fit_steps=200, held_out=10) if quick else ImitationSettings()
    outcomes = [line for name in PUBLISHED for line in PendulumImitation(name, settings).run()]
    rows: list[Row] = []
    for each in outcomes:
        published = PUBLISHED[each.pendulum]
        known = published["expert" if each.method == "expert" else "DiffTORI"]
        rows.append(
            {
                "pendulum": each.pendulum,
                "plans by": each.method,
                "cost": each.test_cost,
                "published": ("expert " if each.method == "expert" else "DiffTORI ") + str(known),
                "/ expert": each.test_ratio,
                "published / expert": known / published["expert"],
                "cost, 100 more states": each.held_out_cost,
                "/ expert there": each.held_out_ratio,
                "first loss": each.losses[0] if each.losses else "",
                "last loss": each.losses[-1] if each.losses else "",
                "parameters": " ".join(f"{value:.4g}" for value in each.parameters),
                "s": each.seconds,
            }
        )
    save_table(rows, folder, "imitate")
    return outcomes


def run_modes(folder: Path, quick: bool) -> None:
    """
    :param folder: where the table goes
    :param quick: newton only
    """
    solvers = {"newton": SOLVERS["newton"]} if quick else SOLVERS
    settings = IdentifySettings(demonstrations=4 if quick else 8, horizon=12)
    rows: list[Row] = [
        {
            "solver": each.solver,
            "iterations": each.iterations,
            "backward mode": each.backward_mode,
            "loss error": each.loss_error,
            "gradient error": each.gradient_error,
            "cosine": each.cosine,
            "s": each.seconds,
        }
        for each in compare_modes(settings, solvers)
    ]
    save_table(rows, folder, "modes")


EXPERIMENTS: dict[str, Callable[[Path, bool], object]] = {
    "swingup": run_swing_up,
    "identify": run_identify,
    "imitate": run_imitate,
    "modes": run_modes,
}


def main(arguments: list[str]) -> int:
    """
    :param arguments: command line without the program
    :return: exit code
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--experiment", choices=[*EXPERIMENTS, "all"], default="all", help="default: all")
    parser.add_argument("--out", type=Path, default=Path("results/known_dynamics"), help="folder of tables and figures")
    parser.add_argument("--quick", action="store_true", help="smaller settings, for tests")
    values = parser.parse_args(arguments)
    for name, experiment in EXPERIMENTS.items():
        if values.experiment in (name, "all"):
            begin = time.process_time()
            experiment(values.out, values.quick)
            print(f"{name}: {time.process_time() - begin:.0f} s of processor time", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
