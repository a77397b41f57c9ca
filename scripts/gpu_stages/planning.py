"""Stage a: a plan, its derivative and an update, with and without recorded graphs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from difftori_gym import DiffTORI
from difftori_gym.baselines import TDMPC
from difftori_gym.learning.captured import Captured
from difftori_gym.learning.cuda_graphs import synchronizations
from difftori_gym.models import LatentObjective
from difftori_gym.models.call_lists.fresh import fresh_lists
from difftori_gym.trajopt import TrajectoryOptimizer
from gpu_stages.stage import WALKER, Noise, Stage, filled, heads, way

ITERATIONS = 100  # of the paper
SOLVERS = ("lm", "adam")
LEARNERS: dict[str, type[DiffTORI]] = {"DiffTORI": DiffTORI, "TD-MPC": TDMPC}


def run(stage: Stage) -> None:
    """:param stage: what is measured with"""
    plans = stage.table(
        "a_plans", ("size", "batch", "solver", "iterations", "what", "way"), ("ms", "slowest_ms", "calls", "peak_mib")
    )
    size, iterations = stage.choose("paper", "small"), stage.choose(ITERATIONS, 2)
    for batch in stage.choose((1, 1024, 128), (1, 2)):
        for solver in stage.choose(SOLVERS, ("lm",)):
            for what in ("plan", "plan and differentiate"):
                for manner in ("graph", "eager", "compiled"):
                    if manner == "compiled" and (stage.smoke or what != "plan"):
                        continue
                    key = dict(size=size, batch=batch, solver=solver, iterations=iterations, what=what, way=manner)
                    stage.row(plans, lambda key=key: _plan(stage, **key), 20.0, **key)
    _updates(stage)


def _plan(stage: Stage, *, size: str, batch: int, solver: str, iterations: int, what: str, way: str) -> dict[str, Any]:
    from latent_problem import DISCOUNT, make_problem

    problem = make_problem(size, batch, stage.device)
    mode = "none" if what == "plan" else "truncated"
    optimizer = TrajectoryOptimizer(
        solver=solver, max_iterations=iterations, num_starts=1, backward_mode=mode, bounds="project"
    )
    parameters = list(problem.model.parameters())

    def function(tensors: Sequence[Tensor]) -> list[Tensor]:
        with fresh_lists():
            objective = LatentObjective(problem.model, tensors[0], discount=DISCOUNT, compile=way == "compiled")
            solution = optimizer(objective, tensors[1])
        if mode == "none":
            return [solution.best_actions]
        gradients = torch.autograd.grad(solution.actions.square().mean(), parameters, materialize_grads=True)
        return [solution.actions.detach(), gradients[0]]  # the others are computed as well

    captured = Captured("The plan")
    job = lambda: captured(function, [problem.z0, problem.start])  # noqa: E731
    return timed(stage, job, "eager" if way == "compiled" else way)


def timed(stage: Stage, job: Callable[[], object], manner: str, seconds: float = 5.0) -> dict[str, Any]:
    """
    :param stage: where the job runs
    :param job: one call
    :param manner: see :func:`way`
    :param seconds: measuring time, about
    :return: median and slowest milliseconds of a call that is waited for, the number of calls, and memory of one
    """
    from tables import peak_memory
    from tables import timed as once

    with way(manner, stage.device):
        for _ in range(stage.choose(6, 3)):  # warm-ups and the recording are among them
            job()
        first = once(job, stage.device)
        calls = int(max(3, min(1000, 1000.0 * stage.choose(seconds, 0.05) / max(first, 1e-3))))
        times = sorted(once(job, stage.device) for _ in range(calls))
        peak = peak_memory(job, stage.device)
    return dict(ms=times[len(times) // 2], slowest_ms=times[-1], calls=calls, peak_mib=peak)


def _updates(stage: Stage) -> None:
    table = stage.table(
        "a_updates",
        ("learner", "width", "batch", "way"),
        ("ms", "updates_per_s", "waits_per_update", "waits_at", "peak_mib"),
    )
    for width in stage.choose((512, 128), (16,)):
        for batch in stage.choose((256, 1024), (8,)):
            for name in LEARNERS:
                for manner in ("graph", "eager"):
                    key = dict(learner=name, width=width, batch=batch, way=manner)
                    stage.row(table, lambda key=key: update(stage, **key), 15.0, **key)


def update(stage: Stage, *, learner: str, width: int, batch: int, way: str) -> dict[str, Any]:
    """:return: what one update takes, from states of walker-walk's size, with its share of the policy gradient"""
    steps = stage.choose(5000, 60)
    model = filled(
        LEARNERS[learner],
        Noise(*WALKER),
        stage,
        steps,
        policy_kwargs=dict(net_arch=heads(width)),
        horizon=stage.choose(5, 2),
    )
    return measured_updates(stage, model, batch, way)


def measured_updates(stage: Stage, model: DiffTORI, batch: int, manner: str) -> dict[str, Any]:
    """
    :param stage: where the model lies
    :param model: a learner with a filled replay
    :param batch: windows per update
    :param manner: see :func:`way`
    :return: what one of its updates takes, and where it waits for the device
    """
    count = 2 * model.update_settings.pg_freq  # both kinds of updates, with and without a step of the averages
    job = lambda: model.train(count, batch)  # noqa: E731
    found = timed(stage, job, manner)
    ms = found["ms"] / count
    waits: list[str] = []
    if stage.device.type == "cuda":
        with way(manner, stage.device):
            for _ in range(6):
                job()
            with synchronizations() as waits:
                job()
    places = sorted({place.rpartition("/")[2] for place in waits})
    return dict(
        ms=ms,
        updates_per_s=1000.0 / ms,
        waits_per_update=len(waits) / count,
        waits_at=" ".join(places[:5]),
        peak_mib=found["peak_mib"],
    )
