"""What was trained, from a file or from the folder of a run: the model, its class, and how it sees and acts."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy

from difftori_gym.baselines import BC, BCRNN, IBC, MIP, TDMPC, TDMPC2, DiffusionPolicy, DrQv2, FlowMatching, Residual
from difftori_gym.baselines.methods import METHODS
from difftori_gym.checkpointing.checkpoint import list_checkpoints
from difftori_gym.envs import parse_task, task_action_repeat
from difftori_gym.exports import Export, export, load_export, read_export
from difftori_gym.il import DiffTORIImitation
from difftori_gym.observations import map_obs
from difftori_gym.rl import DiffTORI

LEARNERS: dict[str, type[BaseAlgorithm]] = {
    cls.__name__: cls
    for cls in (
        *(DiffTORI, TDMPC, TDMPC2, DrQv2, DiffTORIImitation),
        *(BC, BCRNN, IBC, DiffusionPolicy, FlowMatching, MIP, Residual),
    )
}
#: Names on a command line: methods of compare.py, those of imitation that no other has, and classes.
NAMES = tuple({**METHODS["rl"], **METHODS["imitation"], **LEARNERS})
_SETTINGS = "run.json"
_MODEL = "model.zip"


@dataclass(frozen=True)
class Trained:
    """
    :param path: file of the model
    :param learner: its class, None for a file of ``export``, which needs none
    :param env: id of its environment, None where nothing tells
    :param environment: arguments of ``make_vec_env`` that it was trained with, as far as its run tells
    """

    path: Path
    learner: type[BaseAlgorithm] | None
    env: str | None = None
    environment: dict[str, Any] = field(default_factory=dict)

    def load(self, device: torch.device | str = "auto") -> BaseAlgorithm | BasePolicy:
        """
        :param device: torch device
        :return: the model, or the policy of an exported file
        :raises ValueError: if the file holds something else
        """
        if self.learner is None:
            return load_export(self.path, device)
        return self.learner.load(self.path, device=device)


def find_trained(path: Path, name: str | None = None) -> Trained:
    """
    :param path: file of ``save`` or ``export``, or folder of a run of examples/compare.py; a file inside such a folder
        knows its run, too
    :param name: of its method or class, for files that do not tell
    :return: what was trained
    :raises ValueError: if there is no model, or nothing tells what it is
    """
    run = _read_run(path)
    if path.is_dir():
        path = _newest_model(path)
    if not path.exists():
        raise ValueError(f"expected a saved model or the folder of a run, got {path}, which is not there.")
    if not zipfile.is_zipfile(path):
        return Trained(path, None, *_environment(run))
    return Trained(path, _learner(path, name, run), *_environment(run))


def _read_run(path: Path) -> dict[str, Any]:
    """Settings of the run that a folder or file belongs to, none if it belongs to none."""
    for folder in (path, *path.resolve().parents[:2]):
        if (folder / _SETTINGS).is_file():
            try:
                content = json.loads((folder / _SETTINGS).read_text(encoding="utf-8"))
            except ValueError as error:
                raise ValueError(
                    f"{folder / _SETTINGS} cannot be read: {error}. Name a model in it instead."
                ) from error
            settings = content.get("settings") if isinstance(content, dict) else None
            if isinstance(settings, dict) and {"suite", "task", "method"} <= set(settings):
                return settings
    return {}


def _newest_model(folder: Path) -> Path:
    found = [path for path in (folder, *list_checkpoints(folder)) if (path / _MODEL).exists()]
    if not found:
        raise ValueError(f"expected the folder of a run with a model or a checkpoint in it, got {folder}.")
    return found[-1] / _MODEL


def _environment(run: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
    if not run:
        return None, {}
    found = {"obs": run["obs"], **run.get("env_kwargs", {})}
    return f"{run['suite']}/{run['task']}".removeprefix("gymnasium/"), found


def _learner(path: Path, name: str | None, run: dict[str, Any]) -> type[BaseAlgorithm]:
    name = name or run.get("method") or _saved_by(path)
    if name in LEARNERS:
        return LEARNERS[name]
    if name in METHODS["imitation"] and (run.get("kind") == "imitation" or name not in METHODS["rl"]):
        return METHODS["imitation"][name].learner()
    if name in METHODS["rl"]:
        return METHODS["rl"][name].learner()
    if name is None or name == _saved_by(path):
        raise ValueError(
            f"{path}: nothing here knows what this model is, got {name!r}: name it with --method (of a card: --algo), "
            f"one of {', '.join(NAMES)}."
        )
    raise ValueError(f"Unknown method {name!r}. Methods: {', '.join(NAMES)}.")


def _saved_by(path: Path) -> str | None:
    """Read from the zip's JSON, without unpickling."""
    with zipfile.ZipFile(path) as archive:
        data = json.loads(archive.read("data")) if "data" in archive.namelist() else {}
    saved_by = data.get("saved_by")
    return saved_by if isinstance(saved_by, str) else None


def environment_of(
    trained: Trained, asked: Mapping[str, Any], space: spaces.Space[Any], env: str
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """
    :param trained: a model
    :param asked: arguments of ``make_vec_env`` on a command line, None where nothing was said
    :param space: observations that the model takes
    :param env: id of the environment that it shall act in
    :return: arguments of ``make_vec_env``, and names of those that neither the model's run nor the command line told:
        the kind of observation is guessed from the space, the action repeat is the task's preset
    """
    found = {**trained.environment, **{name: value for name, value in asked.items() if value is not None}}
    if trained.environment:
        return found, ()
    presets = {"obs": _guessed_obs(space), "action_repeat": task_action_repeat(parse_task(env))}
    return {**presets, **found}, tuple(name for name in presets if name not in found)


def _guessed_obs(space: spaces.Space[Any]) -> str:
    if isinstance(space, spaces.Dict):
        return "pointcloud" if "point_cloud" in space.spaces else "pixels" if "pixels" in space.spaces else "state"
    return "pixels" if space.dtype == np.uint8 and len(space.shape or ()) == 3 else "state"


def check_seen(space: spaces.Space[Any], shown: spaces.Space[Any], env: str) -> None:
    """:raises ValueError: if a model takes other observations than are shown, with the options that say how it saw"""
    if map_obs(_kind, space) != map_obs(_kind, shown):
        raise ValueError(
            f"the model sees {' '.join(str(space).split())}, {env} shows {' '.join(str(shown).split())}: give what it "
            "was trained with, --obs, --obs-kwargs and --action-repeat, or the folder of its run."
        )


def _kind(space: spaces.Space[Any]) -> Any:
    """Shapes and kinds of number; images with channels first and last are the same, as a policy takes both."""
    images = space.shape is not None and len(space.shape) == 3 and space.dtype == np.uint8
    shape = tuple(sorted(space.shape or ())) if images else space.shape
    return type(space), shape, images


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
