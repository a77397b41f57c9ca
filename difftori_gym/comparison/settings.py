"""What a comparison is asked to do."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_RL = ("frames", "n_envs", "obs_kwargs", "action_repeat")
_IMITATION = ("demos", "demos_from", "leave_out", "base", "steps", "size", "sample", "env_kwargs")
_COUNTS = ("frames", "jobs", "eval_freq", "eval_episodes", "action_repeat", "episode_steps", "n_envs", "demos", "steps")


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


@dataclass(frozen=True, kw_only=True)
class ComparisonSettings:
    """
    Methods x tasks x seeds: reinforcement learning with ``frames``, else imitation with ``demos`` or ``demos_from``.

    :param methods: names of methods
    :param tasks: environment ids
    :param seeds: seeds, each at least 0
    :param out: folder of the results
    :param obs: kind of observation
    :param jobs: processes side by side, at least 1
    :param device: torch device, or ``auto``
    :param eval_freq: frames or gradient steps between evaluations. None: what runs in ``out`` have, or a tenth of
        ``frames``; in imitation only when trained
    :param eval_episodes: episodes per evaluation, at least 1. None: 5, in imitation 50
    :param episode_steps: environment frames after which an episode is cut, at least 1. None: the environment's own
        limit, and 1000 for ids of Gymnasium that are registered without one; in imitation 200 in MetaWorld
    :param video: film the final policies
    :param published: show published results
    :param overrides: hyper-parameters by method
    :param frames: environment frames per run, action repeat included, at least 1
    :param n_envs: training environments side by side in each run, at least 1
    :param obs_kwargs: settings of the observation in place of the task's preset, as in ``make_env``
    :param action_repeat: environment frames per agent step, at least 1. None: each task's preset
    :param demos: number of demonstrations, at least 1. None: all in ``demos_from``
    :param demos_from: a data set, or a folder of data sets named after the tasks; None: collect them
    :param leave_out: names of episodes of ``demos_from`` that are not read, such as ``demo_3``; for one task
    :param base: methods that train base policies, ``bc`` by default
    :param steps: gradient steps of every run; None: the preset of the size
    :param size: ``published``, the default, or ``small``
    :param sample: draw latents, noise and modes in evaluation instead of taking the likeliest
    :param env_kwargs: further arguments of ``make_env`` in evaluation
    """

    methods: tuple[str, ...]
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    out: Path
    obs: str = "state"
    jobs: int = 1
    device: str = "auto"
    eval_freq: int | None = None
    eval_episodes: int | None = None
    episode_steps: int | None = None
    video: bool = True
    published: bool = True
    overrides: dict[str, dict[str, Any]] = field(default_factory=dict)
    frames: int | None = None
    n_envs: int | None = None
    obs_kwargs: dict[str, Any] | None = None
    action_repeat: int | None = None
    demos: int | None = None
    demos_from: Path | None = None
    leave_out: tuple[str, ...] = ()
    base: tuple[str, ...] | None = None
    steps: int | None = None
    size: str | None = None
    sample: bool = False
    env_kwargs: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        for name in self._of_other_kind():
            if getattr(self, name) not in (None, (), False):
                kind = "reinforcement learning, not with --demos" if self.imitates else "imitation: give --demos NUMBER"
                raise ValueError(f"--{name.replace('_', '-')} is for {kind}{'' if self.imitates else ', too'}.")
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

    def _of_other_kind(self) -> tuple[str, ...]:
        return _RL if self.imitates else tuple(name for name in _IMITATION if name not in ("demos", "demos_from"))

    @property
    def imitates(self) -> bool:
        """Whether methods learn from demonstrations."""
        return self.demos is not None or self.demos_from is not None
