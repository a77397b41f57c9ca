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
    """
    Order choices for an error message.

    :param name: what was asked for
    :param choices: what there is
    :return: all choices, those spelled like ``name`` first
    """
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
    #: whether :meth:`make_batch` builds environments that step together in tensors
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

    @abstractmethod
    def tasks(self) -> list[str]:
        """:return: canonical names of all tasks"""

    @abstractmethod
    def canonical_task(self, task: str) -> str | None:
        """
        :param task: name of a task in any accepted spelling
        :return: the canonical name, or None when there is no such task
        """

    def preset(self, task: str, obs: Observation) -> Preset | None:
        """
        :param task: canonical name
        :param obs: kind of observation
        :return: settings that the task is published with, None when the suite does not offer this kind
        """
        return StatePreset() if obs == "state" else None

    @abstractmethod
    def make(self, task: str, *, seed: int | None, render_mode: str | None, **env_kwargs: Any) -> gym.Env[Any, Any]:
        """
        Build the bare environment: one frame per step, observations as the suite gives them.

        :param task: canonical name
        :param seed: seed of random choices at construction; the first reset is seeded elsewhere
        :param render_mode: Gymnasium render mode
        :param env_kwargs: the suite's own arguments
        :return: the environment
        """

    def action_repeat(self, task: str) -> int:
        """
        :param task: canonical name
        :return: environment frames per agent step that the task is published with, 1 when there is none
        """
        return 1

    def make_batch(
        self,
        task: str,
        num_envs: int,
        *,
        obs: str = "state",
        obs_kwargs: dict[str, Any] | None = None,
        seed: int | None = None,
        action_repeat: int = 1,
        render_mode: str | None = None,
        **env_kwargs: Any,
    ) -> BatchedEnv | None:
        """
        Build environments that step together, if the suite can.

        :param task: canonical name
        :param num_envs: at least 1
        :param obs: kind of observation
        :param obs_kwargs: its settings
        :param seed: seed of random choices at construction
        :param action_repeat: environment frames per step
        :param render_mode: Gymnasium render mode
        :param env_kwargs: the suite's own arguments
        :return: the environments; None where they have to be built one by one
        """
        return None
