"""MuJoCo Playground's DeepMind Control suite: thousands of environments at once, in JAX."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import sys
import types
from typing import Any, ClassVar

from difftori_gym.envs.dm_control import ACTION_REPEAT
from difftori_gym.envs.rendering import select_gl_backend
from difftori_gym.envs.suite import Suite
from difftori_gym.wrappers import BatchedEnv

_PACKAGE = "mujoco_playground"
# Tasks that TD-MPC's spelling shortens.
_OTHER_NAMES = {"ball-in-cup": "cup-catch", "point-mass": "point-mass-easy"}


def configure_jax() -> None:
    """
    Settle what JAX reads when it is imported; what the user has set stays.

    JAX would take three quarters of a GPU's memory at once, which torch needs too. And with ``OMP_NUM_THREADS=1``,
    by which torch is kept to one thread, its programs for the CPU keep to one as well.
    """
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    flags = os.environ.get("XLA_FLAGS", "")
    if os.environ.get("OMP_NUM_THREADS") == "1" and "xla_cpu_multi_thread_eigen" not in flags:
        one_thread = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        os.environ["XLA_FLAGS"] = f"{flags} {one_thread}".strip()


@functools.cache
def _control_suite() -> Any:
    """
    Playground's module ``dm_control_suite``, imported without its robots.

    Importing the package as a whole clones a repository of robot models, a gigabyte over the network, which the
    control suite does not use. So a bare package stands in its place for the length of this import; afterwards the
    real one can be imported as ever.
    """
    configure_jax()
    select_gl_backend()
    is_real = _PACKAGE in sys.modules
    if not is_real:
        spec = importlib.util.find_spec(_PACKAGE)
        if spec is None or spec.submodule_search_locations is None:
            raise ModuleNotFoundError(f"No module named {_PACKAGE!r}", name=_PACKAGE)
        sys.modules[_PACKAGE] = types.ModuleType(_PACKAGE)
        sys.modules[_PACKAGE].__path__ = list(spec.submodule_search_locations)
    try:
        from mujoco_playground._src import dm_control_suite
    finally:
        if not is_real:
            sys.modules.pop(_PACKAGE, None)
    return dm_control_suite


def _spell(name: str) -> str:
    """``CartpoleSwingup`` or ``cartpole_swingup`` with hyphens."""
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
        self.require()
        return list(_names())

    def canonical_task(self, task: str) -> str | None:
        """Takes ``cartpole-swingup``, ``CartpoleSwingup``, ``cup-catch``, ``BallInCup``, ..."""
        name = _spell(task)
        return name if name in _names() else None

    def action_repeat(self, task: str) -> int:
        """That of the same task of ``dm_control``."""
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
        Build environments that step together, on the device that JAX computes on.

        :param obs: ``state``; Playground draws pixels for learning with a package that is not published
        :param obs_kwargs: none: there is nothing to set
        :param seed: of environments that are reset without a seed
        :param env_kwargs: ``episode_length`` in frames, 1000 by default; ``width``, ``height`` and ``camera_id`` of
            images
        :raises ValueError: for another kind of observation, or settings of it
        """
        if obs_kwargs:
            raise ValueError(f"playground's states have no settings, got obs_kwargs {', '.join(obs_kwargs)}.")
        if obs != "state":
            raise ValueError(f"playground gives obs='state' only, got {obs!r}. For pixels take dm_control/{task}.")
        source = _control_suite().load(_names()[task])
        from difftori_gym.envs.playground_batch import PlaygroundBatch

        return PlaygroundBatch(
            source, num_envs, seed=seed, action_repeat=action_repeat, render_mode=render_mode, **env_kwargs
        )
