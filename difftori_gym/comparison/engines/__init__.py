"""
Where the runs of a comparison run: on this machine, on a Ray cluster, or in the queue of Slurm.

What an engine needs beyond the standard library is imported when that engine is chosen.
"""

from __future__ import annotations

import argparse
from dataclasses import fields

from difftori_gym.comparison.engines.jobs import Engine, EngineError, EngineOptions, Event, Job, Progress

__all__ = ["ENGINES", "Engine", "EngineError", "EngineOptions", "Event", "Job", "Progress", "add_engine_arguments",
           "engine_from", "make_engine"]  # fmt: skip

ENGINES = ("local", "ray", "slurm")


_OPTIONS = {option.name: dict(option.metadata) for option in fields(EngineOptions) if option.metadata}


def make_engine(name: str, options: EngineOptions) -> Engine:
    """
    An engine, to be used in a ``with`` block.

    :raises ValueError: if there is no such engine, or an option does not fit it
    :raises ImportError: if what it needs is not installed, naming the command that installs it
    """
    if name not in ENGINES:
        raise ValueError(f"--engine must be one of {', '.join(ENGINES)}, got {name!r}.")
    for option, about in _OPTIONS.items():
        if about["engine"] != name and getattr(options, option):
            raise ValueError(f"--{option.replace('_', '-')} is for --engine {about['engine']}, not for {name}.")
    if name == "local":
        from difftori_gym.comparison.engines.local import LocalEngine

        return LocalEngine(options.jobs)
    if name == "ray":
        from difftori_gym.comparison.engines.ray import RayEngine

        return RayEngine(options)
    from difftori_gym.comparison.engines.slurm import SlurmEngine

    return SlurmEngine(options.out, options.slurm or {})


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    """:param parser: of a program that has ``--jobs`` and ``--out``"""
    add = parser.add_argument_group("where runs run").add_argument
    add("--engine", default="local", help=f"one of {', '.join(ENGINES)}, default: local")
    for option, about in _OPTIONS.items():
        add(f"--{option.replace('_', '-')}", **{key: value for key, value in about.items() if key != "engine"})


def engine_from(values: argparse.Namespace) -> Engine:
    """The engine asked for, as of :func:`make_engine`, by a parser with :func:`add_engine_arguments`."""
    given = {option.name: getattr(values, option.name) for option in fields(EngineOptions)}
    for text in given["slurm"] or ():
        key, equals, value = text.partition("=")
        if not (key and equals and value):
            raise ValueError(f"--slurm needs KEY=VALUE, such as partition=gpu, got {text!r}.")
    slurm = dict(text.split("=", 1) for text in given["slurm"] or ())
    return make_engine(values.engine, EngineOptions(**{**given, "slurm": slurm}))
