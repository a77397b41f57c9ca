"""What a suite of tasks has to offer, and the packages it needs."""

from __future__ import annotations

import contextlib
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, ClassVar

import gymnasium as gym

from difftori_gym.envs.observations import Observation, Preset, StatePreset
from difftori_gym.wrappers import BatchedEnv


@dataclass(frozen=True)
class TaskId:
    """
    A task of a suite, in its canonical spelling.

    :param suite: name of the suite, such as ``dm_control``
    :param task: canonical name of the task, such as ``cup-catch``
    """

    suite: str
    task: str

    def __str__(self) -> str:
        return f"{self.suite}/{self.task}"

    @property
    def slug(self) -> str:
        """The task's name as part of a file name."""
        return self.task.replace("/", "_").replace(":", "_")


def closest_first(name: str, choices: list[str]) -> list[str]:
    """:return: all choices, those spelled like ``name`` first"""
    close = get_close_matches(name, choices, n=5, cutoff=0.5)
    return close + [choice for choice in choices if choice not in close]


class Suite(ABC):
    """
    A family of tasks that is installed, named and built in one way.

    A subclass imports the suite's packages inside its methods only: importing its module costs nothing.
    """

    name: ClassVar[str]
    #: extra of ``difftori-gym`` that installs the suite, None when the core is enough
    extra: ClassVar[str | None] = None
    #: top-level packages that must be importable
    packages: ClassVar[tuple[str, ...]] = ()
    #: canonical names of the tasks that the DiffTORI paper reports, see :func:`difftori_gym.envs.parse_tasks`
    paper_tasks: ClassVar[tuple[str, ...]] = ()
    #: whether :meth:`make_batch` builds environments that step together in tensors, and :meth:`make` is not needed
    batched: ClassVar[bool] = False
    #: kinds of observation that :meth:`make` builds itself, given ``obs`` and ``obs_kwargs``
    own_observations: ClassVar[tuple[str, ...]] = ()

    def require(self) -> None:
        """
        Check that the suite is installed, without importing it.

        :raises ImportError: with the install command
        """
        with self.explain_missing():
            for package in self.packages:
                if importlib.util.find_spec(package) is None:
                    raise ModuleNotFoundError(f"No module named {package!r}", name=package)

    @contextlib.contextmanager
    def explain_missing(self) -> Iterator[None]:
        """
        Turn a missing package into an error that says how to install it.

        :raises ImportError: with the install command, when something inside imports a package that is not there
        """
        try:
            yield
        except ModuleNotFoundError as error:
            if self.extra is None:
                raise
            raise ImportError(
                f'{self.name} needs the package {error.name}. Run: pip install "difftori-gym[{self.extra}]"'
            ) from error

    def find(self, name: str) -> str:
        """
        :param name: of a task in any accepted spelling
        :return: its canonical name
        :raises ValueError: if there is no such task; lists the choices, close ones first
        :raises ImportError: if the suite is not installed; names the command that installs it
        """
        self.require()
        with self.explain_missing():
            task = self.canonical_task(name)
        if task is None:
            choices = ", ".join(closest_first(name, self.tasks()))
            raise ValueError(f"Unknown task {name!r} of {self.name}. Choices: {choices}.")
        return task

    @abstractmethod
    def tasks(self) -> list[str]:
        """:return: canonical names of all tasks"""

    @abstractmethod
    def canonical_task(self, task: str) -> str | None:
        """:return: the canonical name of a task in any accepted spelling, None when there is no such task"""

    def preset(self, task: str, obs: Observation) -> Preset | None:
        """:return: settings that a task is published with, None when the suite does not offer this observation"""
        return StatePreset() if obs == "state" else None

    def make(self, task: str, *, seed: int | None, render_mode: str | None, **env_kwargs: Any) -> gym.Env[Any, Any]:
        """
        Build the bare environment: one frame per step, observations as the suite gives them.

        :param task: canonical name
        :param seed: seed of random choices at construction; the first reset is seeded elsewhere
        :param render_mode: Gymnasium render mode
        :param env_kwargs: the suite's own arguments
        :return: the environment
        """
        raise NotImplementedError(f"{self.name} builds its environments by make_batch.")

    def action_repeat(self, task: str) -> int:
        """:return: environment frames per agent step that a task is published with, 1 when there is none"""
        return 1

    def make_batch(self, task: str, num_envs: int, *, obs: str = "state", **kwargs: Any) -> BatchedEnv | None:
        """
        Build environments that step together, if the suite can.

        :param task: canonical name
        :param num_envs: at least 1
        :param obs: kind of observation
        :param kwargs: ``obs_kwargs``, ``seed`` of random choices at construction, ``action_repeat``, ``render_mode``,
            and the suite's own arguments
        :return: the environments; None where they have to be built one by one
        """
        return None
