"""Build environments by name: ``suite/task`` or any registered Gymnasium id."""

from __future__ import annotations

import functools
import multiprocessing
from collections.abc import Callable, Iterable
from typing import Any, Literal, get_args

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
    SuccessReward,
    TensorVecEnv,
)
from difftori_gym.wrappers.seed_first_reset import checked_seed

SUITES: dict[str, Suite] = {
    suite.name: suite
    for suite in (DMControl(), MetaWorld(), Robosuite(), Playground(), ManiSkill(), PushT(), Gymnasium())
}

Reward = Literal["environment", "success"]

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
        return TaskId(prefix, SUITES[prefix].find(rest))
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
    return [TaskId(prefix, suite.find(task)) for task in suite.paper_tasks]


def task_action_repeat(task: TaskId) -> int:
    """:return: environment frames per agent step that a task is published with, 1 when there is none"""
    return SUITES[task.suite].action_repeat(task.task)


def _make_batch(
    task: TaskId, num_envs: int, *, action_repeat: int | None, frame_stack: int | None, **kwargs: Any
) -> BatchedEnv | None:
    """Environments of a suite that steps in batched tensors; None where it has to build several one by one."""
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
    if obs not in OBSERVATIONS:
        raise ValueError(f"Unknown obs {obs!r}. Choices: {', '.join(OBSERVATIONS)}.")
    offered = {kind: SUITES[task.suite].preset(task.task, kind) for kind in get_args(Observation)}
    preset = offered[obs]
    if preset is None:
        own = SUITES[task.suite].own_observations
        choices = ", ".join(kind for kind, found in offered.items() if found is not None or kind in own)
        raise ValueError(f"{task.suite} does not offer obs={obs!r}. Choices: {choices}.")
    return preset


def make_env(
    id: str,
    *,
    obs: Observation = "state",
    seed: int | None = None,
    action_repeat: int | None = None,
    frame_stack: int | None = None,
    obs_kwargs: dict[str, Any] | None = None,
    reward: Reward = "environment",
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
        and ``state`` of images, ``num_points``, ``cameras``, ``crop_low``, ``crop_high`` and ``color`` of clouds,
        ``noise`` and ``pendulums`` beside a state (:class:`~difftori_gym.wrappers.Distractors`)
    :param reward: the ``environment``'s own, or ``success`` alone: 1 for each agent step that leads to where the task
        is solved, 0 for every other (:class:`~difftori_gym.wrappers.SuccessReward`)
    :param render_mode: Gymnasium render mode, ``rgb_array`` for films
    :param env_kwargs: arguments of the suite, such as ``width`` and ``height`` of rendered images, ``fast_render``;
        those of ``gymnasium.make`` in Gymnasium
    :return: the environment
    :raises ValueError: on an unknown suite, task, camera or kind of observation, numbers below 1 or a negative seed
    :raises ImportError: if the suite is not installed
    """
    seed = checked_seed(seed)
    task = parse_task(id)
    _check_reward(reward, task)
    suite = SUITES[task.suite]
    own: dict[str, Any] = dict(obs=obs, obs_kwargs=obs_kwargs, render_mode=render_mode, **env_kwargs)
    env: gym.Env[Any, Any]
    if suite.batched:
        batch = _make_batch(task, 1, action_repeat=action_repeat, frame_stack=frame_stack, **own)
        assert batch is not None
        env = SingleEnv(batch)
        return env if seed is None else SeedFirstReset(env, seed)
    preset = None
    if obs not in suite.own_observations:
        preset = adjusted(_preset(task, obs), frame_stack, obs_kwargs, obs)
        if isinstance(preset, PixelPreset) and preset.camera is None and render_mode is None:
            render_mode = "rgb_array"
        own = dict(render_mode=render_mode, **env_kwargs)
    with suite.explain_missing():
        env = suite.make(task.task, seed=seed, **own)
    env = ActionRepeat(env, task_action_repeat(task) if action_repeat is None else action_repeat)
    env = EpisodeSuccess(SuccessReward(env) if reward == "success" else env)
    if preset is not None:
        env = observe(env, preset)
    elif frame_stack not in (None, 1):
        env = stack_frames(env, frame_stack)
    return env if seed is None else SeedFirstReset(env, seed)


def _check_reward(reward: str, task: TaskId) -> None:
    if reward not in get_args(Reward):
        raise ValueError(f"Unknown reward {reward!r}. Choices: {', '.join(get_args(Reward))}.")
    if reward == "success" and SUITES[task.suite].batched:
        raise ValueError(
            f"{task} steps in batched tensors, expected reward='environment', got 'success': ManiSkill has "
            "reward_mode='sparse' of its own."
        )


def _make_monitored(id: str, name: str, **kwargs: Any) -> Monitor:
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
    reward: Reward = "environment",
    render_mode: str | None = None,
    vec_env_cls: Callable[..., VecEnv] | None = None,
    vec_env_kwargs: dict[str, Any] | None = None,
    **env_kwargs: Any,
) -> VecEnv:
    """
    Build ``n_envs`` copies of an environment as one Stable-Baselines3 ``VecEnv``, each with a ``Monitor``.

    A suite that steps in batched tensors gives a :class:`~difftori_gym.wrappers.TensorVecEnv`, unless
    ``vec_env_cls`` asks for something else.

    What is not told here is as in :func:`make_env`.

    :param n_envs: number of environments, at least 1
    :param seed: seed of the first environment, the i-th gets ``seed + i``. None: not seeded
    :param vec_env_cls: ``DummyVecEnv`` (all in this process) or ``SubprocVecEnv``; None takes the suite's batched
        environments where it has them, else ``DummyVecEnv``
    :param vec_env_kwargs: arguments of ``vec_env_cls``, such as ``{"start_method": "spawn"}``
    :return: the vectorised environment
    :raises ValueError: as :func:`make_env`, and if ``n_envs`` is below 1
    :raises RuntimeError: if a process of ``SubprocVecEnv`` fails or is killed, now or later; names the environment
    """
    if n_envs < 1:
        raise ValueError(f"make_vec_env needs n_envs >= 1, got {n_envs}.")
    seed = checked_seed(seed)
    task = parse_task(id)  # an unknown name is told here, not from inside a child process
    _check_reward(reward, task)
    suite = SUITES[task.suite]
    settings: dict[str, Any] = dict(
        obs=obs,
        obs_kwargs=obs_kwargs,
        action_repeat=action_repeat,
        frame_stack=frame_stack,
        render_mode=render_mode,
        **env_kwargs,
    )
    if vec_env_cls is None and suite.batched:
        batch = _make_batch(task, n_envs, seed=seed, **settings)
        if batch is not None:
            return TensorVecEnv(batch, seed=seed)
    if obs not in suite.own_observations and not suite.batched:
        adjusted(_preset(task, obs), frame_stack, obs_kwargs, obs)
    names = [f"environment {index} ({task})" for index in range(n_envs)]
    makers: list[Callable[[], gym.Env[Any, Any]]] = [
        functools.partial(
            _make_monitored, id, name, seed=None if seed is None else seed + index, reward=reward, **settings
        )
        for index, name in enumerate(names)
    ]
    if vec_env_cls is SubprocVecEnv:
        return NamedSubprocVecEnv(makers, names=names, **(vec_env_kwargs or {}))
    return (vec_env_cls or DummyVecEnv)(makers, **(vec_env_kwargs or {}))
