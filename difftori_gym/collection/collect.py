"""Collecting demonstrations, one episode after another, each on the disk when it is done."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from difftori_gym.collection.experts import Expert
from difftori_gym.collection.recording import EpisodeRecorder
from difftori_gym.envs import Observation, make_env, parse_task, task_action_repeat
from difftori_gym.il import MinariWriter

# Frames of a MetaWorld demonstration in DP3 and in the paper.
METAWORLD_STEPS = 200


@dataclass(frozen=True)
class CollectionSettings:
    """
    What to collect.

    :param env_id: name for ``make_env``
    :param out: folder of the data set, in Minari's layout
    :param episodes: number of episodes that the data set shall hold in the end, at least 1
    :param obs: kind of observation
    :param seed: of the first attempt's reset, at least 0; the next attempts count on. A data set that is continued
        goes on behind its largest seed
    :param keep_failures: keep unsuccessful episodes too
    :param max_attempts: episodes to try at most in this call; None: ten for each that is missing
    :param max_steps: cut an episode after so many steps; None: 200 in MetaWorld, elsewhere the environment's own limit
    :param steps_after_success: cut an episode so many steps after its first success; None: never
    :param append: go on with a data set that is there
    :param env_kwargs: further arguments of ``make_env``
    :raises ValueError: if a number is out of its range
    """

    env_id: str
    out: Path
    episodes: int
    obs: Observation = "state"
    seed: int = 0
    keep_failures: bool = False
    max_attempts: int | None = None
    max_steps: int | None = None
    steps_after_success: int | None = None
    append: bool = False
    env_kwargs: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        limits = dict(episodes=1, seed=0, max_attempts=1, max_steps=1, steps_after_success=0)
        for name, least in limits.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"Collecting needs {name} >= {least}, got {value}.")


@dataclass(frozen=True)
class CollectionReport:
    """
    How it went.

    :param episodes: in the data set now
    :param attempts: episodes tried in this call
    :param successes: solved ones among them; equal to ``attempts`` where the environment does not tell
    :param tells_success: whether the environment tells success
    """

    episodes: int
    attempts: int
    successes: int
    tells_success: bool = True

    @property
    def success_rate(self) -> float:
        """Share of solved attempts; nan before the first."""
        return self.successes / self.attempts if self.attempts else float("nan")


def collect(
    settings: CollectionSettings,
    expert: Expert,
    on_attempt: Callable[[CollectionReport], None] = lambda report: None,
) -> CollectionReport:
    """
    Let an expert play until the data set is full.

    :param settings: what to collect
    :param expert: who plays
    :param on_attempt: called after each attempt, with how it went so far
    :return: how it went
    :raises ValueError: if the data set exists and is not to be continued, or cannot be; if the attempts are used up.
        What was collected before stays
    """
    task = parse_task(settings.env_id)
    env_kwargs = {**expert.env_kwargs, **settings.env_kwargs}
    env = EpisodeRecorder(make_env(settings.env_id, obs=settings.obs, **env_kwargs))
    repeat = env_kwargs.get("action_repeat")
    try:
        assert isinstance(env.action_space, spaces.Box)
        writer = MinariWriter(
            settings.out,
            env.observation_space,
            env.action_space,
            env_id=str(task),
            obs=settings.obs,
            algorithm_name=expert.name,
            append=settings.append,
            action_repeat=task_action_repeat(task) if repeat is None else repeat,
            control_mode=str(getattr(env.unwrapped, "control_mode", "")),
        )
        report = CollectionReport(len(writer), 0, 0)
        limit = settings.max_attempts or 10 * max(settings.episodes - len(writer), 0)
        seeds = itertools.count(int(max([settings.seed - 1, *writer.seeds])) + 1)
        steps = settings.max_steps or (METAWORLD_STEPS if task.suite == "metaworld" else None)
        while len(writer) < settings.episodes:
            if report.attempts == limit:
                raise ValueError(
                    f"{settings.out}: expected {settings.episodes} episodes within {limit} attempts, got "
                    f"{len(writer)}: the expert solved {report.successes} of {report.attempts}. "
                    "Raise max_attempts or max_steps, or keep failures."
                )
            success = _play(env, expert, next(seeds), steps, settings.steps_after_success)
            if env.num_steps and (success is not False or settings.keep_failures):  # a planner may find no path
                writer.append(env.episode())
            report = CollectionReport(
                len(writer),
                report.attempts + 1,
                report.successes + (env.num_steps > 0 and success is not False),
                report.tells_success and success is not None,
            )
            on_attempt(report)
        return report
    finally:
        env.close()


def _play(env: EpisodeRecorder, expert: Expert, seed: int, steps: int | None, after: int | None) -> bool | None:
    """
    Whether the task was solved, None if the environment does not tell; ``after`` counts steps after the first success.
    """
    solved_at: float = np.inf

    def stop() -> bool:
        nonlocal solved_at
        if env.success and solved_at == np.inf:
            solved_at = env.num_steps
        late = after is not None and env.num_steps >= solved_at + after
        return env.ended or late or (steps is not None and env.num_steps >= steps)

    observation, _ = env.reset(seed=seed)
    expert.play(env, observation, stop)
    return env.success
