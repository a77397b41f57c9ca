"""MuJoCo Playground's DeepMind Control suite: thousands of environments at once, in JAX."""

from __future__ import annotations

import functools
import importlib.util
import re
import sys
import types
from typing import Any, ClassVar

import gymnasium as gym

from difftori_gym.envs.dm_control import ACTION_REPEAT
from difftori_gym.envs.playground_batch import PlaygroundBatch, configure_jax
from difftori_gym.envs.rendering import select_gl_backend
from difftori_gym.envs.suite import Suite
from difftori_gym.wrappers import BatchedEnv, SingleEnv

_PACKAGE = "mujoco_playground"
# Tasks that TD-MPC's spelling shortens.
_OTHER_NAMES = {"ball-in-cup": "cup-catch", "point-mass": "point-mass-easy"}


@functools.cache
def _control_suite() -> Any:
    """
    Import Playground's control suite without its robots.

    Importing the package as a whole clones a repository of robot models, a gigabyte over the network, which the
    control suite does not use. So a bare package stands in its place for the length of this import; afterwards the
    real one can be imported as ever.

    :return: the module ``dm_control_suite``
    """
    configure_jax()
    select_gl_backend()
    if _PACKAGE not in sys.modules:
        spec = importlib.util.find_spec(_PACKAGE)
        if spec is None or spec.submodule_search_locations is None:
            raise ModuleNotFoundError(f"No module named {_PACKAGE!r}", name=_PACKAGE)
        stand_in = types.ModuleType(_PACKAGE)
        stand_in.__path__ = list(spec.submodule_search_locations)
        sys.modules[_PACKAGE] = stand_in
        try:
            from mujoco_playground._src import dm_control_suite
        finally:
            sys.modules.pop(_PACKAGE, None)
        return dm_control_suite
    from mujoco_playground._src import dm_control_suite

    return dm_control_suite


def _spell(name: str) -> str:
    """
    :param name: ``CartpoleSwingup``, ``cartpole-swingup``, ``cartpole_swingup``
    :return: the name with hyphens
    """
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[a-z])(?=[0-9])", "-", name)
    name = words.replace("_", "-").lower()
    return _OTHER_NAMES.get(name, name.replace("ball-in-cup-", "cup-"))


@functools.cache
def _names() -> dict[str, str]:
    """:return: Playground's name of every canonical name"""
    return {_spell(name): name for name in _control_suite().ALL_ENVS}


class Playground(Suite):
    """
    The 25 control tasks of MuJoCo Playground, under the names of ``dm_control`` and under its own.

    ``playground/cartpole-swingup`` and ``playground/CartpoleSwingup`` are the same. Quadrupeds are not among them.
    """

    name: ClassVar[str] = "playground"
    extra: ClassVar[str | None] = "playground"
    packages: ClassVar[tuple[str, ...]] = (_PACKAGE, "jax", "mujoco")
    batched: ClassVar[bool] = True

    def tasks(self) -> list[str]:
        """:return: canonical names of all tasks"""
        self.require()
        return list(_names())

    def canonical_task(self, task: str) -> str | None:
        """
        :param task: ``cartpole-swingup``, ``CartpoleSwingup``, ``cup-catch``, ``BallInCup``, ...
        :return: the canonical name, or None when there is no such task
        """
        self.require()
        name = _spell(task)
        return name if name in _names() else None

    def action_repeat(self, task: str) -> int:
        """
        :param task: canonical name
        :return: environment frames per agent step of the same task of ``dm_control``
        """
        return ACTION_REPEAT.get(task, 1)

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
    ) -> BatchedEnv:
        """
        Build ``num_envs`` environments that step together.

        :param task: canonical name
        :param num_envs: at least 1
        :param obs: ``state``; Playground draws pixels for learning with a package that is not published
        :param obs_kwargs: none: there is nothing to set
        :param seed: of environments that are reset without a seed
        :param action_repeat: environment frames per step
        :param render_mode: None or ``rgb_array``
        :param env_kwargs: ``episode_length`` in frames, 1000 by default; ``width``, ``height`` and ``camera_id`` of
            images
        :return: the environments, on the device that JAX computes on
        :raises ValueError: for another kind of observation, or settings of it
        """
        if obs_kwargs:
            raise ValueError(f"playground's states have no settings, got obs_kwargs {', '.join(obs_kwargs)}.")
        if obs != "state":
            raise ValueError(f"playground gives obs='state' only, got {obs!r}. For pixels take dm_control/{task}.")
        source = _control_suite().load(_names()[task])
        return PlaygroundBatch(
            source, num_envs, seed=seed, action_repeat=action_repeat, render_mode=render_mode, **env_kwargs
        )

    def make(self, task: str, *, seed: int | None, render_mode: str | None, **env_kwargs: Any) -> gym.Env[Any, Any]:
        """
        Build one environment.

        :param task: canonical name
        :param seed: of resets without a seed
        :param render_mode: None or ``rgb_array``
        :param env_kwargs: as in :meth:`make_batch`
        :return: environment that truncates itself
        """
        return SingleEnv(self.make_batch(task, 1, seed=seed, render_mode=render_mode, **env_kwargs))
