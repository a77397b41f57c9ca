"""Studies as ``docs/data/plan.toml`` names them, and the cells they are made of."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

try:
    import tomllib
except ImportError:  # Python 3.10: a requirement of pytest and mypy there
    import tomli as tomllib

from difftori_gym.baselines.methods import METHODS, get_method
from difftori_gym.envs import TaskId, parse_tasks

#: Methods whose code is not ours: their rows stay valid at another commit.
OF_LIBRARIES = ("sac", "td3", "tqc", "crossq", "ppo")
_OPTIONS = ("obs_kwargs", "action_repeat", "n_envs", "demos", "size", "episode_steps")


@dataclass(frozen=True)
class Study:
    """
    A question, and the runs that answer it.

    :param name: of its table ``NAME.csv``
    :param question: one sentence
    :param commit: at least seven digits of the commit that its runs are made at
    :param tasks: ``suite/task``, canonical, in order of worth
    :param methods: groups of methods; one group on all tasks before the next. Imitation names the base of a method
        after a plus: ``difftori+bc``
    :param seeds: one seed of everything before the next
    :param frames: environment frames per run of reinforcement learning, None in imitation
    :param steps: gradient steps per run of imitation, None in reinforcement learning
    :param obs: kind of observation
    :param settings: hyper-parameters by method, those that differ from its preset
    :param options: further options of compare.py, such as ``action_repeat``, ``demos`` and ``size``
    :param eval_episodes: per evaluation, unless told otherwise 5, in imitation 50
    :param task_at_a_time: all methods of a group on one task before the next task
    """

    name: str
    question: str
    commit: str
    tasks: tuple[TaskId, ...]
    methods: tuple[tuple[str, ...], ...]
    seeds: tuple[int, ...] = (0,)
    frames: int | None = None
    steps: int | None = None
    obs: str = "state"
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    eval_episodes: int = 5
    task_at_a_time: bool = False

    @property
    def amount(self) -> int:
        """Frames, or gradient steps, of a run."""
        amount = self.frames or self.steps
        assert amount is not None
        return amount

    def cells(self) -> list[Cell]:
        """:return: its cells in the order in which they are worth running"""
        return [
            Cell(self, task, method, seed)
            for seed in self.seeds
            for group in self.methods
            for task, method in self._pairs(group)
        ]

    def _pairs(self, group: tuple[str, ...]) -> Iterator[tuple[TaskId, str]]:
        if self.task_at_a_time:
            return ((task, method) for task in self.tasks for method in group)
        return ((task, method) for method in group for task in self.tasks)


@dataclass(frozen=True)
class Cell:
    """
    One run of a study.

    :param study: its study
    :param task: its task
    :param method: its method, with its base in imitation
    :param seed: its seed
    """

    study: Study
    task: TaskId
    method: str
    seed: int

    @property
    def name(self) -> str:
        """Study, method, task and seed."""
        return f"{self.study.name}/{self.method}-{self.task.slug}-seed{self.seed}"

    @property
    def folder(self) -> str:
        """
        Folder of its results, below that of all cells. Runs of imitation share demonstrations and base policies, so
        the methods on one task with one seed share a folder.
        """
        return self.name if self.study.steps is None else f"{self.study.name}/{self.task.slug}-seed{self.seed}"

    @property
    def key(self) -> tuple[str, str, str, str, int]:
        """What tells its rows from those of other cells of the study."""
        return (self.task.suite, self.task.task, self.study.obs, self.method, self.seed)

    @property
    def settings(self) -> str:
        """What differs from the preset, as json."""
        settings = {**self.study.settings.get(self.method.partition("+")[0], {}), **self.study.options}
        return json.dumps(settings, sort_keys=True) if settings else ""

    def arguments(self, out: Path) -> list[str]:
        """
        :param out: folder of the results
        :return: command line of examples/compare.py
        """
        study = self.study
        method, _, base = self.method.partition("+")
        words = ["--methods", method, *(["--base", base] if base else []), "--tasks", str(self.task)]
        words += ["--seeds", str(self.seed), "--obs", study.obs, "--eval-episodes", str(study.eval_episodes)]
        if study.frames is None:
            words += ["--steps", str(study.steps)]
        else:
            words += ["--frames", str(study.frames), "--eval-freq", str(max(study.frames // 10, 1))]
        for name, value in study.options.items():
            words += [f"--{name.replace('_', '-')}", json.dumps(value) if isinstance(value, dict) else str(value)]
        overrides = study.settings.get(method, {})
        words += ["--set", *(f"{method}.{key}={json.dumps(value)}" for key, value in overrides.items())] * bool(
            overrides
        )
        return [*words, "--no-video", "--jobs", "1", "--out", str(out)]


def read_plan(path: Path) -> list[Study]:
    """
    Read a plan and check all of it that needs no other commit.

    :param path: ``plan.toml``
    :return: its studies in order of worth
    :raises ValueError: naming the study and what is wrong with it
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}.") from error
    studies = [_study(path, entry) for entry in content.get("study", [])]
    names = [study.name for study in studies]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{path}: expected studies of different names, got {name!r} {names.count(name)} times.")
    return studies


def _study(path: Path, entry: dict[str, Any]) -> Study:
    where = f"{path}, study {entry.get('name', '(without a name)')!r}"
    known = [option.name for option in dataclasses.fields(Study) if option.name != "options"]
    needed = ("name", "question", "commit", "tasks", "methods")
    for name in needed:
        if name not in entry:
            raise ValueError(f"{where}: expected {', '.join(needed)} and frames or steps, {name} is missing.")
    for name in entry:
        if name not in known and name not in _OPTIONS:
            raise ValueError(f"{where}: unknown setting {name!r}. Known: {', '.join((*known, *_OPTIONS))}.")
    if not re.fullmatch(r"[0-9a-f]{7,40}", str(entry["commit"])):
        raise ValueError(f"{where}: commit needs 7 to 40 hexadecimal digits, got {entry['commit']!r}.")
    if not re.fullmatch(r"[\w.-]+", entry["name"]):
        raise ValueError(f"{where}: a name is a file's: letters, digits, underscores, dots and dashes.")
    if ("frames" in entry) == ("steps" in entry):
        raise ValueError(f"{where}: expected frames (reinforcement learning) or steps (imitation), one of them.")
    groups = entry["methods"]
    groups = tuple(map(tuple, groups)) if groups and isinstance(groups[0], list) else (tuple(groups),)
    try:
        tasks = tuple(parse_tasks(entry["tasks"]))
        for method in (method for group in groups for method in group):
            _check_method(method, entry)
    except (ValueError, ImportError) as error:
        raise ValueError(f"{where}: {error}") from error
    rest = {name: entry[name] for name in known if name in entry and name not in ("tasks", "methods", "seeds")}
    options = {name: entry[name] for name in _OPTIONS if name in entry}
    rest.setdefault("eval_episodes", 50 if "steps" in entry else 5)
    study = Study(tasks=tasks, methods=groups, seeds=tuple(entry.get("seeds", (0,))), options=options, **rest)
    _check_numbers(where, study)
    return study


def _check_method(method: str, entry: dict[str, Any]) -> None:
    """:raises ValueError: if there is no such method"""
    name, plus, base = method.partition("+")
    if "steps" in entry:
        get_method(name, kind="imitation")
        if plus and base not in METHODS["imitation"]:
            raise ValueError(f"Unknown base {base!r}. Methods: {', '.join(METHODS['imitation'])}.")
    else:
        get_method(method, entry.get("obs", "state"))


def _check_numbers(where: str, study: Study) -> None:
    for name, value in (("frames or steps", study.amount), ("eval_episodes", study.eval_episodes)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{where}: {name} must be a whole number of at least 1, got {value!r}.")
    cells = [cell.key for cell in study.cells()]
    if not cells or len(set(cells)) != len(cells) or min(study.seeds) < 0:
        raise ValueError(f"{where}: expected different tasks, methods and seeds (at least 0), one or more of each.")
    named = {method.partition("+")[0] for group in study.methods for method in group}
    for method in study.settings:
        if method not in named:
            raise ValueError(f"{where}: settings name {method!r}, which is not among {', '.join(sorted(named))}.")
