"""Who demonstrates: scripted experts of the suites, ManiSkill's motion planner, trained models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm

from difftori_gym.baselines.methods import METHODS
from difftori_gym.collection.recording import EpisodeRecorder
from difftori_gym.envs import maniskill_experts, metaworld, robosuite_experts
from difftori_gym.envs.suite import TaskId

#: Plays from the first observation until the episode is to end; the recorder has been reset.
Play = Callable[[EpisodeRecorder, Any, Callable[[], bool]], None]

#: Suites with experts of their own.
EXPERT_SUITES: tuple[str, ...] = ("metaworld", "robosuite", "maniskill")


@dataclass(frozen=True)
class Expert:
    """
    Somebody who can do a task.

    :param name: told in the data set
    :param play: plays one episode: given the recorder, its first observation, and when to stop
    :param env_kwargs: arguments of ``make_env`` that it needs
    """

    name: str
    play: Play
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)


def make_expert(task: TaskId, policy: Path | None = None, algorithm: str | None = None) -> Expert:
    """
    :param task: what is to be demonstrated
    :param policy: file of a trained Stable-Baselines3 or DiffTORI model; None: the suite's own expert
    :param algorithm: name of the method that saved it, such as ``sac`` or ``difftori``
    :return: the expert
    :raises ValueError: if the suite has no expert of the task, the method is not known, or the file is not its
    """
    if policy is not None:
        return _model_expert(policy, algorithm)
    if task.suite == "metaworld":
        return Expert("MetaWorld's scripted policy", _following(metaworld.scripted_expert(task.task)))
    if task.suite == "robosuite":
        return Expert("difftori-gym's scripted policy", _following(robosuite_experts.scripted_expert(task.task)))
    if task.suite == "maniskill":
        plan = maniskill_experts.motion_planner(task.task)
        return Expert("ManiSkill's motion planner", lambda env, _, stop: plan(env, stop), maniskill_experts.ENV_KWARGS)
    raise ValueError(
        f"{task} has no scripted expert: expected a suite of {', '.join(EXPERT_SUITES)}, or a trained model. "
        "Pass --policy FILE --algorithm NAME."
    )


def _following(act: Callable[[np.ndarray], np.ndarray]) -> Play:
    """Play by a function from the environment's true state to an action, whatever the agent sees."""

    def play(env: EpisodeRecorder, observation: Any, stop: Callable[[], bool]) -> None:
        while not stop():
            env.step(act(np.asarray(env.get_wrapper_attr("state"))))

    return play


def _loaded(path: Path, learners: list[type[BaseAlgorithm]]) -> BaseAlgorithm:
    """A model that one of the classes saved; one name stands for two, of reinforcement learning and imitation."""
    errors = []
    for learner in learners:
        try:
            return learner.load(path, device="cpu")
        except Exception as error:  # zip, pickle and torch each raise their own
            errors.append(f"{error}")
    names = " or ".join(learner.__name__ for learner in learners)
    raise ValueError(f"{path}: expected a model saved by {names}, got none ({'; '.join(errors)}).")


def _model_expert(path: Path, algorithm: str | None) -> Expert:
    name = algorithm or ""
    known = [registry[name].learner() for registry in METHODS.values() if name in registry]
    if not known:
        raise ValueError(
            f"Unknown algorithm {algorithm!r}. Choices: {', '.join({**METHODS['rl'], **METHODS['imitation']})}."
        )
    if not path.is_file():
        raise ValueError(f"{path}: expected a saved model, found none.")
    model = _loaded(path, known)

    def play(env: EpisodeRecorder, observation: Any, stop: Callable[[], bool]) -> None:
        if model.observation_space != env.observation_space or model.action_space != env.action_space:
            raise ValueError(
                f"{path}: expected a model of {env.observation_space} and {env.action_space}, got one of "
                f"{model.observation_space} and {model.action_space}."
            )
        state: Any = None
        start = np.ones(1, dtype=bool)
        while not stop():
            action, state = model.predict(observation, state, start, deterministic=True)
            observation, *_ = env.step(action)
            start = np.zeros(1, dtype=bool)

    return Expert(f"{type(model).__name__} {path.name}", play)
