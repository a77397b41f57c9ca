"""
The paper's ablations of DiffTORI's imitation, each with a table, a figure and a report.

    python examples/ablations.py start --task metaworld/sweep-into --demos 10 --seeds 0 1 2 --out results/start

start: the optimisation starts from the base policy, from zero, or at random. horizon: 1, 2, 3, 4, 5 and 8 planned
actions, of which one is executed. latent: on or off. The base policy stands beside them. Demonstrations, evaluation and
continuation are those of examples/compare.py.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from compare import add_imitation_arguments, carry_out

from difftori_gym.comparison import ABLATIONS, plan_ablation
from difftori_gym.comparison.engines import add_engine_arguments


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """
    :param arguments: command line without the program
    :return: its values
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("ablation", choices=list(ABLATIONS), help="what is varied")
    add("--task", dest="tasks", nargs="+", required=True, help="metaworld/TASK, or another with a scripted expert")
    add("--seeds", nargs="+", type=int, default=[0], help="default: 0")
    add("--obs", default="state", help="state, pixels or pointcloud, default: state")
    add("--jobs", type=int, default=1, help="runs side by side, one thread each, default: 1")
    add("--out", type=Path, required=True, help="folder of the results")
    add("--device", default="auto", help="auto, cpu or cuda, default: auto")
    add("--eval-episodes", type=int, default=argparse.SUPPRESS, help="per evaluation, default: 50")
    add("--video", action=argparse.BooleanOptionalAction, default=False, help="film the policies")
    add("--set", nargs="+", action="extend", default=[], metavar="METHOD.KEY=VALUE", help="hyper-parameters, as json")
    add_imitation_arguments(parser.add_argument_group("imitation"))
    add_engine_arguments(parser)
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """
    :param arguments: command line without the program
    :return: exit code
    """
    values = parse_arguments(arguments)
    values.methods = ["difftori"]
    return carry_out("ablations", arguments, values, lambda settings: plan_ablation(values.ablation, settings))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
