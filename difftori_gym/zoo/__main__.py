"""
The RL Zoo's programs with our learners and environments in them.

    python -m difftori_gym.zoo train --algo difftori --env dm_control/cartpole-swingup

``train``, ``enjoy``, ``plot_train``, ``plot_from_file`` and ``all_plots`` take the arguments of rl_zoo3's programs of
these names; ``hyperparameters`` writes our files of hyper-parameters anew.
"""

from __future__ import annotations

import importlib
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

from difftori_gym.zoo.registration import ALGORITHMS, hyperparameters_file, register, register_environment

COMMANDS = ("train", "enjoy", "plot_train", "plot_from_file", "all_plots")


def option(arguments: Sequence[str], *names: str) -> str | None:
    """
    :param arguments: of a command line
    :param names: spellings of an option that takes a value
    :return: its value, None if it is not given
    """
    for position, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name in names:
            return value if equals else next(iter(arguments[position + 1 :]), None)
    return None


def options(arguments: Sequence[str], name: str) -> list[str]:
    """
    :param arguments: of a command line
    :param name: of an option that takes several values
    :return: its values, none if it is not given
    """
    found: list[str] = []
    for position, argument in enumerate(arguments):
        given, equals, value = argument.partition("=")
        if given == name:
            following = itertools.takewhile(lambda word: not word.startswith("-"), arguments[position + 1 :])
            found += [value] if equals else following
    return found


def main(arguments: Sequence[str]) -> None:
    """
    :param arguments: of the command line, without the program's name
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
    for package in options(rest, "--gym-packages"):  # the Zoo's own way to environments that it does not know
        importlib.import_module(package)
    env, algorithm = option(rest, "--env"), option(rest, "--algo")
    if env is not None and command in ("train", "enjoy"):
        register_environment(env)
    if command == "train" and algorithm in ALGORITHMS and option(rest, "-conf", "--conf-file") is None:
        rest = [*rest, "--conf-file", str(hyperparameters_file(algorithm))]
    from rl_zoo3.cli import main as zoo

    sys.argv = ["difftori_gym.zoo", command, *rest]
    zoo()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main(sys.argv[1:])
