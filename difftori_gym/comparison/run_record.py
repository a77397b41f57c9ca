"""What one run is asked to do: reinforcement learning, imitation, or the collection of demonstrations."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from difftori_gym.comparison.files import read_json, write_text
from difftori_gym.comparison.results import RunId

Kind = Literal["rl", "imitation", "collect"]

#: Version of what a comparison leaves in its folder.
VERSION = 1
FILE = "run.json"
# Far from the seeds of training: run seeds are small numbers, and the i-th environment adds i.
_EVALUATION_SEED = 1_000_000
_UNITS = {"rl": "frames", "imitation": "gradient steps", "collect": "episodes"}
_SCORES = {"rl": "return", "imitation": "success %", "collect": "expert %"}


@dataclass(frozen=True, kw_only=True)
class Run(RunId):
    """One method on one task with one seed, or the demonstrations of a task."""

    kind: Kind  # collect: successful episodes of the task's scripted expert
    amount: int  # environment frames to train for, gradient steps in imitation, episodes to collect
    env_kwargs: dict[str, Any] = field(default_factory=dict)  # of make_vec_env beside task and observation
    hyperparameters: dict[str, Any] = field(default_factory=dict)  # keywords of the learner
    n_envs: int = 1  # training environments side by side
    eval_freq: int = 1  # amount between evaluations
    eval_episodes: int = 1  # per evaluation
    sample: bool = False  # whether latents, noise and modes are drawn in evaluation
    demonstrations: str = ""  # their folder or file; "" for those that the comparison collects
    leave_out: list[str] = field(default_factory=list)  # names of episodes that are not among them
    size: str = ""  # of an imitation method's preset
    base_run: str = ""  # name of the run that trains the base policy, "" without one
    device: str = "auto"  # of torch
    video: bool = True  # whether to film the final policy

    @property
    def name(self) -> str:
        """Name of the run's folder and film."""
        what = f"{self.entry}-{self.task_id.slug}-{self.obs}"
        if self.kind == "collect":
            return what
        demos = "" if self.kind == "rl" else f"-demos{'all' if self.demos is None else self.demos}"
        return f"{what}{demos}-seed{self.seed}"

    @property
    def unit(self) -> str:
        """What the amount counts."""
        return _UNITS[self.kind]

    @property
    def score_name(self) -> str:
        """What an evaluation measures; in imitation the return where a task does not tell success."""
        return _SCORES[self.kind]

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the runs that must be finished before: the demonstrations', and the base policy's."""
        if self.kind != "imitation":
            return ()
        collected = () if self.demonstrations else (self.collection.name,)
        return collected + ((self.base_run,) if self.base_run else ())

    @property
    def collection(self) -> Run:
        """The collection that an imitation run learns from."""
        return Run(kind="collect", suite=self.suite, task=self.task, obs=self.obs, amount=self.demos or 0)

    @property
    def evaluation_seed(self) -> int:
        """Seed of the first episode of each evaluation, the same for every method."""
        return _EVALUATION_SEED + 1000 * self.seed

    @property
    def action_repeat(self) -> int:
        """Environment frames per agent step, which the plan writes out, in reinforcement learning; else 1."""
        return int(self.env_kwargs.get("action_repeat", 1)) if self.kind == "rl" else 1

    @property
    def steps(self) -> int:
        """Steps of the learner after which the amount is reached, summed over the environments."""
        return -(-self.amount // self.action_repeat)

    def film(self, out: Path) -> Path:
        """Its film in the folder ``out`` of all results."""
        return out / "videos" / f"{self.name}.mp4"

    def demonstrations_path(self, out: Path) -> Path:
        """Folder or file of the demonstrations, those of a collection in the folder ``out`` of all results."""
        return Path(self.demonstrations) if self.demonstrations else out / "demos" / f"{self.task_id.slug}-{self.obs}"

    def write(self, folder: Path) -> None:
        """Write ``run.json`` into the folder of the run."""
        text = json.dumps({"version": VERSION, "command": self.command(), "settings": asdict(self)}, indent=2)
        if not (folder / FILE).exists() or (folder / FILE).read_text(encoding="utf-8") != text:
            folder.mkdir(parents=True, exist_ok=True)
            write_text(folder / FILE, text)

    @classmethod
    def read(cls, path: Path) -> Run:
        """:raises ValueError: if the file is no ``run.json``, or another version of the program wrote it"""
        content = read_json(path)
        version = content.get("version", 0)
        if version != VERSION:
            raise ValueError(f"{path} is of version {version} of comparisons, expected {VERSION}. Use another --out.")
        try:
            return cls(**content["settings"])
        except (TypeError, KeyError) as error:
            raise ValueError(f"{path} does not hold the settings of a run: {error}. Use another --out.") from error

    def conflicts(self, earlier: Run) -> list[str]:
        """:return: one text per setting that forbids to continue the run on disk"""
        mine, theirs = self._kept(), earlier._kept()
        pairs = {key: (theirs.get(key), mine.get(key)) for key in {**mine, **theirs}}
        return [f"{key[-1]} was {before!r}, now {now!r}" for key, (before, now) in pairs.items() if before != now]

    def _kept(self) -> dict[tuple[str, ...], Any]:
        """Settings that stay when a run is continued; what ``env_kwargs`` and hyper-parameters hold, one by one."""
        # More frames or episodes continue a run; the learning rates of imitation may follow the number of steps.
        free = {"device", "video"} | (set() if self.kind == "imitation" else {"amount"})
        kept: dict[tuple[str, ...], Any] = {}
        for name, value in json.loads(json.dumps(asdict(self))).items():
            if name in ("hyperparameters", "env_kwargs"):
                kept |= {(name, key): value[key] for key in value}
            elif name not in free:
                kept["steps" if name == "amount" else name,] = value
        return kept

    def command(self) -> str:
        """Command line that makes the same run, every hyper-parameter written out; its base policy is the preset."""
        options: dict[str, Any] = {"methods": self.method, "base": self.base, "tasks": self.task_id, "seeds": self.seed}
        if self.kind == "imitation":
            options |= {"demos": self.demos, "demos-from": self.demonstrations, "leave-out": self.leave_out}
            options |= {"steps": self.amount, "size": self.size, "env-kwargs": self.env_kwargs}
        else:
            known = {"obs_kwargs": "obs-kwargs", "action_repeat": "action-repeat", "max_episode_steps": "episode-steps"}
            options |= {"frames": self.amount, "n-envs": self.n_envs}
            options |= {known[name]: value for name, value in self.env_kwargs.items()}
        options |= {"obs": self.obs, "eval-freq": self.eval_freq, "eval-episodes": self.eval_episodes}
        words = ["python", "examples/compare.py", *(["--sample"] if self.sample else [])]
        for name, value in options.items():
            if value not in (None, "", [], {}):
                texts = value if isinstance(value, list) else [json.dumps(value) if isinstance(value, dict) else value]
                words += [f"--{name}", *map(str, texts)]
        words += ["--device", self.device, "--video" if self.video else "--no-video", "--out", "results/repeated"]
        if self.hyperparameters:
            words += ["--set", *(f"{self.method}.{key}={json.dumps(x)}" for key, x in self.hyperparameters.items())]
        return shlex.join(words)


def read_runs(out: Path) -> dict[str, Run]:
    """:raises ValueError: if another version of the program made one of the runs in the folder of all results"""
    runs = [Run.read(path) for path in sorted(out.glob(f"runs/*/{FILE}"))]
    return {run.name: run for run in runs}
