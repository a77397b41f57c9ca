"""
Train methods on tasks with several seeds, and draw, film and tabulate how well they do.

Reinforcement learning, with --frames:

    python examples/compare.py --methods difftori tdmpc sac --tasks dm_control/cartpole-swingup --seeds 0 1 \
        --frames 40000 --jobs 2 --out results/demo

Imitation, with --demos or --demos-from; demonstrations come from the task's scripted expert:

    python examples/compare.py --methods bc bcrnn ibc diffusion flow mip residual difftori --base bc mip \
        --tasks metaworld/sweep-into --demos 10 --size small --seeds 0 1 2 --jobs 2 --out results/sweep-into

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
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from rich.console import Console

from difftori_gym.baselines.methods import METHODS, SIZES, STEPS
from difftori_gym.comparison import ComparisonSettings, Run, compare, plan_runs
from difftori_gym.comparison.engines import EngineError, add_engine_arguments, engine_from
from difftori_gym.comparison.exporting import export_runs
from difftori_gym.comparison.folder_lock import FolderHeldError
from difftori_gym.comparison.progress import ProgressBars
from difftori_gym.comparison.settings import json_object


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """
    :param arguments: command line without the program
    :return: its values
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add(
        "--methods",
        nargs="+",
        required=True,
        help=f"one or more of {', '.join(METHODS['rl'])}; for imitation see below",
    )
    add(
        "--tasks",
        nargs="+",
        required=True,
        help="suite/TASK, any Gymnasium id with Box actions, or dm_control/paper or metaworld/paper: the paper's",
    )
    add("--seeds", nargs="+", type=int, default=[0], help="default: 0")
    add("--obs", default="state", help="state, pixels or pointcloud, default: state")
    add("--jobs", type=int, default=1, help="runs side by side, one thread each, default: 1")
    add("--out", type=Path, required=True, help="folder of the results")
    add("--device", default="auto", help="auto, cpu or cuda, default: auto")
    add(
        "--eval-freq",
        type=int,
        default=argparse.SUPPRESS,
        help="frames or gradient steps between evaluations, default: a tenth of --frames; imitation: only when trained",
    )
    add("--eval-episodes", type=int, default=argparse.SUPPRESS, help="per evaluation, default: 5, imitation: 50")
    add(
        "--episode-steps",
        type=int,
        default=argparse.SUPPRESS,
        help="frames after which an episode is cut, default: the environment's own limit, 1000 where Gymnasium knows "
        "none; in imitation 200 in MetaWorld",
    )
    add("--video", action=argparse.BooleanOptionalAction, default=True, help="film the final policies")
    add("--export", action="store_true", help="write trained policies as ONNX files, OUT/runs/NAME/policy.onnx")
    add("--published", action=argparse.BooleanOptionalAction, default=True, help="show published results")
    add("--set", nargs="+", action="extend", default=[], metavar="METHOD.KEY=VALUE", help="hyper-parameters, as json")
    add = parser.add_argument_group("reinforcement learning").add_argument
    add("--frames", type=int, default=argparse.SUPPRESS, help="environment frames per run, action repeat included")
    add(
        "--obs-kwargs", type=json_object, default=argparse.SUPPRESS, help='such as \'{"size": 64, "grey": true}\', json'
    )
    add("--n-envs", type=int, default=argparse.SUPPRESS, help="training environments per run, default: 1")
    add(
        "--action-repeat",
        type=int,
        default=argparse.SUPPRESS,
        help="frames per agent step, default: the tasks' presets",
    )
    add_imitation_arguments(parser.add_argument_group("imitation"))
    add_engine_arguments(parser)
    return parser.parse_args(arguments)


def add_imitation_arguments(group: argparse._ArgumentGroup) -> None:
    """
    Arguments of an imitation comparison, examples/ablations.py included.

    :param group: where they are added; what is not given is left out
    """

    def add(name: str, **keywords: Any) -> None:
        group.add_argument(name, default=argparse.SUPPRESS, **keywords)

    add("--demos", type=int, help="demonstrations; with --demos-from: the first ones, default: all")
    add("--demos-from", type=Path, help="a data set, or a folder of data sets named TASK-OBS or TASK")
    add("--leave-out", nargs="+", metavar="EPISODE", help="names of episodes of --demos-from not to read: demo_3")
    add("--base", nargs="+", help="methods that train base policies, such as bc, mip or flow; default: bc")
    add("--steps", type=int, help=f"gradient steps, default: {STEPS['published']}, small: {STEPS['small']}")
    add("--size", choices=SIZES, help="published sizes, or small ones of ours for a CPU; default: published")
    add("--sample", action="store_true", help="draw latents, noise and modes in evaluation")
    add("--env-kwargs", type=json_object, help="arguments of make_env in evaluation, as json")


def parse_overrides(texts: list[str]) -> dict[str, dict[str, Any]]:
    """
    :param texts: ``method.key=value`` each, the value as json or, failing that, as text; ``method.key.inner=value``
        reaches inside a dictionary
    :return: values by method and key
    :raises ValueError: on another form
    """
    overrides: dict[str, dict[str, Any]] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        method, dot, key = name.partition(".")
        if not (equals and dot and method and key):
            raise ValueError(f"--set needs METHOD.KEY=VALUE, such as sac.learning_rate=3e-4, got {text!r}.")
        inside = overrides.setdefault(method, {})
        *path, last = key.split(".")
        for part in path:
            inside = inside.setdefault(part, {})
        try:
            inside[last] = json.loads(value)
        except json.JSONDecodeError:
            inside[last] = value
    return overrides


def plan(
    values: argparse.Namespace, plan_all: Callable[[ComparisonSettings], list[Run]]
) -> tuple[ComparisonSettings, list[Run]]:
    """
    Check the request.

    :param values: of the command line
    :param plan_all: finds the runs
    :return: what is compared, and the runs
    :raises ValueError: if it cannot be carried out
    :raises ImportError: if a suite is not installed
    """
    names = {field.name for field in fields(ComparisonSettings)}
    given = {name: value for name, value in vars(values).items() if name in names}
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    settings = ComparisonSettings(**given, overrides=parse_overrides(values.set))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # environments are built for checks; runs warn in their own output
        return settings, plan_all(settings)


def carry_out(
    program: str,
    arguments: list[str],
    values: argparse.Namespace,
    plan_all: Callable[[ComparisonSettings], list[Run]] = plan_runs,
) -> int:
    """
    :param program: name of the example, for messages
    :param arguments: command line without the program
    :param values: the same, parsed
    :param plan_all: finds the runs
    :return: exit code
    """
    console = Console(stderr=True)
    if not console.is_terminal:  # a log file has no use for bars
        logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
        logging.getLogger("difftori_gym").setLevel(logging.INFO)
    command = shlex.join(["python", f"examples/{program}.py", *arguments])
    try:
        settings, runs = plan(values, plan_all)
        engine = engine_from(values)
    except (ValueError, ImportError, RuntimeError) as error:  # the last where nothing can be drawn
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    try:
        with ProgressBars(console) as display:
            died = compare(settings, runs, display, command, engine)
    except (FolderHeldError, EngineError) as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{program}: interrupted; the same command continues.", file=sys.stderr)
        return 130
    for name, traceback in died.items():
        print(f"{program}: {name} died\n{traceback}", file=sys.stderr)
    for name in ("curves.png", "success.png", "report.md", "report.html"):
        if (settings.out / name).exists():
            print(settings.out / name)
    return 1 if died else 0


def main(arguments: list[str]) -> int:
    """
    :param arguments: command line without the program
    :return: exit code
    """
    values = parse_arguments(arguments)
    code = carry_out("compare", arguments, values)
    if values.export and code in (0, 1):
        for told in export_runs(values.out):
            if isinstance(told, Path):
                print(told)
            else:
                print(f"compare: {told}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
