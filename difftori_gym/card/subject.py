"""The model a card is about, from either kind of file."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy

from difftori_gym.baselines import BC, BCRNN, IBC, TDMPC, DiffusionPolicy, DrQv2, Residual
from difftori_gym.exports import export, load_export, read_export
from difftori_gym.il import DiffTORIImitation
from difftori_gym.rl import DiffTORI

LEARNERS: dict[str, type[BaseAlgorithm]] = {
    cls.__name__: cls for cls in (DiffTORI, TDMPC, DrQv2, DiffTORIImitation, BC, BCRNN, IBC, DiffusionPolicy, Residual)
}


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


def read_subject(path: Path, folder: Path, algorithm: str | None = None) -> Subject:
    """
    Load a model, and leave its exported file in the card's folder. A zip is unpickled: see docs/sharing.md.

    :param path: file of ``export``, or of ``save``
    :param folder: of the card
    :param algorithm: name of a zip's algorithm, for zips that do not tell
    :return: the model
    :raises ValueError: if the file is neither, or of an algorithm that is not known
    """
    target = folder / f"{path.stem}.safetensors"
    if zipfile.is_zipfile(path):
        export(LEARNERS[_algorithm_of(path, algorithm)].load(path, device="cpu"), target)
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


def _algorithm_of(path: Path, algorithm: str | None) -> str:
    """Read from the zip's JSON, without unpickling."""
    if algorithm is None:
        with zipfile.ZipFile(path) as archive:
            data = json.loads(archive.read("data")) if "data" in archive.namelist() else {}
        algorithm = data.get("saved_by")
    if not isinstance(algorithm, str) or algorithm not in LEARNERS:
        raise ValueError(
            f"{path}: expected a model of {', '.join(LEARNERS)}, got {algorithm!r}: name the algorithm with --algo."
        )
    return algorithm
