"""Policies as files that can be loaded from strangers: tensors and JSON, no code, no pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.utils import get_device
from stable_baselines3.common.vec_env import VecNormalize

from difftori_gym.exports import strict_json
from difftori_gym.exports.refusal import refusal
from difftori_gym.exports.settings import Optionally, Setting, Table, Text, Whole, unwritable
from difftori_gym.exports.spaces import space_from_json, space_to_json
from difftori_gym.exports.tensor_file import TensorFile, open_tensor_file, write_tensor_file

SUFFIX = ".safetensors"
SCHEMA = "difftori-gym/policy"
VERSION = 1
_KEY = "difftori_gym"
_PACKAGES = ("difftori-gym", "torch", "stable-baselines3", "gymnasium", "numpy")
_ABOUT = Table(
    dict(
        algorithm=Optionally(Text()),
        num_timesteps=Optionally(Whole(0, 1 << 62)),
        versions=Table(dict.fromkeys(_PACKAGES, Text()), partial=True),
    )
)
#: Constructor arguments that say nothing about how a policy acts.
_NOT_WRITTEN = ("observation_space", "action_space", "lr_schedule", "optimizer_class", "optimizer_kwargs")

PathLike = str | os.PathLike[str]
SelfPolicy = TypeVar("SelfPolicy", bound="ExportablePolicy")


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


class ExportablePolicy(BasePolicy):
    """A policy that can be written into a file that is loaded without running anything that the file names."""

    #: Kind of each constructor argument that decides how the policy acts; a class that is ours sets it.
    export_settings: ClassVar[Mapping[str, Setting]] = {}

    def export(self, path: PathLike) -> Path:
        """
        Write weights, spaces and settings, see docs/sharing.md. Optimizers are not written.

        :param path: file; ``.safetensors`` is added where there is no ending
        :return: the file
        :raises ValueError: if a setting or class is not one that this package knows, or a weight is not finite
        """
        return _write(path, self, algorithm=None, num_timesteps=None)

    @classmethod
    def from_export(cls: type[SelfPolicy], path: PathLike, device: torch.device | str = "auto") -> SelfPolicy:
        """
        Load a file of :meth:`export` or of a learner's ``export``. Nothing is unpickled or imported, and every size in
        the file is checked against its length before memory is taken for it.

        :param path: file
        :param device: ``"auto"``, ``"cpu"``, ``"cuda"``
        :return: the policy, which predicts what the exported one did
        :raises ValueError: if the file is damaged, hostile, newer than this package, or holds another kind of policy
        """
        return _load(Path(path), device, cls)


class ExportableAlgorithm(BaseAlgorithm):
    """An algorithm whose policy can be exported."""

    policy: ExportablePolicy

    def export(self, path: PathLike) -> Path:
        """
        Write the policy, see :meth:`ExportablePolicy.export`, and the algorithm's name and number of steps.

        :param path: file; ``.safetensors`` is added where there is no ending
        :return: the file
        :raises ValueError: as that of the policy; also if observations are normalised by a ``VecNormalize``, whose
            statistics are not part of a policy
        """
        normalizer = self.get_vec_normalize_env()
        if isinstance(normalizer, VecNormalize) and normalizer.norm_obs:
            raise ValueError(
                "export expects a policy that reads the environment's own observations, got one behind VecNormalize: "
                "train without norm_obs, or write the policy alone by model.policy.export(path) and share the "
                "statistics too."
            )
        return _write(path, self.policy, type(self).__name__, self.num_timesteps)


_policies: dict[str, type[ExportablePolicy]] = {}


def exportable(cls: type[SelfPolicy]) -> type[SelfPolicy]:
    """
    Put a class of this package on the list of those that a file may name.

    :param cls: with ``export_settings``
    :return: the same
    """
    _policies[f"{cls.__module__.split('.')[1]}.{cls.__name__}"] = cls
    return cls


def exportable_policies() -> dict[str, type[ExportablePolicy]]:
    """:return: the classes that a file may name"""
    return dict(_policies)


def load_export(path: PathLike, device: torch.device | str = "auto") -> ExportablePolicy:
    """
    Load an exported policy of any kind, see :meth:`ExportablePolicy.from_export`.

    :param path: file
    :param device: ``"auto"``, ``"cpu"``, ``"cuda"``
    :return: the policy
    :raises ValueError: if the file is damaged, hostile or newer than this package
    """
    return _load(Path(path), device, ExportablePolicy)  # type: ignore[type-abstract]


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
        sum(int(np.prod(entry.shape)) for entry in file.entries.values()),
    )


def parameters_to_json(cls: type[BasePolicy], parameters: Mapping[str, Any], where: str) -> dict[str, Any]:
    """
    :param cls: class of a policy
    :param parameters: arguments of its constructor
    :param where: what it is, for error messages
    :return: JSON of both
    :raises ValueError: if they cannot be written
    """
    name = next((name for name, known in _policies.items() if known is cls), None)
    if name is None:
        raise unwritable(where, f"a policy of the classes {', '.join(_policies)}", cls)
    settings = {key: value for key, value in parameters.items() if key not in _NOT_WRITTEN}
    return {
        "class": name,
        "observation_space": space_to_json(parameters["observation_space"], f"{where}.observation_space"),
        "action_space": space_to_json(parameters["action_space"], f"{where}.action_space"),
        "settings": Table(_policies[name].export_settings).to_json(settings, where),
    }


def parameters_from_json(value: Any, where: str, budget: int) -> tuple[type[ExportablePolicy], dict[str, Any]]:
    """
    :param value: JSON from a file
    :param where: file and place
    :param budget: size of the file
    :return: class of a policy and arguments of its constructor
    :raises ValueError: if they are none
    """
    keys = {"class", "observation_space", "action_space", "settings"}
    if not isinstance(value, dict) or set(value) != keys:
        raise refusal(where, f"the keys {sorted(keys)}", value)
    name = value["class"]
    if not isinstance(name, str) or name not in _policies:
        raise refusal(f"{where}: class", f"one of {', '.join(_policies)}", name)
    action_space = space_from_json(value["action_space"], f"{where}: action_space", budget)
    if not isinstance(action_space, spaces.Box) or not action_space.is_bounded():
        raise refusal(f"{where}: action_space", "a Box with finite bounds", action_space)
    parameters: dict[str, Any] = {
        "observation_space": space_from_json(value["observation_space"], f"{where}: observation_space", budget),
        "action_space": action_space,
        "lr_schedule": BasePolicy._dummy_schedule,
    }
    settings = Table(_policies[name].export_settings).from_json(value["settings"], f"{where}: settings", budget)
    return _policies[name], {**parameters, **settings}


def _write(path: PathLike, policy: ExportablePolicy, algorithm: str | None, num_timesteps: int | None) -> Path:
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
    write_tensor_file(path, _KEY, text, policy.state_dict())
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


def _load(path: Path, device: torch.device | str, wanted: type[SelfPolicy]) -> SelfPolicy:
    file = open_tensor_file(path, _KEY)
    described = _description(file)
    _ABOUT.from_json(described["about"], f"{path}: about", file.num_bytes)
    cls, parameters = parameters_from_json(described["policy"], str(path), file.num_bytes)
    if not issubclass(cls, wanted):
        raise ValueError(
            f"{path}: expected a {wanted.__name__}, got a {cls.__name__}: load it with {cls.__name__}.from_export or "
            "difftori_gym.load_export."
        )
    _check_tensors(file, cls, parameters)
    policy = _build(path, cls, parameters)
    tensors = file.read()
    policy.load_state_dict(tensors)
    policy.set_training_mode(False)
    return policy.to(get_device(device))


def _build(path: Path, cls: type[SelfPolicy], parameters: Mapping[str, Any]) -> SelfPolicy:
    try:
        with torch.random.fork_rng(devices=[]):
            return cls(**parameters)
    # Networks of torch and Stable-Baselines3 raise whatever they like where sizes do not fit each other.
    except Exception as error:
        raise ValueError(
            f"{path}: expected settings that make a policy, got {type(error).__name__}: {str(error)[:200]}: the file "
            "is damaged or was not written by export."
        ) from error


def _check_tensors(file: TensorFile, cls: type[ExportablePolicy], parameters: Mapping[str, Any]) -> None:
    """
    Compare the file's tensors with those of a policy without memory, on torch's meta device.

    :raises ValueError: if names, shapes or types differ; so building the policy takes what the file itself takes
    """
    with torch.device("meta"):
        skeleton = _build(file.path, cls, {**parameters, "optimizer_class": torch.optim.SGD})
    expected = {name: (tuple(value.shape), value.dtype) for name, value in skeleton.state_dict().items()}
    got = {name: (entry.shape, entry.dtype) for name, entry in file.entries.items()}
    missing, unknown = sorted(set(expected) - set(got)), sorted(set(got) - set(expected))
    if missing or unknown:
        raise refusal(f"{file.path}: tensors", "those of its settings", f"missing {missing[:3]}, unknown {unknown[:3]}")
    for name, layout in expected.items():
        if layout != got[name]:
            raise refusal(f"{file.path}: tensor {name!r}", f"shape {layout[0]} and {layout[1]}", got[name])
