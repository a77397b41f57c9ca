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
    """One line of the table."""

    method: str
    base: str = ""  # method of its base policy, "" without one
    variant: str = ""  # what is special about it, in an ablation; else ""
    overrides: dict[str, Any] = field(default_factory=dict)  # hyper-parameters that make the variant


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
    slugs = [task.slug for task in tasks]
    if repeated := [str(task) for task in tasks if slugs.count(task.slug) > 1]:
        raise ValueError(
            f"--tasks needs tasks of different names, got {', '.join(repeated)}. Name each once; for one name in two "
            "suites use two --out."
        )
    earlier = read_runs(settings.out)
    runs: list[Run] = []
    for task in tasks:
        common = _common(settings, task, earlier, alone=len(tasks) == 1)
        runs += [_run(settings, common, entry, seed) for entry in entries for seed in settings.seeds]
    collected = [run.collection for run in runs if run.kind == "imitation" and not run.demonstrations]
    runs = [*{run.name: run for run in collected}.values(), *runs]
    for run in runs:
        if run.name in earlier and (conflicts := run.conflicts(earlier[run.name])):
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
        entries += [Entry(method.name, base) for base in (bases if method.needs_base else ("",))]
    return [entry for index, entry in enumerate(entries) if entry not in entries[:index]]


def _base_entry(name: str, **overrides: Any) -> Entry:
    """:raises ValueError: if the method of a base policy needs a base itself"""
    if get_method(name, kind="imitation").needs_base:
        raise ValueError(f"--base needs a method that stands alone, such as bc or diffusion, got {name!r}.")
    return Entry(name, overrides=overrides)


def _common(settings: ComparisonSettings, task: TaskId, earlier: dict[str, Run], alone: bool) -> Run:
    """What all runs on a task share; ``alone``: it is the only one."""
    shared: dict[str, Any] = {name: getattr(settings, name) for name in ("obs", "device", "video", "demos", "sample")}
    shared |= dict(suite=task.suite, task=task.task, leave_out=list(settings.leave_out))
    limit = settings.episode_steps or _missing_limit(task)
    if settings.imitates and task.suite == "metaworld":
        limit = settings.episode_steps or METAWORLD_STEPS
    env_kwargs = {} if limit is None else {"max_episode_steps": limit}
    if not settings.imitates:
        assert settings.frames is not None
        repeat = settings.action_repeat or task_action_repeat(task)
        known = next((run.eval_freq for run in earlier.values() if run.kind == "rl"), None)
        return Run(
            kind="rl",
            amount=settings.frames,
            env_kwargs={"obs_kwargs": settings.obs_kwargs or {}, "action_repeat": repeat, **env_kwargs},
            n_envs=settings.n_envs or 1,
            eval_freq=settings.eval_freq or known or max(settings.frames // 10, 1),
            eval_episodes=settings.eval_episodes or 5,
            **shared,
        )
    if settings.leave_out and not alone:
        raise ValueError("--leave-out names episodes of one data set, which serves one task: give one to --tasks.")
    found = settings.demos_from and find_dataset(settings.demos_from, task, settings.obs, alone=alone).resolve()
    size = settings.size or "published"
    steps = settings.steps or STEPS.get(size, 1)
    return Run(
        kind="imitation",
        amount=steps,
        env_kwargs={**({} if found else make_expert(task).env_kwargs), **env_kwargs, **(settings.env_kwargs or {})},
        eval_freq=min(settings.eval_freq or steps, steps),
        eval_episodes=settings.eval_episodes or 50,
        demonstrations=str(found or ""),
        size=size,
        **shared,
    )


def _run(settings: ComparisonSettings, common: Run, entry: Entry, seed: int) -> Run:
    overrides = merged(settings.overrides.get(entry.method, {}), entry.overrides)
    method = get_method(entry.method, common.obs, "imitation" if settings.imitates else "rl")
    size = cast(SizeName, common.size or "published")
    keywords = method.hyperparameters(str(common.task_id), overrides, common.obs, size)
    base_run = replace(common, method=entry.base, seed=seed).name if entry.base else ""
    own: dict[str, Any] = dict(method=entry.method, base=entry.base, variant=entry.variant, base_run=base_run)
    return replace(common, seed=seed, hyperparameters=keywords, **own)


def _missing_limit(task: TaskId) -> int | None:
    """Frames for an id of Gymnasium that is registered without a limit, whose episodes might never end."""
    unlimited = task.suite == "gymnasium" and gym.spec(task.task).max_episode_steps is None
    return _EPISODE_STEPS if unlimited else None


def _check_environments(settings: ComparisonSettings, runs: Sequence[Run]) -> None:
    """Gymnasium's, and one of each other suite: they take seconds, and a run whose environment is refused says so."""
    suites: set[str] = set()
    for task, run in {run.task_id: run for run in runs}.items():
        if task.suite == "gymnasium" or task.suite not in suites:
            suites.add(task.suite)
            env = make_env(str(task), obs=run.obs, **run.env_kwargs)  # type: ignore[arg-type]
            space = env.action_space
            env.close()
            spaces.check_action_space(space, f"A comparison on {task}")
        if settings.episode_steps is None and _missing_limit(task) is not None:
            limit = run.env_kwargs["max_episode_steps"]
            _logger.warning("%s has no time limit: its episodes are cut after %d steps (--episode-steps).", task, limit)


def _check_device(device: str) -> None:
    """:raises ValueError: if torch does not know the device or this machine does not have it"""
    import torch

    try:
        kind = torch.device("cpu" if device == "auto" else device).type
    except RuntimeError as error:
        raise ValueError(f"--device must be auto, cpu or cuda, got {device!r}.") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"--device {device}: torch finds no CUDA device here. Use --device auto or cpu.")


def _start(base: str) -> list[Entry]:
    """The base policy, and DiffTORI started from it, from zero and at random."""
    inits = {f"start={init}": dict(planner_kwargs=dict(init=init)) for init in ("zero", "random")}
    alone = [Entry("difftori", variant=variant, overrides=overrides) for variant, overrides in inits.items()]
    return [_base_entry(base), Entry("difftori", base, "start=base_policy"), *alone]


def _horizon(base: str) -> list[Entry]:
    """
    One base policy, with the longest horizon, serves all, which take its first actions. One action is executed per
    plan, so that horizons differ in nothing else.
    """
    one = dict(n_action_steps=1)
    planned = [Entry("difftori", base, f"horizon={horizon}", dict(one, horizon=horizon)) for horizon in _HORIZONS]
    return [_base_entry(base, **one, horizon=max(_HORIZONS)), *planned]


def _latent(base: str) -> list[Entry]:
    """The base policy, and DiffTORI with and without a latent."""
    on, off = (dict(latent_dim=size) for size in (_LATENT_DIM, 0))
    return [_base_entry(base), Entry("difftori", base, "latent=on", on), Entry("difftori", base, "latent=off", off)]


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
