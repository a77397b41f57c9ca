"""From what is asked for to the runs that do it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import gymnasium as gym

from difftori_gym.baselines.methods import STEPS, SizeName, get_method
from difftori_gym.baselines.presets import merged
from difftori_gym.collection import make_expert
from difftori_gym.collection.collect import METAWORLD_STEPS
from difftori_gym.comparison.demonstrations import find_dataset
from difftori_gym.comparison.run_record import Run, read_runs
from difftori_gym.comparison.settings import ComparisonSettings
from difftori_gym.envs import TaskId, make_env, parse_tasks, task_action_repeat
from difftori_gym.learning import spaces

_logger = logging.getLogger(__name__)

_EPISODE_STEPS = 1000
_HORIZONS = (1, 2, 3, 4, 5, 8)
_LATENT_DIM = 64  # the released code's; the small preset has none


@dataclass(frozen=True)
class Entry:
    """
    One line of the table.

    :param method: name of a method
    :param base: name of the method of its base policy, "" without one
    :param variant: what is special about it, in an ablation; else ""
    :param overrides: hyper-parameters that make the variant
    """

    method: str
    base: str = ""
    variant: str = ""
    overrides: dict[str, Any] = field(default_factory=dict)


def plan_runs(settings: ComparisonSettings, entries: Sequence[Entry] | None = None) -> list[Run]:
    """
    Spell out the runs and check all that can be checked before anything starts.

    :param settings: what is asked for
    :param entries: what is compared; None: the methods of the settings. An entry with a base needs the base's own
        among the entries
    :return: collections of demonstrations, then the runs, tasks outermost, seeds innermost
    :raises ValueError: on an unknown method, task, hyper-parameter, size or device, a task without an expert or
        demonstrations, an action space that is no bounded ``Box``, or a run in ``out`` with other settings
    :raises ImportError: if a suite is not installed
    """
    _check_device(settings.device)
    entries = _entries(settings) if entries is None else entries
    used = list(dict.fromkeys(entry.method for entry in entries))
    for name in settings.overrides:
        if name not in used:
            raise ValueError(f"--set names {name!r}, which is not among the methods {', '.join(used)}.")
    tasks = parse_tasks(settings.tasks)
    _check_names_differ(tasks)
    earlier = read_runs(settings.out)
    runs: list[Run] = []
    for task in tasks:
        common = _common(settings, task, earlier, alone=len(tasks) == 1)
        runs += [_run(settings, common, entry, seed) for entry in entries for seed in settings.seeds]
    collected = [run.collection for run in runs if run.kind == "imitation" and not run.demonstrations]
    runs = [*{run.name: run for run in collected}.values(), *runs]
    for run in runs:
        conflicts = run.conflicts(earlier[run.name]) if run.name in earlier else []
        if conflicts:
            raise ValueError(
                f"{settings.out / 'runs' / run.name} was made with other settings: {'; '.join(conflicts)}. "
                "Use the same settings or another --out."
            )
    _check_environments(settings, runs)
    return runs


def _entries(settings: ComparisonSettings) -> list[Entry]:
    """The methods; in imitation after the base policies that are needed, those that need a base once for each."""
    if not settings.imitates:
        return [Entry(get_method(name, settings.obs).name) for name in settings.methods]
    bases = settings.base or ("bc",)
    methods = [get_method(name, settings.obs, "imitation") for name in settings.methods]
    entries = [_base_entry(name) for name in bases] if any(method.needs_base for method in methods) else []
    for method in methods:
        own = [Entry(method.name, base) for base in bases] if method.needs_base else [Entry(method.name)]
        entries += [entry for entry in own if entry not in entries]
    return entries


def _base_entry(name: str, overrides: dict[str, Any] | None = None) -> Entry:
    """
    :return: entry of a base policy
    :raises ValueError: if its method needs a base itself
    """
    if get_method(name, kind="imitation").needs_base:
        raise ValueError(f"--base needs a method that stands alone, such as bc or diffusion, got {name!r}.")
    return Entry(name, overrides=overrides or {})


def _common(settings: ComparisonSettings, task: TaskId, earlier: dict[str, Run], *, alone: bool) -> Run:
    """What all runs on a task share."""
    common: dict[str, Any] = dict(
        suite=task.suite, task=task.task, obs=settings.obs, device=settings.device, video=settings.video
    )
    if not settings.imitates:
        assert settings.frames is not None
        eval_freq = settings.eval_freq or next((run.eval_freq for run in earlier.values() if run.kind == "rl"), None)
        limit = settings.episode_steps or _missing_limit(task)
        return Run(
            kind="rl",
            amount=settings.frames,
            env_kwargs={
                "obs_kwargs": settings.obs_kwargs or {},
                "action_repeat": settings.action_repeat or task_action_repeat(task),
                **({} if limit is None else {"max_episode_steps": limit}),
            },
            n_envs=settings.n_envs or 1,
            eval_freq=eval_freq or max(settings.frames // 10, 1),
            eval_episodes=settings.eval_episodes or 5,
            **common,
        )
    size = settings.size or "published"
    steps = settings.steps or STEPS.get(size, 1)
    return Run(
        kind="imitation",
        amount=steps,
        env_kwargs=_evaluation_kwargs(settings, task),
        eval_freq=min(settings.eval_freq or steps, steps),
        eval_episodes=settings.eval_episodes or 50,
        sample=settings.sample,
        demos=settings.demos,
        demonstrations=_source(settings, task, alone=alone),
        leave_out=list(settings.leave_out),
        size=size,
        **common,
    )


def _run(settings: ComparisonSettings, common: Run, entry: Entry, seed: int) -> Run:
    overrides = merged(settings.overrides.get(entry.method, {}), entry.overrides)
    method = get_method(entry.method, common.obs, "imitation" if settings.imitates else "rl")
    size = cast(SizeName, common.size or "published")
    run = replace(
        common,
        method=entry.method,
        base=entry.base,
        variant=entry.variant,
        seed=seed,
        hyperparameters=method.hyperparameters(str(common.task_id), overrides, common.obs, size),
    )
    if not entry.base:
        return run
    return replace(run, base_run=replace(run, method=entry.base, base="", variant="").name)


def _evaluation_kwargs(settings: ComparisonSettings, task: TaskId) -> dict[str, Any]:
    """In imitation: what the expert needs, the length of episodes, the user's own."""
    kwargs = dict(make_expert(task).env_kwargs) if settings.demos_from is None else {}
    steps = settings.episode_steps or (METAWORLD_STEPS if task.suite == "metaworld" else _missing_limit(task))
    if steps is not None:
        kwargs["max_episode_steps"] = steps
    return {**kwargs, **(settings.env_kwargs or {})}


def _source(settings: ComparisonSettings, task: TaskId, *, alone: bool) -> str:
    if settings.demos_from is None:
        return ""
    if settings.leave_out and not alone:
        raise ValueError("--leave-out names episodes of one data set, which serves one task: give one to --tasks.")
    return str(find_dataset(settings.demos_from, task, settings.obs, alone=alone).resolve())


def _missing_limit(task: TaskId) -> int | None:
    """Frames for an id of Gymnasium that is registered without a limit, whose episodes might never end."""
    unlimited = task.suite == "gymnasium" and gym.spec(task.task).max_episode_steps is None
    return _EPISODE_STEPS if unlimited else None


def _check_names_differ(tasks: Sequence[TaskId]) -> None:
    slugs = [task.slug for task in tasks]
    repeated = [str(task) for task in tasks if slugs.count(task.slug) > 1]
    if repeated:
        raise ValueError(
            f"--tasks needs tasks of different names, got {', '.join(repeated)}. Name each once; for one name in two "
            "suites use two --out."
        )


def _check_environments(settings: ComparisonSettings, runs: Sequence[Run]) -> None:
    """Gymnasium's, and one of each other suite: they take seconds, and a run whose environment is refused says so."""
    suites: set[str] = set()
    tasks = {run.task_id: run for run in runs}
    for task, run in tasks.items():
        if task.suite == "gymnasium" or task.suite not in suites:
            _check_environment(run)
            suites.add(task.suite)
        if settings.episode_steps is None and _missing_limit(task) is not None:
            limit = run.env_kwargs["max_episode_steps"]
            _logger.warning("%s has no time limit: its episodes are cut after %d steps (--episode-steps).", task, limit)


def _check_environment(run: Run) -> None:
    """Build the environment of a run once; a ``ValueError`` if its actions are unbounded, or a setting is unknown."""
    env = make_env(str(run.task_id), obs=run.obs, **run.env_kwargs)  # type: ignore[arg-type]
    space = env.action_space
    env.close()
    spaces.check_action_space(space, f"A comparison on {run.task_id}")


def _check_device(device: str) -> None:
    """:raises ValueError: if torch does not know the device or this machine does not have it"""
    import torch

    if device == "auto":
        return
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise ValueError(f"--device must be auto, cpu or cuda, got {device!r}.") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"--device {device}: torch finds no CUDA device here. Use --device auto or cpu.")


def _start(base: str) -> list[Entry]:
    """:return: the base policy, and DiffTORI started from it, from zero and at random"""
    return [
        _base_entry(base),
        Entry("difftori", base, "start=base_policy"),
        Entry("difftori", "", "start=zero", dict(planner_kwargs=dict(init="zero"))),
        Entry("difftori", "", "start=random", dict(planner_kwargs=dict(init="random"))),
    ]


def _horizon(base: str) -> list[Entry]:
    """
    One base policy, with the longest horizon, serves all, which take its first actions. One action is executed per
    plan, so that horizons differ in nothing else.
    """
    one = dict(n_action_steps=1)
    return [
        _base_entry(base, dict(one, horizon=max(_HORIZONS))),
        *(Entry("difftori", base, f"horizon={horizon}", dict(one, horizon=horizon)) for horizon in _HORIZONS),
    ]


def _latent(base: str) -> list[Entry]:
    """:return: the base policy, and DiffTORI with and without a latent"""
    return [
        _base_entry(base),
        Entry("difftori", base, "latent=on", dict(latent_dim=_LATENT_DIM)),
        Entry("difftori", base, "latent=off", dict(latent_dim=0)),
    ]


#: Entries of an ablation, given the method of the base policy.
ABLATIONS: dict[str, Callable[[str], list[Entry]]] = {"start": _start, "horizon": _horizon, "latent": _latent}


def plan_ablation(name: str, settings: ComparisonSettings) -> list[Run]:
    """
    :param name: ``start``, ``horizon`` or ``latent``
    :param settings: tasks, seeds, demonstrations; its base is used, its methods are not
    :return: the runs, see :func:`plan_runs`
    :raises ValueError: on an unknown ablation, several bases, reinforcement learning, and as there
    """
    if name not in ABLATIONS:
        raise ValueError(f"Unknown ablation {name!r}. Choices: {', '.join(ABLATIONS)}.")
    if not settings.imitates:
        raise ValueError("an ablation needs --demos NUMBER, --demos-from PATH, or both, got neither.")
    base, *others = settings.base or ("bc",)
    if others:
        raise ValueError(f"an ablation has one --base, got {', '.join((base, *others))}.")
    return plan_runs(settings, ABLATIONS[name](base))
