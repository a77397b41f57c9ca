"""Build environments by name: ``suite/task`` or any registered Gymnasium id."""

from __future__ import annotations

import functools
import multiprocessing
from collections.abc import Callable, Iterable
from typing import Any, get_args

import gymnasium as gym
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv

from difftori_gym.envs.dm_control import ACTION_REPEAT, DMControl
from difftori_gym.envs.gymnasium import Gymnasium
from difftori_gym.envs.maniskill import ManiSkill
from difftori_gym.envs.metaworld import MetaWorld
from difftori_gym.envs.observations import (
    OBSERVATIONS,
    Observation,
    PixelPreset,
    Preset,
    adjusted,
    observe,
    stack_frames,
)
from difftori_gym.envs.playground import Playground
from difftori_gym.envs.pusht import PushT
from difftori_gym.envs.robosuite import Robosuite
from difftori_gym.envs.suite import Suite, TaskId, closest_first
from difftori_gym.envs.worker_processes import NamedSubprocVecEnv
from difftori_gym.wrappers import (
    ActionRepeat,
    BatchedEnv,
    EpisodeSuccess,
    NamedEnv,
    SeedFirstReset,
    SingleEnv,
    TensorVecEnv,
)
from difftori_gym.wrappers.seed_first_reset import checked_seed

SUITES: dict[str, Suite] = {
    suite.name: suite
    for suite in (DMControl(), MetaWorld(), Robosuite(), Playground(), ManiSkill(), PushT(), Gymnasium())
}

GROUP = "paper"
"""In place of a task: all that the paper reports."""


def parse_task(id: str) -> TaskId:
    """
    Find the suite and the canonical task of an id.

    :param id: ``suite/task`` or a registered Gymnasium id
    :return: the task
    :raises ValueError: if there is no such suite or task; lists the choices, close ones first
    :raises ImportError: if the suite is not installed; names the command that installs it
    """
    prefix, slash, rest = id.partition("/")
    if slash and prefix in SUITES:
        return _parse_in_suite(SUITES[prefix], rest)
    if SUITES["gymnasium"].canonical_task(id) is not None:
        return TaskId("gymnasium", id)
    if slash:
        suites = ", ".join(closest_first(prefix, list(SUITES)))
        raise ValueError(f"Unknown suite {prefix!r} in {id!r}. Suites: {suites}; or any registered Gymnasium id.")
    names = [f"dm_control/{task}" for task in ACTION_REPEAT] + SUITES["gymnasium"].tasks()
    hint = ""
    if multiprocessing.parent_process() is not None:
        hint = (
            " This is a process of its own, which knows nothing of what the program registers: register in a module "
            f"and name it, 'module:{id}'."
        )
    raise ValueError(f"Unknown environment {id!r}. Choices: {', '.join(closest_first(id, names))}.{hint}")


def parse_tasks(ids: Iterable[str]) -> list[TaskId]:
    """
    Find the tasks of several ids.

    :param ids: as in :func:`parse_task`, or ``suite/paper``, which stands for all tasks of the suite that the DiffTORI
        paper reports: 15 of dm_control, 22 of metaworld
    :return: the tasks
    :raises ValueError: if there is no such suite or task, or the paper has none of the suite
    :raises ImportError: if a suite is not installed; names the command that installs it
    """
    return [task for id in ids for task in _parse_group(id)]


def _parse_group(id: str) -> list[TaskId]:
    prefix, _, rest = id.partition("/")
    if rest != GROUP or prefix not in SUITES:
        return [parse_task(id)]
    suite = SUITES[prefix]
    if not suite.paper_tasks:
        groups = ", ".join(f"{name}/{GROUP}" for name, each in SUITES.items() if each.paper_tasks)
        raise ValueError(f"The tasks of the paper are known for {groups}, got {id!r}: name the tasks one by one.")
    return [_parse_in_suite(suite, task) for task in suite.paper_tasks]


def _parse_in_suite(suite: Suite, name: str) -> TaskId:
    """
    :param suite: where to look
    :param name: task in any accepted spelling
    :return: the task
    :raises ValueError: if the suite has no such task
    """
    suite.require()
    with suite.explain_missing():
        task = suite.canonical_task(name)
    if task is None:
        choices = ", ".join(closest_first(name, suite.tasks()))
        raise ValueError(f"Unknown task {name!r} of {suite.name}. Choices: {choices}.")
    return TaskId(suite.name, task)


def task_action_repeat(task: TaskId) -> int:
    """
    :param task: a task
    :return: environment frames per agent step that the task is published with, 1 when there is none
    """
    return SUITES[task.suite].action_repeat(task.task)


def _make_batch(
    task: TaskId, num_envs: int, action_repeat: int | None, frame_stack: int | None, **kwargs: Any
) -> BatchedEnv | None:
    """
    :param task: task of a suite that steps in batched tensors
    :param num_envs: at least 1
    :param action_repeat: environment frames per agent step; None: the task's preset
    :param frame_stack: None or 1: batched observations are not stacked
    :param kwargs: other arguments of ``Suite.make_batch``
    :return: the environments; None where the suite has to build several one by one
    :raises ValueError: for another ``frame_stack``
    :raises ImportError: if the suite is not installed
    """
    if frame_stack not in (None, 1):
        raise ValueError(
            f"{task} steps in batched tensors, which are not stacked, got frame_stack={frame_stack}. Use "
            "stable_baselines3.common.vec_env.VecFrameStack."
        )
    suite = SUITES[task.suite]
    repeat = task_action_repeat(task) if action_repeat is None else action_repeat
    with suite.explain_missing():
        return suite.make_batch(task.task, num_envs, action_repeat=repeat, **kwargs)


def _preset(task: TaskId, obs: Observation) -> Preset:
    """
    :param task: a task
    :param obs: kind of observation
    :return: settings that the task is published with
    :raises ValueError: if there is no such kind, or the suite does not offer it; lists the choices
    """
    if obs not in OBSERVATIONS:
        raise ValueError(f"Unknown obs {obs!r}. Choices: {', '.join(OBSERVATIONS)}.")
    offered = {kind: SUITES[task.suite].preset(task.task, kind) for kind in get_args(Observation)}
    preset = offered[obs]
    if preset is None:
        own = SUITES[task.suite].own_observations
        choices = ", ".join(kind for kind, found in offered.items() if found is not None or kind in own)
        raise ValueError(f"{task.suite} does not offer obs={obs!r}. Choices: {choices}.")
    return preset


def _repeated(env: gym.Env[Any, Any], task: TaskId, action_repeat: int | None) -> gym.Env[Any, Any]:
    """
    :param env: bare environment of a task
    :param task: the task
    :param action_repeat: environment frames per agent step; None: the task's preset
    :return: environment that repeats actions and tells the success of its episodes
    """
    return EpisodeSuccess(ActionRepeat(env, task_action_repeat(task) if action_repeat is None else action_repeat))


def make_env(
    id: str,
    *,
    obs: Observation = "state",
    seed: int | None = None,
    action_repeat: int | None = None,
    frame_stack: int | None = None,
    obs_kwargs: dict[str, Any] | None = None,
    render_mode: str | None = None,
    **env_kwargs: Any,
) -> gym.Env[Any, Any]:
    """
    Build one environment.

    ``info["frames"]`` of each step is the number of environment frames it took. ``info["is_success"]``, where the task
    tells success, is true from the first success of an episode to its end.

    :param id: ``suite/task``, such as ``dm_control/cup-catch``, or a registered Gymnasium id
    :param obs: ``state``: one flat float32 vector; ``pixels``: uint8 images, channels first; ``pointcloud``: a dict of
        ``point_cloud`` and ``agent_pos``
    :param seed: seed of the first reset, at least 0; later resets continue the stream. None: not seeded
    :param action_repeat: environment frames per agent step, at least 1; None: the task's preset
    :param frame_stack: number of last observations seen together, at least 1; None: the preset, 3 for images
    :param obs_kwargs: other settings of the observation in place of the task's preset, such as ``size``, ``camera``
        and ``state`` of images, ``num_points``, ``cameras``, ``crop_low``, ``crop_high`` and ``color`` of clouds
    :param render_mode: Gymnasium render mode, ``rgb_array`` for films
    :param env_kwargs: arguments of the suite, such as ``width`` and ``height`` of rendered images, ``fast_render``;
        those of ``gymnasium.make`` in Gymnasium
    :return: the environment
    :raises ValueError: on an unknown suite, task, camera or kind of observation, numbers below 1 or a negative seed
    :raises ImportError: if the suite is not installed
    """
    seed = checked_seed(seed)
    task = parse_task(id)
    suite = SUITES[task.suite]
    if suite.batched:
        batch = _make_batch(
            task, 1, action_repeat, frame_stack, obs=obs, obs_kwargs=obs_kwargs, render_mode=render_mode, **env_kwargs
        )
        assert batch is not None
        return SingleEnv(batch) if seed is None else SeedFirstReset(SingleEnv(batch), seed)
    if obs in suite.own_observations:
        with suite.explain_missing():
            env = suite.make(
                task.task, seed=seed, render_mode=render_mode, obs=obs, obs_kwargs=obs_kwargs, **env_kwargs
            )
        env = _repeated(env, task, action_repeat)
        env = env if frame_stack in (None, 1) else stack_frames(env, frame_stack)
        return env if seed is None else SeedFirstReset(env, seed)
    preset = adjusted(_preset(task, obs), frame_stack, obs_kwargs, obs)
    if isinstance(preset, PixelPreset) and preset.camera is None and render_mode is None:
        render_mode = "rgb_array"
    with suite.explain_missing():
        env = suite.make(task.task, seed=seed, render_mode=render_mode, **env_kwargs)
    env = _repeated(env, task, action_repeat)
    env = observe(env, preset)
    return env if seed is None else SeedFirstReset(env, seed)


def _make_monitored(id: str, name: str, **kwargs: Any) -> Monitor:
    """
    :param id: environment id
    :param name: of this one among several, for errors
    :param kwargs: arguments of :func:`make_env`
    :return: the environment, whose infos hold return and length of each finished episode
    """
    return Monitor(NamedEnv(make_env(id, **kwargs), name))


def make_vec_env(
    id: str,
    n_envs: int = 1,
    *,
    obs: Observation = "state",
    seed: int | None = None,
    action_repeat: int | None = None,
    frame_stack: int | None = None,
    obs_kwargs: dict[str, Any] | None = None,
    render_mode: str | None = None,
    vec_env_cls: Callable[..., VecEnv] | None = None,
    vec_env_kwargs: dict[str, Any] | None = None,
    **env_kwargs: Any,
) -> VecEnv:
    """
    Build ``n_envs`` copies of an environment as one Stable-Baselines3 ``VecEnv``, each with a ``Monitor``.

    A suite that steps in batched tensors gives a :class:`~difftori_gym.wrappers.TensorVecEnv`, unless
    ``vec_env_cls`` asks for something else.

    :param id: ``suite/task`` or a registered Gymnasium id
    :param n_envs: number of environments, at least 1
    :param obs: kind of observation
    :param seed: seed of the first environment, the i-th gets ``seed + i``. None: not seeded
    :param action_repeat: environment frames per agent step; None: the task's preset
    :param frame_stack: number of last observations seen together; None: the preset, 3 for images
    :param obs_kwargs: other settings of the observation in place of the task's preset
    :param render_mode: Gymnasium render mode
    :param vec_env_cls: ``DummyVecEnv`` (all in this process) or ``SubprocVecEnv``; None takes the suite's batched
        environments where it has them, else ``DummyVecEnv``
    :param vec_env_kwargs: arguments of ``vec_env_cls``, such as ``{"start_method": "spawn"}``
    :param env_kwargs: arguments of the suite
    :return: the vectorised environment
    :raises ValueError: as :func:`make_env`, and if ``n_envs`` is below 1
    :raises ImportError: if the suite is not installed
    :raises RuntimeError: if a process of ``SubprocVecEnv`` fails or is killed, now or later; names the environment
    """
    if n_envs < 1:
        raise ValueError(f"make_vec_env needs n_envs >= 1, got {n_envs}.")
    seed = checked_seed(seed)
    task = parse_task(id)  # an unknown name is told here, not from inside a child process
    if vec_env_cls is None and SUITES[task.suite].batched:
        batch = _make_batch(
            task,
            n_envs,
            action_repeat,
            frame_stack,
            obs=obs,
            obs_kwargs=obs_kwargs,
            seed=seed,
            render_mode=render_mode,
            **env_kwargs,
        )
        if batch is not None:
            return TensorVecEnv(batch, seed=seed)
    if obs not in SUITES[task.suite].own_observations and not SUITES[task.suite].batched:
        adjusted(_preset(task, obs), frame_stack, obs_kwargs, obs)
    names = [f"environment {index} ({task})" for index in range(n_envs)]
    makers: list[Callable[[], gym.Env[Any, Any]]] = [
        functools.partial(
            _make_monitored,
            id,
            names[index],
            obs=obs,
            seed=None if seed is None else seed + index,
            action_repeat=action_repeat,
            frame_stack=frame_stack,
            obs_kwargs=obs_kwargs,
            render_mode=render_mode,
            **env_kwargs,
        )
        for index in range(n_envs)
    ]
    if vec_env_cls is SubprocVecEnv:
        return NamedSubprocVecEnv(makers, names=names, **(vec_env_kwargs or {}))
    return (vec_env_cls or DummyVecEnv)(makers, **(vec_env_kwargs or {}))
