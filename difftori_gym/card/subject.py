"""The model a card is about, from either kind of file."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy

from difftori_gym.card.trained import LEARNERS, Trained
from difftori_gym.exports import Export, export, load_export, read_export


@dataclass(frozen=True)
class Subject:
    """
    :param policy: what acts
    :param about: its exported file, or what is known of a copy of its zip
    :param package: that loads a zip, None for an exported file
    """

    policy: BasePolicy
    about: Export
    package: str | None = None


def read_subject(trained: Trained, folder: Path) -> Subject:
    """
    Load a model, and leave its file in the card's folder, exported where ``export`` knows it. A zip is unpickled: see
    docs/sharing.md.

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
    about = read_export(target)
    return Subject(load_export(target, device="cpu"), about)


def _of_another_package(path: Path, learner: type[BaseAlgorithm], folder: Path) -> Subject:
    """A zip of Stable-Baselines3 or sb3-contrib, which ``export`` does not know."""
    model = learner.load(path, device="cpu")
    target = folder / path.name
    if target.resolve() != path.resolve():
        target.write_bytes(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        version = archive.read("_stable_baselines3_version").decode()
    assert isinstance(model.action_space, spaces.Box)
    about = Export(
        path=target,
        policy=type(model.policy).__name__,
        algorithm=learner.__name__,
        num_timesteps=model.num_timesteps,
        versions={"stable-baselines3": version},
        observation_space=model.observation_space,
        action_space=model.action_space,
        settings={},
        num_parameters=sum(parameter.numel() for parameter in model.policy.parameters()),
    )
    return Subject(model.policy, about, learner.__module__.partition(".")[0])
