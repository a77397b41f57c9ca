"""The model a card is about, from either kind of file."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy

from difftori_gym.card.trained import LEARNERS, Trained
from difftori_gym.exports import export, load_export, read_export


@dataclass(frozen=True)
class Subject:
    """
    :param policy: what acts
    :param export: its exported file, or a copy of its zip
    :param algorithm: name of the algorithm, None if a policy was exported without one
    :param num_timesteps: steps it was trained for, None if that is not known
    :param observation_space: of the observations
    :param action_space: of the actions
    :param settings: how the policy acts, JSON
    :param num_parameters: numbers in its weights
    :param versions: of packages at the export
    :param package: that loads a zip, None for an exported file
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
    package: str | None = None


def read_subject(trained: Trained, folder: Path) -> Subject:
    """
    Load a model, and leave its file in the card's folder, exported where ``export`` knows it. A zip is unpickled: see
    docs/sharing.md.

    :param trained: what to load
    :param folder: of the card
    :return: the model
    :raises ValueError: if it cannot be loaded
    """
    path = trained.path
    target = folder / f"{path.stem}.safetensors"
    if trained.learner is not None:
        if trained.learner not in LEARNERS.values():
            return _of_another_package(path, trained.learner, folder)
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


def _of_another_package(path: Path, learner: type[BaseAlgorithm], folder: Path) -> Subject:
    """
    :param path: zip of a learner that ``export`` does not know
    :param learner: its class, of Stable-Baselines3 or sb3-contrib
    :param folder: of the card, which gets a copy
    :return: the model
    """
    model = learner.load(path, device="cpu")
    target = folder / path.name
    if target.resolve() != path.resolve():
        target.write_bytes(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        version = archive.read("_stable_baselines3_version").decode()
    assert isinstance(model.action_space, spaces.Box)
    return Subject(
        model.policy,
        target,
        learner.__name__,
        model.num_timesteps,
        model.observation_space,
        model.action_space,
        settings={},
        num_parameters=sum(parameter.numel() for parameter in model.policy.parameters()),
        versions={"stable-baselines3": version},
        package=learner.__module__.partition(".")[0],
    )
