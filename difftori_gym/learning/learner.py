"""What every learner is beside an algorithm of Stable-Baselines3: its settings are used or refused."""

from __future__ import annotations

import functools
import inspect
import io
import pathlib
import zipfile
from collections import deque
from typing import Any, ClassVar, TypeVar

import torch
from stable_baselines3.common.base_class import BaseAlgorithm, maybe_make_env
from stable_baselines3.common.save_util import json_to_data, open_path
from stable_baselines3.common.type_aliases import GymEnv

from difftori_gym.learning.devices import tell_missing_cuda
from difftori_gym.learning.spaces import check_action_space, check_observation_space

SelfLearner = TypeVar("SelfLearner", bound="Learner")
_NO_SETTINGS = {"self", "policy", "env", "args", "kwargs", "renamed", "_init_setup_model"}


class Learner(BaseAlgorithm):
    """
    An algorithm whose constructor's arguments do not lie when they are changed later.

    Stable-Baselines3 lets any attribute be set, on the object or by ``load``, and reads few of them again. Here a
    setting that is set takes effect at once, or is refused. A subclass ends its ``_setup_model`` with
    ``self._settled = True`` and begins it with ``False``.
    """

    #: Name that is written into files, so that no other class loads them.
    algorithm: ClassVar[str]
    #: Settings, and records of them, that may be set at any time.
    live_settings: ClassVar[frozenset[str]] = frozenset(
        {"batch_size", "learning_rate", "seed", "stats_window_size", "tensorboard_log", "verbose"}
    )
    #: Attributes that hold settings the constructor takes one by one, for error messages.
    records: ClassVar[tuple[str, ...]] = ()

    saved_by: str
    _settled: bool = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        tell_missing_cuda(kwargs.get("device"))
        super().__init__(*args, **kwargs)

    def __setattr__(self, name: str, value: Any) -> None:
        if not self._settled or name not in _watched(type(self)):
            super().__setattr__(name, value)
            return
        if name not in self.live_settings:
            raise ValueError(
                f"{self.algorithm} cannot change {name} to {repr(value)[:60]} once it is built: build a new model with "
                f"it{self._or_load(name)}."
            )
        previous = getattr(self, name, None)
        super().__setattr__(name, value)
        try:
            self._follow(name)
        except Exception:
            super().__setattr__(name, previous)
            raise

    def _or_load(self, name: str) -> str:
        if name in ("policy_kwargs", "base_policy"):
            return ""
        if name not in vars(self):
            return self._or_records()
        return f", or try {self.algorithm}.load(path, {name}=...), which changes what the saved networks allow"

    def _follow(self, name: str) -> None:
        """Carry a live setting that has just been set to where it is used; on a ValueError it is set back."""
        if name == "learning_rate":
            self._setup_lr_schedule()
        elif name == "seed":
            self.set_random_seed(self.seed)
        elif name == "stats_window_size":
            self._stats_window_size: int = self.stats_window_size  # type: ignore[attr-defined]
            for buffer in ("ep_info_buffer", "ep_success_buffer"):
                if getattr(self, buffer) is not None:
                    setattr(self, buffer, deque(getattr(self, buffer), maxlen=self._stats_window_size))

    @classmethod
    def load(
        cls: type[SelfLearner],
        path: str | pathlib.Path | io.BufferedIOBase,
        env: GymEnv | None = None,
        device: torch.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        **kwargs: Any,
    ) -> SelfLearner:
        """
        See ``stable_baselines3.common.base_class.BaseAlgorithm.load``.

        :raises ValueError: also if the file holds a model of another algorithm, or a change would have no effect
        """
        cls._check_saved(path, custom_objects, set(kwargs))
        later = {name: kwargs.pop(name) for name in ("stats_window_size",) if name in kwargs}
        try:
            model = super().load(path, env, device, custom_objects, print_system_info, force_reset, **kwargs)
        except RuntimeError as error:
            if not kwargs or "state_dict" not in str(error):
                raise
            raise ValueError(
                f"{cls.algorithm}.load cannot change {sorted(kwargs)} to {list(kwargs.values())}, with which the "
                "networks are not those that were saved: build a new model with it."
            ) from error
        for name, value in later.items():
            setattr(model, name, value)
        return model

    @classmethod
    def _check_saved(cls, path: Any, custom_objects: dict[str, Any] | None, changes: set[str]) -> None:
        data = _saved_attributes(path, custom_objects)
        policy = data.get("policy_class")
        saved_by = data.get("saved_by", f"an algorithm with a {getattr(policy, '__name__', policy)}")
        # Earlier files of DrQv2 do not tell.
        if saved_by != cls.algorithm and ("saved_by" in data or policy not in cls.policy_aliases.values()):
            raise ValueError(
                f"{cls.algorithm}.load expects a file saved by {cls.algorithm}, got one saved by {saved_by}: "
                "load it with the class that saved it."
            )
        settings = settings_of(cls)
        unknown = sorted(changes - settings - set(data))
        if unknown:
            raise ValueError(
                f"{cls.algorithm}.load has no setting {unknown}; the settings are {', '.join(sorted(settings))}."
            )
        # Of what is not saved under its own name, Stable-Baselines3 would keep the old value.
        inside = sorted((changes & settings) - set(data) - cls.live_settings)
        inside += sorted(changes & set(data.get("policy_kwargs", ())))
        if inside:
            raise ValueError(
                f"{cls.algorithm}.load cannot change {inside}: build a new model with it{cls._or_records()}."
            )

    @classmethod
    def _or_records(cls) -> str:
        return f", or replace what holds it, {' or '.join(f'`{name}`' for name in cls.records)}" if cls.records else ""

    def _checked_env(self, env: GymEnv | str | None, verbose: int, *, only_boxes: bool = False) -> GymEnv | None:
        """
        Called before Stable-Baselines3 looks at the environment, whose errors have no remedy.

        :return: the environment, made if an id was given
        :raises ValueError: for spaces that cannot be learned in
        """
        env = maybe_make_env(env, verbose) if env is not None else None
        if env is not None:
            check_action_space(env.action_space, self.algorithm)
            check_observation_space(env.observation_space, self.algorithm, only_boxes=only_boxes)
        return env

    def _check_policy_kwargs(self, own: set[str]) -> None:
        """Refuse ``policy_kwargs`` that are the algorithm's own to set."""
        twice = sorted(own & set(self.policy_kwargs))
        if twice:
            raise ValueError(
                f"{self.algorithm} sets {twice} of its policy itself: leave them out of policy_kwargs, and give "
                f"settings to {self.algorithm}."
            )

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_settled", "stats_window_size"]


@functools.cache
def settings_of(cls: type[Learner]) -> frozenset[str]:
    """
    :return: arguments of a learner's constructor and of those that it hands them on to; of this package's classes,
        because another's may do what it likes with its own
    """
    package = __name__.partition(".")[0]
    ours = [vars(base) for base in cls.__mro__ if base.__module__.partition(".")[0] == package]
    own = [names["__init__"] for names in ours if "__init__" in names]
    return frozenset({name for constructor in own for name in inspect.signature(constructor).parameters} - _NO_SETTINGS)


@functools.cache
def _watched(cls: type[Learner]) -> frozenset[str]:
    # The device may be set, as Stable-Baselines3's own tests do: it is where a replay that is loaded next lies.
    return settings_of(cls).union(cls.live_settings, cls.records) - {"device"}


def _saved_attributes(path: Any, custom_objects: dict[str, Any] | None) -> dict[str, Any]:
    """What a file holds beside weights."""
    file = open_path(path, "r", verbose=0, suffix="zip")
    try:
        if not zipfile.is_zipfile(file):
            raise ValueError(f"Expected a model, got {path}, which wasn't a zip-file: give what model.save wrote.")
        with zipfile.ZipFile(file) as archive:
            if "data" not in archive.namelist():
                raise ValueError(f"Expected a model, got a zip file without one, {path}: give what model.save wrote.")
            data: dict[str, Any] = json_to_data(archive.read("data").decode(), custom_objects=custom_objects)
    finally:
        if file is path:
            file.seek(0)
        else:
            file.close()
    return data
