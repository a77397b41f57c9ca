"""ManiSkill's own motion-planning solutions as experts."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from typing import Any

import gymnasium as gym

#: Tasks with a solution in mani_skill/examples/motionplanning/panda/solutions that needs no download.
TASKS: tuple[str, ...] = (
    *("LiftPegUpright", "PegInsertionSide", "PickCube", "PlaceSphere", "PlugCharger"),
    *("PullCube", "PullCubeTool", "PushCube", "StackCube", "StackPyramid"),
)
#: What the solutions drive, with time to finish.
ENV_KWARGS: dict[str, Any] = {"control_mode": "pd_joint_pos", "max_episode_steps": 300}


class _EpisodeOverError(Exception):
    """Leaves a solution that would go on."""


class _Planned:
    """What a solution takes for the environment: it steps ours, reset already, and looks at ManiSkill's."""

    def __init__(self, env: gym.Env[Any, Any], stop: Callable[[], bool]) -> None:
        self._env = env
        self._stop = stop
        self.unwrapped = env.unwrapped.batch.source.unwrapped  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unwrapped, name)

    def reset(self, seed: int | None = None, options: Any = None) -> None:
        """The episode has begun: nothing to do."""

    def step(self, action: Any) -> Any:
        if self._stop():
            raise _EpisodeOverError
        return self._env.step(action)


def motion_planner(task: str) -> Callable[[gym.Env[Any, Any], Callable[[], bool]], None]:
    """
    ManiSkill's solution of a task. It plans a path from the true state and follows it, so it plays whole episodes, in
    an environment made with :data:`ENV_KWARGS`.

    :param task: canonical name
    :return: function that plays in an environment that has been reset, until the task is over or it knows no further
    :raises ValueError: for a task without a solution
    :raises ImportError: if ManiSkill or its planner is not installed
    """
    if task not in TASKS:
        raise ValueError(f"maniskill/{task} has no motion-planning solution. Choices: {', '.join(TASKS)}.")
    try:
        from mani_skill.examples.motionplanning.panda import solutions
    except ModuleNotFoundError as error:
        raise ImportError(
            f'ManiSkill\'s planner needs the package {error.name}. Run: pip install "difftori-gym[maniskill]"'
        ) from error
    solve = getattr(solutions, f"solve{task}")

    def play(env: gym.Env[Any, Any], stop: Callable[[], bool]) -> None:
        # The solutions print; a pose without a path makes them raise what the planner raises, and ends the attempt.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(_EpisodeOverError, RuntimeError, TypeError):
            solve(_Planned(env, stop), seed=None, debug=False, vis=False)

    return play
