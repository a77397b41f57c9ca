"""
Where the runs of a comparison run: on this machine, on a Ray cluster, or in the queue of Slurm.

What an engine needs beyond the standard library is imported when that engine is chosen.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path

from difftori_gym.comparison.engines.jobs import Engine, EngineError, Event, Job, Progress

__all__ = [
    "ENGINES",
    "Engine",
    "EngineError",
    "EngineOptions",
    "Event",
    "Job",
    "Progress",
    "add_engine_arguments",
    "engine_from",
    "make_engine",
]

ENGINES = ("local", "ray", "slurm")

# The engine that an option is for.
_ONLY_FOR = {"address": "ray", "cpus_per_run": "ray", "gpus_per_run": "ray", "storage": "ray", "slurm": "slurm"}


@dataclass(frozen=True)
class EngineOptions:
    """
    :param jobs: local: processes side by side
    :param out: ray, slurm: folder of the results
    :param address: ray: ``auto`` or ``HOST:PORT`` of a cluster, None to start one on this machine
    :param cpus_per_run: ray: processors that a run takes, default 1
    :param gpus_per_run: ray: GPUs that a run takes, or a part of one, default 0
    :param storage: ray: URI that keeps checkpoints and results where nodes share no folder
    :param slurm: slurm: options of its jobs, such as ``partition``
    """

    jobs: int = 1
    out: Path = Path()
    address: str | None = None
    cpus_per_run: float | None = None
    gpus_per_run: float | None = None
    storage: str | None = None
    slurm: dict[str, str] = field(default_factory=dict)


def make_engine(name: str, options: EngineOptions) -> Engine:
    """
    :param name: one of :data:`ENGINES`
    :param options: those of other engines must be left out
    :return: the engine, to be used in a ``with`` block
    :raises ValueError: if there is no such engine, or an option does not fit it
    :raises ImportError: if what it needs is not installed, naming the command that installs it
    """
    if name not in ENGINES:
        raise ValueError(f"--engine must be one of {', '.join(ENGINES)}, got {name!r}.")
    for option, engine in _ONLY_FOR.items():
        if engine != name and getattr(options, option):
            raise ValueError(f"--{option.replace('_', '-')} is for --engine {engine}, not for {name}.")
    if name == "local":
        from difftori_gym.comparison.engines.local import LocalEngine

        return LocalEngine(options.jobs)
    if name == "ray":
        from difftori_gym.comparison.engines.ray import RayEngine

        cpus = 1.0 if options.cpus_per_run is None else options.cpus_per_run
        return RayEngine(options.out, options.address, cpus, options.gpus_per_run or 0.0, options.storage)
    from difftori_gym.comparison.engines.slurm import SlurmEngine

    return SlurmEngine(options.out, options.slurm)


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    """:param parser: of a program that has ``--jobs`` and ``--out``"""
    add = parser.add_argument_group("where runs run").add_argument
    add("--engine", default="local", help=f"one of {', '.join(ENGINES)}, default: local")
    add("--address", help="ray: auto or HOST:PORT of a cluster; default: one is started on this machine")
    add("--cpus-per-run", type=float, help="ray: processors that a run takes, default: 1")
    add("--gpus-per-run", type=float, help="ray: GPUs that a run takes, such as 0.25, default: 0")
    add("--storage", metavar="URI", help="ray: keeps checkpoints and results where nodes share no folder: s3://...")
    add("--slurm", nargs="+", default=[], metavar="KEY=VALUE", help="slurm: options of its jobs, such as partition=gpu")


def engine_from(values: argparse.Namespace) -> Engine:
    """
    :param values: of a parser with :func:`add_engine_arguments`, ``--jobs`` and ``--out``
    :return: the engine asked for, as of :func:`make_engine`
    """
    slurm = {}
    for text in values.slurm:
        key, equals, value = text.partition("=")
        if not (key and equals and value):
            raise ValueError(f"--slurm needs KEY=VALUE, such as partition=gpu, got {text!r}.")
        slurm[key] = value
    names = ("jobs", "out", "address", "cpus_per_run", "gpus_per_run", "storage")
    return make_engine(values.engine, EngineOptions(slurm=slurm, **{name: getattr(values, name) for name in names}))
