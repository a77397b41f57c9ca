"""The model a card is about, from either kind of file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy

from difftori_gym.card.trained import LEARNERS, Trained
from difftori_gym.exports import export, load_export, read_export


@dataclass(frozen=True)
class Subject:
    """
    :param policy: what acts
    :param export: its exported file
    :param algorithm: name of the algorithm, None if a policy was exported without one
    :param num_timesteps: steps it was trained for, None if that is not known
    :param observation_space: of the observations
    :param action_space: of the actions
    :param settings: how the policy acts, JSON
    :param num_parameters: numbers in its weights
    :param versions: of packages at the export
    """

    policy: BasePolicy
    export: Path
    algorithm: str | None
    num_timesteps: int | None
    observation_space: spaces.Space[Any]
    action_space: spaces.Box
    settings: Mapping[str, Any]
    num_parameters: int
    versions: Mapping[str, str]


def read_subject(trained: Trained, folder: Path) -> Subject:
    """
    Load a model, and leave its exported file in the card's folder. A zip is unpickled: see docs/sharing.md.

    :param trained: what to load
    :param folder: of the card
    :return: the model
    :raises ValueError: if it cannot be loaded, or is of an algorithm that is not exported
    """
    path = trained.path
    target = folder / f"{path.stem}.safetensors"
    if trained.learner is not None:
        if trained.learner not in LEARNERS.values():
            raise ValueError(
                f"{path}: expected a model of {', '.join(LEARNERS)}, got one of {trained.learner.__name__}, which is "
                "not exported. Film it by examples/record_video.py, evaluate it by difftori_gym.evaluation.evaluate."
            )
        export(trained.learner.load(path, device="cpu"), target)
    elif target.resolve() != path.resolve():
        load_export(path, device="cpu")  # refuses what is damaged before it is copied
        target.write_bytes(path.read_bytes())
    described = read_export(target)
    return Subject(
        load_export(target, device="cpu"),
        target,
        described.algorithm,
        described.num_timesteps,
        described.observation_space,
        described.action_space,
        described.settings,
        described.num_parameters,
        described.versions,
    )
