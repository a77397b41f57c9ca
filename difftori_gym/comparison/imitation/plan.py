"""From what is asked for to the runs that do it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from difftori_gym.baselines.methods import STEPS, SizeName, get_method
from difftori_gym.collection import make_expert
from difftori_gym.collection.collect import METAWORLD_STEPS
from difftori_gym.comparison.imitation.demonstrations import find_dataset
from difftori_gym.comparison.imitation.settings import CollectionRun, ImitationRun, ImitationSettings
from difftori_gym.comparison.settings import check_action_space, check_device, check_names_differ, missing_limit
from difftori_gym.envs import TaskId, parse_tasks

Work = CollectionRun | ImitationRun


@dataclass(frozen=True)
class Entry:
    """
    One line of the table.

    :param method: name of a method
    :param base: name of the method of its base policy, None without one
    :param variant: what is special about it, in an ablation; else ""
    :param overrides: hyper-parameters that make the variant
    """

    method: str
    base: str | None = None
    variant: str = ""
    overrides: dict[str, Any] = field(default_factory=dict)


def entries_of(settings: ImitationSettings) -> list[Entry]:
    """
    :param settings: what is asked for
    :return: the base policies that are needed, then the methods, those that need a base once for each
    :raises ValueError: on an unknown method, or a base that needs a base itself
    """
    methods = [get_method(name, kind="imitation") for name in settings.methods]
    entries = []
    if any(method.needs_base for method in methods):
        entries = [base_entry(name) for name in settings.base]
    for method in methods:
        own = [Entry(method.name, base) for base in settings.base] if method.needs_base else [Entry(method.name)]
        entries += [entry for entry in own if entry not in entries]
    return entries


def base_entry(name: str, overrides: dict[str, Any] | None = None) -> Entry:
    """
    :param name: name of the method that trains the base policy
    :param overrides: its hyper-parameters
    :return: its entry
    :raises ValueError: if it needs a base itself
    """
    if get_method(name, kind="imitation").needs_base:
        raise ValueError(f"--base needs a method that stands alone, such as bc or diffusion, got {name!r}.")
    return Entry(name, overrides=overrides or {})


def plan_imitation(settings: ImitationSettings, entries: Sequence[Entry] | None = None) -> list[Work]:
    """
    Spell out the runs and check all that can be checked before anything starts.

    :param settings: what is asked for
    :param entries: what is compared; None: the methods of the settings. An entry with a base needs the base's own
        among the entries
    :return: collections, then the runs, tasks outermost, seeds innermost
    :raises ValueError: on an unknown method, task, hyper-parameter, size or device, a task without an expert or
        demonstrations, an action space that is no bounded ``Box``, or a run in ``out`` with other settings
    :raises ImportError: if a suite is not installed
    """
    check_device(settings.device)
    entries = entries_of(settings) if entries is None else entries
    used = {entry.method for entry in entries}
    for name in settings.overrides:
        if name not in used:
            raise ValueError(f"--set names {name!r}, which is not among the methods {', '.join(sorted(used))}.")
    tasks = parse_tasks(settings.tasks)
    check_names_differ(tasks)
    for task in tasks:
        kwargs = _env_kwargs(settings, task)
        check_action_space(task, settings.obs, kwargs.get("obs_kwargs"), kwargs.get("max_episode_steps"))
    collections: list[CollectionRun] = []
    runs: list[ImitationRun] = []
    for task in tasks:
        if settings.demos_from is None:
            assert settings.demos is not None
            collections.append(CollectionRun(task.suite, task.task, settings.obs, settings.demos))
        env_kwargs = _env_kwargs(settings, task)
        source = _source(settings, task, alone=len(tasks) == 1)
        for entry in entries:
            runs += [_run(settings, task, entry, seed, env_kwargs, source) for seed in settings.seeds]
    _check_earlier(runs, settings.out)
    return [*collections, *runs]


def read_imitation_runs(out: Path) -> dict[str, ImitationRun]:
    """
    :param out: folder of the results
    :return: settings of the runs in it, by name
    """
    runs = [ImitationRun.read(path) for path in sorted(out.glob("runs/*/args.json"))]
    return {run.name: run for run in runs}


def _run(
    settings: ImitationSettings, task: TaskId, entry: Entry, seed: int, env_kwargs: dict[str, Any], source: str
) -> ImitationRun:
    """
    :param settings: what is asked for
    :param task: its task
    :param entry: what is compared
    :param seed: its seed
    :param env_kwargs: arguments of ``make_env``
    :param source: demonstrations, "" for those that are collected
    :return: the run
    """
    steps = settings.steps or STEPS.get(settings.size, 1)
    overrides = {**settings.overrides.get(entry.method, {}), **entry.overrides}
    size = cast(SizeName, settings.size)
    run = ImitationRun(
        suite=task.suite,
        task=task.task,
        obs=settings.obs,
        method=entry.method,
        base=entry.base,
        variant=entry.variant,
        seed=seed,
        demos=settings.demos,
        demonstrations=source,
        leave_out=list(settings.leave_out),
        steps=steps,
        eval_freq=min(settings.eval_freq or steps, steps),
        eval_episodes=settings.eval_episodes,
        env_kwargs=env_kwargs,
        sample=settings.sample,
        size=settings.size,
        hyperparameters=get_method(entry.method, kind="imitation").hyperparameters(
            str(task), overrides, settings.obs, size
        ),
        device=settings.device,
        video=settings.video,
    )
    if entry.base is None:
        return run
    base = _run(settings, task, Entry(entry.base), seed, env_kwargs, source)
    return ImitationRun(**{**vars(run), "base_run": base.name})


def _env_kwargs(settings: ImitationSettings, task: TaskId) -> dict[str, Any]:
    """
    :param settings: what is asked for
    :param task: a task
    :return: arguments of ``make_env`` in evaluation: what the expert needs, the length of episodes, the user's own
    """
    kwargs = dict(make_expert(task).env_kwargs) if settings.demos_from is None else {}
    steps = settings.episode_steps or (METAWORLD_STEPS if task.suite == "metaworld" else missing_limit(task))
    if steps is not None:
        kwargs["max_episode_steps"] = steps
    return {**kwargs, **settings.env_kwargs}


def _source(settings: ImitationSettings, task: TaskId, alone: bool) -> str:
    """
    :param settings: what is asked for
    :param task: a task
    :param alone: whether it is the only one
    :return: its demonstrations, "" for those that are collected
    :raises ValueError: if there are none, or episodes of several are to be left out
    """
    if settings.demos_from is None:
        return ""
    if settings.leave_out and not alone:
        raise ValueError("--leave-out names episodes of one data set, which serves one task: give one to --tasks.")
    return str(find_dataset(settings.demos_from, task, settings.obs, alone=alone).resolve())


def _check_earlier(runs: Sequence[ImitationRun], out: Path) -> None:
    """
    :param runs: what is to be done
    :param out: folder of the results
    :raises ValueError: if one of them is there with other settings
    """
    earlier = read_imitation_runs(out)
    for run in runs:
        conflicts = run.conflicts(earlier[run.name]) if run.name in earlier else []
        if conflicts:
            raise ValueError(
                f"{out / 'runs' / run.name} was made with other settings: {'; '.join(conflicts)}. "
                f"Use the same settings or another --out."
            )
