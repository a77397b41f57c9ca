"""Policies as files that can be loaded from strangers: tensors and JSON, no code, no pickle."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.utils import get_device
from stable_baselines3.common.vec_env import VecNormalize

from difftori_gym.exports import strict_json
from difftori_gym.exports.policies import parameters_from_json, parameters_to_json
from difftori_gym.exports.settings import TEXT, Optionally, Table, Whole
from difftori_gym.exports.strict_json import refusal
from difftori_gym.exports.tensor_file import TensorFile, open_tensor_file, write_tensor_file

SUFFIX = ".safetensors"
SCHEMA = "difftori-gym/policy"
VERSION = 1
_KEY = "difftori_gym"
_PACKAGES = ("difftori-gym", "torch", "stable-baselines3", "gymnasium", "numpy")
_ABOUT = Table(
    dict(
        algorithm=Optionally(TEXT),
        num_timesteps=Optionally(Whole(0, 1 << 62)),
        versions=Table(dict.fromkeys(_PACKAGES, TEXT), partial=True),
    )
)
PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Export:
    """
    What a file says about its policy, checked.

    :param path: the file
    :param policy: name of the policy's class
    :param algorithm: name of the algorithm that trained it, None if it was exported without one
    :param num_timesteps: steps it was trained for, None if it was exported without its algorithm
    :param versions: of packages at the export
    :param observation_space: of the observations
    :param action_space: of the actions
    :param settings: JSON of the policy's settings
    :param num_parameters: numbers in the file's tensors
    """

    path: Path
    policy: str
    algorithm: str | None
    num_timesteps: int | None
    versions: Mapping[str, str]
    observation_space: spaces.Space[Any]
    action_space: spaces.Box
    settings: Mapping[str, Any]
    num_parameters: int


def export(model: BaseAlgorithm | BasePolicy, path: PathLike, *, acting_only: bool = False) -> Path:
    """
    Write a policy's weights, spaces and settings, see docs/sharing.md, and of a learner its name and number of steps.
    Optimizers are not written.

    :param model: a learner of this package, or its policy
    :param path: file; ``.safetensors`` is added where there is no ending
    :param acting_only: leave out the networks that only training reads, such as targets: half the file for DiffTORI.
        A loaded policy then does not have them
    :return: the file
    :raises ValueError: if a setting or class is not one that this package knows, a weight is not finite, or a learner's
        observations are normalised by a ``VecNormalize``, whose statistics are not part of a policy
    """
    if isinstance(model, BasePolicy):
        return _write(path, model, acting_only, algorithm=None, num_timesteps=None)
    normalizer = model.get_vec_normalize_env()
    if isinstance(normalizer, VecNormalize) and normalizer.norm_obs:
        raise ValueError(
            "export expects a policy that reads the environment's own observations, got one behind VecNormalize: "
            "train without norm_obs, or write the policy alone by export(model.policy, path) and share the statistics "
            "too."
        )
    return _write(path, model.policy, acting_only, type(model).__name__, model.num_timesteps)


def load_export(path: PathLike, device: torch.device | str = "auto") -> BasePolicy:
    """
    Load a file of :func:`export`. Nothing is unpickled or imported, and every size in the file is checked against its
    length before memory is taken for it.

    :param path: file
    :param device: ``"auto"``, ``"cpu"``, ``"cuda"``
    :return: the policy, which predicts what the exported one did
    :raises ValueError: if the file is damaged, hostile or newer than this package
    """
    file = open_tensor_file(Path(path), _KEY)
    described = _description(file)
    _ABOUT.from_json(described["about"], f"{path}: about", file.num_bytes)
    cls, parameters = parameters_from_json(described["policy"], str(path), file.num_bytes)
    _check_tensors(file, cls, parameters)
    policy = _build(file.path, cls, parameters)
    if set(policy.state_dict()) != set(file.entries):  # a file that holds what acts, which was checked
        for name in _training_networks(cls):
            setattr(policy, name, None)
    policy.load_state_dict(file.read())
    policy.set_training_mode(False)
    return policy.to(get_device(device))


def read_export(path: PathLike) -> Export:
    """
    Read what a file says about its policy, without its weights.

    :param path: file
    :return: the description
    :raises ValueError: if the file is damaged, hostile or newer than this package
    """
    file = open_tensor_file(Path(path), _KEY)
    described = _description(file)
    _, parameters = parameters_from_json(described["policy"], str(path), file.num_bytes)
    about = _ABOUT.from_json(described["about"], f"{path}: about", file.num_bytes)
    return Export(
        Path(path),
        described["policy"]["class"],
        about["algorithm"],
        about["num_timesteps"],
        about["versions"],
        parameters["observation_space"],
        parameters["action_space"],
        described["policy"]["settings"],
        sum(math.prod(shape) for shape, _ in file.entries.values()),
    )


def check_free_plans(policy: BasePolicy) -> None:
    """:raises ValueError: if plans are held near the prior, which no file knows"""
    radius = getattr(policy, "prior_radius", None)
    if radius is not None:
        raise ValueError(
            f"export expects plans that nothing holds, got some within {radius:.3g} of the prior after learn_from: "
            "train on until its own successes have set plans free, or set policy.prior_radius = None."
        )


def _training_networks(cls: type[BasePolicy]) -> tuple[str, ...]:
    """Names of the networks that a policy does not act with."""
    return getattr(cls, "training_networks", ())


def _acting(names: Iterable[str], cls: type[BasePolicy]) -> set[str]:
    """Those of a policy's tensors that it acts with."""
    return {name for name in names if name.partition(".")[0] not in _training_networks(cls)}


def _write(
    path: PathLike, policy: BasePolicy, acting_only: bool, algorithm: str | None, num_timesteps: int | None
) -> Path:
    check_free_plans(policy)
    path = Path(path)
    path = path if path.suffix else path.with_suffix(SUFFIX)
    about = dict(algorithm=algorithm, num_timesteps=num_timesteps, versions=_versions())
    description = {
        "schema": SCHEMA,
        "version": VERSION,
        "about": _ABOUT.to_json(about, "about"),
        "policy": parameters_to_json(type(policy), policy._get_constructor_parameters(), type(policy).__name__),
    }
    text = json.dumps(description, allow_nan=False, separators=(",", ":"))
    tensors = policy.state_dict()
    kept = _acting(tensors, type(policy)) if acting_only else set(tensors)
    write_tensor_file(path, _KEY, text, {name: value for name, value in tensors.items() if name in kept})
    return path


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _description(file: TensorFile) -> dict[str, Any]:
    """The JSON text of a file, of a version that is known."""
    where = str(file.path)
    described = strict_json.parse(file.text, where)
    if described.get("schema") != SCHEMA:
        raise refusal(where, f"the schema {SCHEMA}", described.get("schema"))
    if type(described.get("version")) is not int or described["version"] != VERSION:
        raise ValueError(
            f"{where}: expected version {VERSION} of {SCHEMA}, got {str(described.get('version'))[:20]}: install the "
            "version of difftori-gym that wrote it."
        )
    if set(described) != {"schema", "version", "about", "policy"}:
        raise refusal(where, "the keys schema, version, about, policy", sorted(described))
    return described


def _build(path: Path, cls: type[BasePolicy], parameters: Mapping[str, Any]) -> BasePolicy:
    try:
        with torch.random.fork_rng(devices=[]):
            return cls(**parameters)
    # Networks of torch and Stable-Baselines3 raise whatever they like where sizes do not fit each other.
    except Exception as error:
        raise ValueError(
            f"{path}: expected settings that make a policy, got {type(error).__name__}: {str(error)[:200]}: the file "
            "is damaged or was not written by export."
        ) from error


def _check_tensors(file: TensorFile, cls: type[BasePolicy], parameters: Mapping[str, Any]) -> None:
    """
    Compare the file's tensors with those of a policy without memory, so that building it takes what the file itself
    takes.
    """
    with torch.device("meta"):
        skeleton = _build(file.path, cls, {**parameters, "optimizer_class": torch.optim.SGD})
    expected = {name: (tuple(value.shape), value.dtype) for name, value in skeleton.state_dict().items()}
    got = file.entries
    acting = _acting(expected, cls)
    if set(got) == acting:
        expected = {name: expected[name] for name in acting}
    missing, unknown = sorted(set(expected) - set(got)), sorted(set(got) - set(expected))
    if missing or unknown:
        raise refusal(f"{file.path}: tensors", "those of its settings", f"missing {missing[:3]}, unknown {unknown[:3]}")
    for name, layout in expected.items():
        if layout != got[name]:
            raise refusal(f"{file.path}: tensor {name!r}", f"shape {layout[0]} and {layout[1]}", got[name])
