"""What a comparison of imitation methods and each of its runs are asked to do."""

from __future__ import annotations

import dataclasses
import json
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from difftori_gym.baselines.methods import METHODS
from difftori_gym.comparison.files import read_json
from difftori_gym.envs import TaskId

#: A run may be done again with other values of these.
FREE_SETTINGS = ("device", "video")


@dataclass(frozen=True)
class CollectionRun:
    """
    Demonstrations of one task by its scripted expert.

    :param suite: suite of the task
    :param task: canonical name of the task
    :param obs: kind of observation
    :param demos: number of successful episodes
    """

    suite: str
    task: str
    obs: str
    demos: int

    @property
    def task_id(self) -> TaskId:
        """Suite and task."""
        return TaskId(self.suite, self.task)

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        return f"collect-{self.task_id.slug}-{self.obs}"

    @property
    def amount(self) -> int:
        """Episodes to collect."""
        return self.demos

    @property
    def unit(self) -> str:
        """What the amount counts."""
        return "episodes"

    @property
    def score_name(self) -> str:
        """What is measured."""
        return "expert %"

    @property
    def needs(self) -> tuple[str, ...]:
        """Nothing."""
        return ()

    def folder(self, out: Path) -> Path:
        """
        :param out: folder of the results
        :return: folder of the demonstrations, shared by all methods and seeds
        """
        return out / "demos" / f"{self.task_id.slug}-{self.obs}"


@dataclass(frozen=True)
class ImitationRun:
    """
    One method on one task with one seed.

    :param suite: suite of the task
    :param task: canonical name of the task
    :param obs: kind of observation
    :param method: name of the method
    :param base: name of the method of its base policy, None without one
    :param variant: what is special about it, in an ablation; else ""
    :param seed: seed of the run
    :param demos: number of demonstrations, the first ones; None: all there are
    :param demonstrations: folder or file of the demonstrations; "" for those that the comparison collects
    :param steps: gradient steps
    :param eval_freq: gradient steps between evaluations
    :param eval_episodes: episodes per evaluation
    :param env_kwargs: arguments of ``make_env``
    :param sample: whether latents, noise and modes are drawn in evaluation
    :param size: size of the preset
    :param hyperparameters: keywords of the learner
    :param base_run: name of the run that trains the base policy, None without one
    :param leave_out: names of episodes that are not among the demonstrations
    :param device: torch device
    :param video: whether to film the policy
    """

    suite: str
    task: str
    obs: str
    method: str
    base: str | None
    variant: str
    seed: int
    demos: int | None
    demonstrations: str
    steps: int
    eval_freq: int
    eval_episodes: int
    env_kwargs: dict[str, Any]
    sample: bool
    size: str
    hyperparameters: dict[str, Any]
    base_run: str | None = None
    leave_out: list[str] = field(default_factory=list)
    device: str = "auto"
    video: bool = True

    @property
    def task_id(self) -> TaskId:
        """Suite and task."""
        return TaskId(self.suite, self.task)

    @property
    def entry(self) -> str:
        """What is compared, in one word: method, base and variant."""
        return entry_name(self.method, self.base, self.variant)

    @property
    def name(self) -> str:
        """Name of the run's folder and film."""
        demos = "all" if self.demos is None else str(self.demos)
        return f"{self.entry}-{self.task_id.slug}-{self.obs}-demos{demos}-seed{self.seed}"

    @property
    def amount(self) -> int:
        """Gradient steps."""
        return self.steps

    @property
    def unit(self) -> str:
        """What the amount counts."""
        return "gradient steps"

    @property
    def score_name(self) -> str:
        """What an evaluation measures, in per cent; the return where a task does not tell success."""
        return "success %"

    @property
    def needs(self) -> tuple[str, ...]:
        """The demonstrations, and the base policy."""
        collected = () if self.demonstrations else (f"collect-{self.task_id.slug}-{self.obs}",)
        return collected + (() if self.base_run is None else (self.base_run,))

    def demonstrations_path(self, out: Path) -> Path:
        """
        :param out: folder of the results
        :return: folder or file of the demonstrations
        """
        if self.demonstrations:
            return Path(self.demonstrations)
        return CollectionRun(self.suite, self.task, self.obs, self.demos or 0).folder(out)

    def to_json(self) -> str:
        """:return: the settings as text"""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def read(cls, path: Path) -> ImitationRun:
        """
        :param path: file written from :meth:`to_json`
        :return: the settings
        :raises ValueError: if the file holds something else
        """
        try:
            return cls(**read_json(path))
        except TypeError as error:
            raise ValueError(
                f"{path} does not hold the settings of an imitation run: {error}. Use another --out."
            ) from error

    def conflicts(self, earlier: ImitationRun) -> list[str]:
        """
        Compare with the settings that an existing run was made with.

        :param earlier: settings of the run on disk
        :return: one text per setting that forbids to continue it
        """
        mine, theirs = json.loads(self.to_json()), json.loads(earlier.to_json())
        pairs = {**{f"hyperparameters.{key}": None for key in {**mine["hyperparameters"], **theirs["hyperparameters"]}}}
        texts = []
        for name in sorted(mine):
            if name not in (*FREE_SETTINGS, "hyperparameters") and mine[name] != theirs[name]:
                texts.append(f"{name} was {theirs[name]!r}, now {mine[name]!r}")
        for dotted in sorted(pairs):
            key = dotted.partition(".")[2]
            before, now = theirs["hyperparameters"].get(key), mine["hyperparameters"].get(key)
            if before != now:
                texts.append(f"{key} was {before!r}, now {now!r}")
        return texts


def entry_name(method: str, base: str | None, variant: str) -> str:
    """
    :param method: name of a method
    :param base: name of the method of its base policy
    :param variant: what is special about it
    :return: the three as part of a file name
    """
    return method + (f"+{base}" if base else "") + (f"-{variant}" if variant else "")


def entry_label(method: str, base: str | None, variant: str) -> str:
    """
    :param method: name of a method
    :param base: name of the method of its base policy
    :param variant: what is special about it
    :return: the three for figures and tables, such as ``DiffTORI (+BC)``
    """
    label = METHODS["imitation"][method].label
    label += f" (+{METHODS['imitation'][base].label})" if base else ""
    return label + (f", {variant}" if variant else "")


@dataclass(frozen=True)
class ImitationSettings:
    """
    Methods x tasks x seeds.

    :param methods: names of imitation methods
    :param tasks: environment ids
    :param seeds: seeds, each at least 0
    :param out: folder of the results
    :param demos: number of demonstrations, at least 1. None: all in ``demos_from``
    :param demos_from: a data set, or a folder of data sets named after the tasks; None: collect them
    :param leave_out: names of episodes of ``demos_from`` that are not read, such as ``demo_3``; for one task
    :param base: methods that train base policies
    :param obs: kind of observation
    :param steps: gradient steps of every run; None: the preset of the size
    :param size: ``published`` or ``small``
    :param jobs: processes side by side, at least 1
    :param device: torch device, or ``auto``
    :param eval_freq: gradient steps between evaluations; None: only when trained
    :param eval_episodes: episodes per evaluation, at least 1
    :param episode_steps: steps of an episode; None: 200 in MetaWorld, elsewhere the environment's own limit
    :param sample: draw latents, noise and modes in evaluation instead of taking the likeliest
    :param video: film the policies
    :param published: quote published results
    :param overrides: hyper-parameters by method
    :param env_kwargs: further arguments of ``make_env`` in evaluation
    """

    methods: tuple[str, ...]
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    out: Path
    demos: int | None = 10
    demos_from: Path | None = None
    leave_out: tuple[str, ...] = ()
    base: tuple[str, ...] = ("bc",)
    obs: str = "state"
    steps: int | None = None
    size: str = "published"
    jobs: int = 1
    device: str = "auto"
    eval_freq: int | None = None
    eval_episodes: int = 50
    episode_steps: int | None = None
    sample: bool = False
    video: bool = True
    published: bool = True
    overrides: dict[str, dict[str, Any]] = field(default_factory=dict)
    env_kwargs: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("demos", "steps", "jobs", "eval_freq", "eval_episodes", "episode_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {value}.")
        for name in ("methods", "tasks", "seeds", "base"):
            values = getattr(self, name)
            if not values or len(set(values)) != len(values):
                raise ValueError(f"--{name} needs one or more different values, got {list(values)}.")
        if min(self.seeds) < 0:
            raise ValueError(f"--seeds must be at least 0, got {min(self.seeds)}.")
        if self.demos is None and self.demos_from is None:
            raise ValueError("Imitation needs --demos NUMBER, --demos-from PATH, or both, got neither.")
        if self.leave_out and self.demos_from is None:
            raise ValueError("--leave-out names episodes of --demos-from PATH, got no such path.")


def repeating_command(run: ImitationRun) -> str:
    """
    :param run: a run
    :return: command line that makes the same run, every hyper-parameter written out; its base policy is the preset
    """
    overrides = [f"{run.method}.{key}={json.dumps(value)}" for key, value in run.hyperparameters.items()]
    words = [
        *("python", "examples/compare.py"),
        *("--methods", run.method),
        *(("--base", run.base) if run.base else ()),
        *("--tasks", str(run.task_id)),
        *("--seeds", str(run.seed)),
        *("--obs", run.obs),
        *(("--demos", str(run.demos)) if run.demos is not None else ()),
        *(("--demos-from", run.demonstrations) if run.demonstrations else ()),
        *(("--leave-out", *run.leave_out) if run.leave_out else ()),
        *("--steps", str(run.steps)),
        *("--size", run.size),
        *("--eval-episodes", str(run.eval_episodes)),
        *(("--env-kwargs", json.dumps(run.env_kwargs)) if run.env_kwargs else ()),
        *(("--sample",) if run.sample else ()),
        *("--device", run.device),
        "--video" if run.video else "--no-video",
        *("--out", "results/repeated"),
        *(("--set", *overrides) if overrides else ()),
    ]
    return shlex.join(words)
