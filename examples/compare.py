"""
Train methods on tasks with several seeds, and draw, film and tabulate how they learn.

    python examples/compare.py --methods difftori tdmpc sac --tasks dm_control/cartpole-swingup --seeds 0 1 \
        --frames 40000 --jobs 2 --out results/demo

Called again with the same --out it continues: finished runs are kept, an interrupted run goes on from its newest
checkpoint as if it had not stopped (docs/reliability.md says where that is not possible), and a larger --frames
continues finished ones. Exit code: 0 when all is done, 1 when
a run died, 2 when the request cannot be carried out, 130 when it was interrupted.
"""

from __future__ import annotations

import argparse
import json
import logging
import shlex
import sys
import warnings
from pathlib import Path
from typing import Any

from rich.console import Console

from difftori_gym.baselines.methods import METHODS
from difftori_gym.comparison import ComparisonSettings, compare, plan_runs
from difftori_gym.comparison.progress import ProgressBars


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """
    :param arguments: command line without the program
    :return: its values
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--methods", nargs="+", required=True, help=f"one or more of {', '.join(METHODS)}")
    add("--tasks", nargs="+", required=True, help="suite/TASK, or any Gymnasium id with a Box action space")
    add("--seeds", nargs="+", type=int, default=[0], help="default: 0")
    add("--frames", type=int, required=True, help="environment frames per run, action repeat included")
    add("--obs", default="state", help="state, pixels or pointcloud, default: state")
    add("--jobs", type=int, default=1, help="runs side by side, one thread each, default: 1")
    add("--out", type=Path, required=True, help="folder of the results")
    add("--device", default="auto", help="auto, cpu or cuda, default: auto")
    add("--eval-freq", type=int, default=None, help="frames between evaluations, default: a tenth of --frames")
    add("--eval-episodes", type=int, default=5, help="episodes per evaluation, default: 5")
    add("--n-envs", type=int, default=1, help="training environments per run, default: 1")
    add("--video", action=argparse.BooleanOptionalAction, default=True, help="film the final policies")
    add("--published", action=argparse.BooleanOptionalAction, default=True, help="draw published curves")
    add("--set", nargs="+", action="extend", default=[], metavar="METHOD.KEY=VALUE", help="hyper-parameters, as json")
    return parser.parse_args(arguments)


def parse_overrides(texts: list[str]) -> dict[str, dict[str, Any]]:
    """
    :param texts: ``method.key=value`` each, the value as json or, failing that, as text
    :return: values by method and key
    :raises ValueError: on another form
    """
    overrides: dict[str, dict[str, Any]] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        method, dot, key = name.partition(".")
        if not (equals and dot and method and key):
            raise ValueError(f"--set needs METHOD.KEY=VALUE, such as sac.learning_rate=3e-4, got {text!r}.")
        try:
            overrides.setdefault(method, {})[key] = json.loads(value)
        except json.JSONDecodeError:
            overrides.setdefault(method, {})[key] = value
    return overrides


def main(arguments: list[str]) -> int:
    """
    :param arguments: command line without the program
    :return: exit code
    """
    values = vars(parse_arguments(arguments))
    console = Console(stderr=True)
    if not console.is_terminal:  # a log file has no use for bars
        logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
        logging.getLogger("difftori_gym").setLevel(logging.INFO)
    try:
        overrides = parse_overrides(values.pop("set"))
        values.update({name: tuple(values[name]) for name in ("methods", "tasks", "seeds")})
        settings = ComparisonSettings(**values, overrides=overrides)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # environments are built once for checks; runs warn in their own output
            runs = plan_runs(settings)
    except (ValueError, ImportError, RuntimeError) as error:  # the last where nothing can be drawn
        print(f"compare: {error}", file=sys.stderr)
        return 2
    command = shlex.join(["python", "examples/compare.py", *arguments])
    try:
        with ProgressBars(console) as display:
            failures = compare(settings, runs, display, command)
    except KeyboardInterrupt:
        print("compare: interrupted; the same command continues.", file=sys.stderr)
        return 130
    for failure in failures:
        print(f"compare: {failure.name} died\n{failure.traceback}", file=sys.stderr)
    print(f"{settings.out / 'report.md'}\n{settings.out / 'curves.png'}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
