"""
The RL Zoo's programs with our learners and environments in them.

    python -m difftori_gym.zoo train --algo difftori --env dm_control/cartpole-swingup

``train``, ``enjoy``, ``plot_train``, ``plot_from_file`` and ``all_plots`` take the arguments of rl_zoo3's programs of
these names; ``hyperparameters`` writes our files of hyper-parameters anew.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from difftori_gym.zoo.registration import ALGORITHMS, hyperparameters_file, register, register_environment

COMMANDS = ("train", "enjoy", "plot_train", "plot_from_file", "all_plots")


def read_options(arguments: Sequence[str]) -> argparse.Namespace:
    """:return: what is needed here of a command line for rl_zoo3's programs"""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for option in ("--env", "--algo"):
        parser.add_argument(option)
    parser.add_argument("-conf", "--conf-file")
    parser.add_argument("--gym-packages", nargs="*", action="extend", default=[])
    return parser.parse_known_args(arguments)[0]


def main(arguments: Sequence[str]) -> None:
    """
    Run one of the programs, by arguments without the program's name.

    :raises SystemExit: for another command
    """
    command, *rest = arguments or [""]
    if command == "hyperparameters":
        from difftori_gym.zoo.hyperparameters import write

        write(Path(__file__).parent, ALGORITHMS)
        return
    if command not in COMMANDS:
        raise SystemExit(f"Unknown command {command!r}. Choices: {', '.join((*COMMANDS, 'hyperparameters'))}.")
    register()
    given = read_options(rest)
    for package in given.gym_packages:  # the Zoo's own way to environments that it does not know
        importlib.import_module(package)
    if given.env is not None and command in ("train", "enjoy"):
        register_environment(given.env)
    if command == "train" and given.algo in ALGORITHMS and given.conf_file is None:
        rest = [*rest, "--conf-file", str(hyperparameters_file(given.algo))]
    from rl_zoo3.cli import main as zoo

    sys.argv = ["difftori_gym.zoo", command, *rest]
    zoo()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main(sys.argv[1:])
