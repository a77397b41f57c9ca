"""
Collect demonstrations of a task from an expert.

    python examples/collect_demos.py --task metaworld/sweep-into --episodes 10 --obs state --out demos/sweep-into

MetaWorld's tasks, and Lift and Can of robosuite, have scripted experts; ManiSkill has a motion planner. Any other
task is demonstrated by a trained model: --policy FILE --algorithm sac. Only successful episodes are kept. Each is on
the disk when it is done: after an interruption the same command with --append goes on. Exit code: 0 when all is done,
1 when the expert fails too often, 2 when the request cannot be carried out, 130 when it was interrupted.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from difftori_gym.baselines.methods import METHODS
from difftori_gym.collection import CollectionReport, CollectionSettings, collect, make_expert
from difftori_gym.comparison.settings import json_object
from difftori_gym.envs import parse_task


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """
    :param arguments: command line without the program
    :return: its values
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--task", required=True, help="metaworld/TASK, robosuite/Lift, maniskill/PickCube, ...; any with --policy")
    add("--episodes", type=int, default=10, help="episodes that the data set shall hold, default: 10")
    add("--obs", default="state", choices=("state", "pixels", "pointcloud"), help="default: state")
    add("--out", type=Path, required=True, help="folder of the data set, in Minari's layout")
    add("--seed", type=int, default=0, help="seed of the first attempt, the next count on; default: 0")
    add("--policy", type=Path, default=None, help="file of a trained model, in place of the scripted expert")
    add(
        "--algorithm",
        default=None,
        help=f"method that saved it: one of {', '.join({**METHODS['rl'], **METHODS['imitation']})}",
    )
    add("--keep-failures", action="store_true", help="keep unsuccessful episodes too")
    add("--max-attempts", type=int, default=None, help="default: ten for each missing episode")
    add("--max-steps", type=int, default=None, help="steps of an episode, default: 200 in MetaWorld")
    add("--steps-after-success", type=int, default=None, help="cut so many steps after success, default: never")
    add("--append", action="store_true", help="go on with the data set in --out")
    add(
        "--env-kwargs", type=json_object, default={}, help='arguments of make_env as json, such as {"action_repeat": 2}'
    )
    return parser.parse_args(arguments)


def described(report: CollectionReport) -> str:
    """
    :param report: how it goes
    :return: how often the expert succeeded
    """
    if not report.tells_success:
        return f"{report.attempts} attempts; the environment does not tell success, all were kept"
    return f"expert solved {report.successes} of {report.attempts} ({100 * report.success_rate:.1f} %)"


def main(arguments: list[str]) -> int:
    """
    :param arguments: command line without the program
    :return: exit code
    """
    values = vars(parse_arguments(arguments))
    policy, algorithm, env_id = values.pop("policy"), values.pop("algorithm"), values.pop("task")
    try:
        settings = CollectionSettings(env_id=env_id, **values)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # suites warn of what they would rather have beside them
            expert = make_expert(parse_task(env_id), policy, algorithm)
    except (ValueError, ImportError) as error:
        print(f"collect_demos: {error}", file=sys.stderr)
        return 2
    reports = [CollectionReport(0, 0, 0)]
    columns = [TextColumn(env_id), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}")]
    code = 0
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as bar:
        shown = bar.add_task(expert.name, total=settings.episodes)

        def show(report: CollectionReport) -> None:
            reports.append(report)
            bar.update(shown, completed=report.episodes, description=described(report))

        try:
            collect(settings, expert, show)
        except KeyboardInterrupt:
            print("collect_demos: interrupted; the same command with --append goes on.", file=sys.stderr)
            code = 130
        except (ValueError, ImportError) as error:
            print(f"collect_demos: {error}", file=sys.stderr)
            code = 1 if len(reports) > 1 else 2
    if len(reports) > 1:
        print(f"{env_id}: {reports[-1].episodes} episodes in {settings.out}; {described(reports[-1])}")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
