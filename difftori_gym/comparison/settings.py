"""What a comparison is asked to do."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_RL = ("frames", "n_envs", "obs_kwargs", "action_repeat")
_IMITATION = ("leave_out", "base", "steps", "size", "sample", "env_kwargs")
_COUNTS = ("frames", "jobs", "eval_freq", "eval_episodes", "action_repeat", "episode_steps", "n_envs", "demos", "steps")


def json_object(text: str) -> dict[str, Any]:
    """
    An option of the command line that holds settings, such as ``{"size": 64}``.

    :raises argparse.ArgumentTypeError: if it is not a json object
    """
    expected = "expected a json object such as '{\"size\": 64}'"
    try:
        settings = json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"{expected}, {error}") from error
    if not isinstance(settings, dict):
        raise argparse.ArgumentTypeError(f"{expected}, got {text}")
    return settings


@dataclass(frozen=True, kw_only=True)
class ComparisonSettings:
    """
    Methods x tasks x seeds: reinforcement learning with ``frames``, else imitation with ``demos`` or ``demos_from``.

    :raises ValueError: if a number is out of range, or options of the two do not fit together
    """

    methods: tuple[str, ...]
    tasks: tuple[str, ...]  # environment ids
    seeds: tuple[int, ...]  # each at least 0
    out: Path  # folder of the results
    obs: str = "state"  # kind of observation
    jobs: int = 1  # processes side by side
    device: str = "auto"  # of torch
    eval_freq: int | None = None  # amount between evaluations. None: that of runs in out, a tenth; in imitation the end
    eval_episodes: int | None = None  # per evaluation. None: 5, in imitation 50
    # Environment frames after which an episode is cut. None: the environment's own limit, and 1000 for ids of
    # Gymnasium that are registered without one; in imitation 200 in MetaWorld
    episode_steps: int | None = None
    video: bool = True  # film the final policies
    published: bool = True  # show published results
    overrides: dict[str, dict[str, Any]] = field(default_factory=dict)  # hyper-parameters by method
    frames: int | None = None  # environment frames per run, action repeat included
    n_envs: int | None = None  # training environments side by side in each run
    obs_kwargs: dict[str, Any] | None = None  # in place of the task's preset, as in make_env
    action_repeat: int | None = None  # environment frames per agent step. None: each task's preset
    demos: int | None = None  # number of demonstrations. None: all in demos_from
    demos_from: Path | None = None  # a data set, or a folder of some named after the tasks; None: collect them
    leave_out: tuple[str, ...] = ()  # names of episodes of demos_from that are not read: demo_3; for one task
    base: tuple[str, ...] | None = None  # methods that train base policies. None: bc
    steps: int | None = None  # gradient steps of every run. None: the preset of the size
    size: str | None = None  # published, the default, or small
    sample: bool = False  # draw latents, noise and modes in evaluation instead of taking the likeliest
    env_kwargs: dict[str, Any] | None = None  # further arguments of make_env in evaluation

    def __post_init__(self) -> None:
        told = "reinforcement learning, not with --demos" if self.imitates else "imitation: give --demos NUMBER, too"
        for name in _RL if self.imitates else _IMITATION:
            if getattr(self, name) not in (None, (), False):
                raise ValueError(f"--{name.replace('_', '-')} is for {told}.")
        if self.frames is None and not self.imitates:
            raise ValueError("expected --frames NUMBER for reinforcement learning or --demos NUMBER for imitation.")
        for name in _COUNTS:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {value}.")
        for name in ("methods", "tasks", "seeds", "base"):
            values = getattr(self, name)
            if values is not None and (not values or len(set(values)) != len(values)):
                raise ValueError(f"--{name} needs one or more different values, got {list(values)}.")
        if min(self.seeds) < 0:
            raise ValueError(f"--seeds must be at least 0, got {min(self.seeds)}.")
        if self.leave_out and self.demos_from is None:
            raise ValueError("--leave-out names episodes of --demos-from PATH, got no such path.")

    @property
    def imitates(self) -> bool:
        """Whether methods learn from demonstrations."""
        return self.demos is not None or self.demos_from is not None
