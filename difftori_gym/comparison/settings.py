"""What a comparison and each of its runs are asked to do."""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym

from difftori_gym.baselines.methods import get_method
from difftori_gym.comparison.files import read_json
from difftori_gym.envs import TaskId, make_env, parse_tasks, task_action_repeat
from difftori_gym.learning import spaces

_logger = logging.getLogger(__name__)

_EPISODE_STEPS = 1000

#: A run may be continued with other values of these.
FREE_SETTINGS = ("frames", "device", "video")


def json_object(text: str) -> dict[str, Any]:
    """
    Read an option of the command line that holds settings.

    :param text: such as ``{"size": 64}``
    :return: the settings
    :raises argparse.ArgumentTypeError: if it is not a json object
    """
    try:
        settings = json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"expected a json object such as '{{\"size\": 64}}', {error}") from error
    if not isinstance(settings, dict):
        raise argparse.ArgumentTypeError(f"expected a json object such as '{{\"size\": 64}}', got {text}")
    return settings


@dataclass(frozen=True)
class RunSettings:
    """
    One method on one task with one seed.

    :param suite: suite of the task
    :param task: canonical name of the task
    :param obs: kind of observation
    :param method: name of the method
    :param seed: seed of the run
    :param frames: environment frames to train for
    :param action_repeat: environment frames per agent step
    :param n_envs: training environments side by side
    :param eval_freq: environment frames between evaluations
    :param eval_episodes: episodes per evaluation
    :param hyperparameters: keywords of the learner
    :param device: torch device
    :param video: whether to film the final policy
    :param obs_kwargs: settings of the observation in place of the task's preset, as in ``make_env``
    :param episode_steps: environment frames after which an episode is cut, None for the environment's own limit
    """

    suite: str
    task: str
    obs: str
    method: str
    seed: int
    frames: int
    action_repeat: int
    n_envs: int
    eval_freq: int
    eval_episodes: int
    hyperparameters: dict[str, Any]
    device: str = "auto"
    video: bool = True
    obs_kwargs: dict[str, Any] = field(default_factory=dict)
    episode_steps: int | None = None

    def environment(self) -> dict[str, Any]:
        """:return: arguments of ``make_vec_env`` beside the task"""
        limit = {} if self.episode_steps is None else {"max_episode_steps": self.episode_steps}
        return dict(obs=self.obs, obs_kwargs=self.obs_kwargs, action_repeat=self.action_repeat, **limit)

    @property
    def task_id(self) -> TaskId:
        """Suite and task."""
        return TaskId(self.suite, self.task)

    @property
    def name(self) -> str:
        """Name of the run's folder and film."""
        return f"{self.method}-{self.task_id.slug}-seed{self.seed}"

    @property
    def amount(self) -> int:
        """Frames to train for."""
        return self.frames

    @property
    def unit(self) -> str:
        """What the amount counts."""
        return "frames"

    @property
    def score_name(self) -> str:
        """What an evaluation measures."""
        return "return"

    @property
    def needs(self) -> tuple[str, ...]:
        """No run needs another."""
        return ()

    @property
    def agent_steps(self) -> int:
        """Agent steps, summed over the environments, after which ``frames`` are reached."""
        return math.ceil(self.frames / self.action_repeat)

    def to_json(self) -> str:
        """:return: the settings as text"""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def read(cls, path: Path) -> RunSettings:
        """
        :param path: file written from :meth:`to_json`
        :return: the settings
        :raises ValueError: if the file holds something else
        """
        try:
            return cls(**read_json(path))
        except TypeError as error:
            raise ValueError(
                f"{path} does not hold the settings of a run of reinforcement learning: {error}. Use another --out."
            ) from error

    def conflicts(self, earlier: RunSettings) -> list[str]:
        """
        Compare with the settings that an existing run was made with.

        :param earlier: settings of the run on disk
        :return: one text per setting that forbids to continue it
        """
        mine = json.loads(self.to_json())
        theirs = json.loads(earlier.to_json())
        conflicts = []
        for name in mine:
            if name == "hyperparameters":
                for key in sorted({*mine[name], *theirs[name]}):
                    if mine[name].get(key) != theirs[name].get(key):
                        conflicts.append(f"{key} was {theirs[name].get(key)!r}, now {mine[name].get(key)!r}")
            elif name not in FREE_SETTINGS and mine[name] != theirs[name]:
                conflicts.append(f"{name} was {theirs[name]!r}, now {mine[name]!r}")
        return conflicts


@dataclass(frozen=True)
class ComparisonSettings:
    """
    Methods x tasks x seeds.

    :param methods: names of methods
    :param tasks: environment ids
    :param seeds: seeds, each at least 0
    :param frames: environment frames per run, action repeat included, at least 1
    :param out: folder of the results
    :param obs: kind of observation
    :param jobs: processes side by side, at least 1
    :param device: torch device, or ``auto``
    :param eval_freq: environment frames between evaluations. None: what runs in ``out`` have, or a tenth of ``frames``
    :param eval_episodes: episodes per evaluation, at least 1
    :param video: film the final policies
    :param published: draw published curves
    :param n_envs: training environments side by side in each run, at least 1
    :param overrides: hyper-parameters by method
    :param obs_kwargs: settings of the observation in place of the task's preset, as in ``make_env``
    :param action_repeat: environment frames per agent step, at least 1. None: each task's preset
    :param episode_steps: environment frames after which an episode is cut, at least 1. None: the environment's own
        limit, and 1000 for ids of Gymnasium that are registered without one
    """

    methods: tuple[str, ...]
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    frames: int
    out: Path
    obs: str = "state"
    jobs: int = 1
    device: str = "auto"
    eval_freq: int | None = None
    eval_episodes: int = 5
    video: bool = True
    published: bool = True
    n_envs: int = 1
    overrides: dict[str, dict[str, Any]] = field(default_factory=dict)
    obs_kwargs: dict[str, Any] = field(default_factory=dict)
    action_repeat: int | None = None
    episode_steps: int | None = None

    def __post_init__(self) -> None:
        for name in ("frames", "jobs", "eval_episodes", "n_envs"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}.")
        for name in ("eval_freq", "action_repeat", "episode_steps"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}.")
        for name in ("methods", "tasks", "seeds"):
            values = getattr(self, name)
            if not values or len(set(values)) != len(values):
                raise ValueError(f"--{name} needs one or more different values, got {list(values)}.")
        if min(self.seeds) < 0:
            raise ValueError(f"--seeds must be at least 0, got {min(self.seeds)}.")
        for name in self.overrides:
            if name not in self.methods:
                raise ValueError(f"--set names {name!r}, which is not among the methods {', '.join(self.methods)}.")


def plan_runs(settings: ComparisonSettings) -> list[RunSettings]:
    """
    Spell out the runs and check all that can be checked before anything starts.

    :param settings: what is asked for
    :return: runs, tasks outermost, seeds innermost
    :raises ValueError: on an unknown method, task, hyper-parameter or device, an action space that is no bounded
        ``Box``, or a run in ``out`` with other settings
    :raises ImportError: if a suite is not installed
    """
    check_device(settings.device)
    methods = [get_method(name, settings.obs) for name in settings.methods]
    tasks = parse_tasks(settings.tasks)
    check_names_differ(tasks)
    earlier = read_runs(settings.out)
    limits = {str(task): missing_limit(task) for task in tasks}
    eval_freq = settings.eval_freq or _earlier_eval_freq(earlier) or max(settings.frames // 10, 1)
    runs = [
        RunSettings(
            suite=task.suite,
            task=task.task,
            obs=settings.obs,
            method=method.name,
            seed=seed,
            frames=settings.frames,
            action_repeat=settings.action_repeat or task_action_repeat(task),
            n_envs=settings.n_envs,
            eval_freq=eval_freq,
            eval_episodes=settings.eval_episodes,
            hyperparameters=method.hyperparameters(str(task), settings.overrides.get(method.name), settings.obs),
            device=settings.device,
            video=settings.video,
            obs_kwargs=settings.obs_kwargs,
            episode_steps=settings.episode_steps or limits[str(task)],
        )
        for task in tasks
        for method in methods
        for seed in settings.seeds
    ]
    for run in runs:
        conflicts = run.conflicts(earlier[run.name]) if run.name in earlier else []
        if conflicts:
            raise ValueError(
                f"{settings.out / 'runs' / run.name} was made with other settings: {'; '.join(conflicts)}. "
                f"Use the same settings or another --out."
            )
    for task in tasks:
        limit = settings.episode_steps or limits[str(task)]
        check_action_space(task, settings.obs, settings.obs_kwargs, limit)
        if settings.episode_steps is None and limit is not None:
            _logger.warning("%s has no time limit: its episodes are cut after %d steps (--episode-steps).", task, limit)
    return runs


def missing_limit(task: TaskId) -> int | None:
    """
    :param task: a task
    :return: frames for an id that is registered without a limit, whose episodes might never end, else None
    """
    if task.suite != "gymnasium" or gym.spec(task.task).max_episode_steps is not None:
        return None
    return _EPISODE_STEPS


def check_names_differ(tasks: list[TaskId]) -> None:
    """
    :param tasks: of a comparison
    :raises ValueError: if two have one name, also in different suites: it names their runs
    """
    slugs = [task.slug for task in tasks]
    repeated = [str(task) for task in tasks if slugs.count(task.slug) > 1]
    if repeated:
        raise ValueError(
            f"--tasks needs tasks of different names, got {', '.join(repeated)}. Name each once; for one name in two "
            "suites use two --out."
        )


def read_runs(out: Path) -> dict[str, RunSettings]:
    """
    :param out: folder of the results
    :return: settings of the runs in it, by name
    """
    runs = [RunSettings.read(path) for path in sorted(out.glob("runs/*/args.json"))]
    return {run.name: run for run in runs}


def check_action_space(
    task: TaskId, obs: str, obs_kwargs: dict[str, Any] | None = None, episode_steps: int | None = None
) -> None:
    """
    Build the environment once.

    :param task: a task
    :param obs: kind of observation
    :param obs_kwargs: other settings of it
    :param episode_steps: frames after which an episode is cut
    :raises ValueError: if its actions are not a ``Box`` with finite bounds, or on an unknown setting
    """
    limit = {} if episode_steps is None else {"max_episode_steps": episode_steps}
    env = make_env(str(task), obs=obs, obs_kwargs=obs_kwargs, **limit)  # type: ignore[arg-type]
    space = env.action_space
    env.close()
    spaces.check_action_space(space, f"A comparison on {task}")


def _earlier_eval_freq(earlier: dict[str, RunSettings]) -> int | None:
    """
    :param earlier: runs on disk
    :return: their evaluation interval in frames, None when there is none
    """
    return next((run.eval_freq for run in earlier.values()), None)


def check_device(device: str) -> None:
    """
    :param device: what the user asked for
    :raises ValueError: if torch does not know it or this machine does not have it
    """
    import torch

    if device == "auto":
        return
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise ValueError(f"--device must be auto, cpu or cuda, got {device!r}.") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"--device {device}: torch finds no CUDA device here. Use --device auto or cpu.")
