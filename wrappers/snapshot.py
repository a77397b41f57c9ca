"""The state of an environment in the middle of an episode, as bytes, and back into one that is built alike."""

from __future__ import annotations

import io
import pickle
from typing import Any, Protocol, runtime_checkable

import cloudpickle
import gymnasium as gym
from gymnasium.core import ActType, ObsType
from gymnasium.utils import EzPickle


@runtime_checkable
class Snapshotting(Protocol):
    """A layer that knows how its state, and that of all layers inside it, is saved."""

    def snapshot(self) -> Any:
        """:return: the state, picklable"""

    def restore_snapshot(self, state: Any) -> None:
        """:param state: from :meth:`snapshot` of a layer that was built alike"""


class NotRestorableError(ValueError):
    """An environment's state cannot be saved; the message says why."""


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Writes the layers of the environment as their numbers, so that they are found and not made again."""

    def __init__(self, file: io.BytesIO, layers: list[Any]) -> None:
        super().__init__(file, protocol=5)
        self._numbers = {id(layer): number for number, layer in enumerate(layers)}

    def persistent_id(self, value: Any) -> int | None:
        return self._numbers.get(id(value))


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, layers: list[Any]) -> None:
        super().__init__(file)
        self._layers = layers

    def persistent_load(self, number: int) -> Any:
        return self._layers[number]


def save_env(env: gym.Env[Any, Any]) -> bytes:
    """
    Save the state of an environment and of all wrappers around it.

    A layer with :class:`Snapshotting`'s methods is asked; of the others all attributes are pickled but those that its
    class names in ``UNSAVED``, which are made when it is built. An environment that defines its own pickling is
    refused, because what comes back is often a new environment (``EzPickle``).

    :param env: the outermost layer
    :return: the state, for :func:`restore_env`
    :raises NotRestorableError: if a layer cannot be saved, naming the layer and the reason
    """
    layers, last = _layers(env)
    outside = layers[:-1] if isinstance(last, Snapshotting) else layers
    for layer in outside:
        if isinstance(layer, EzPickle) or _pickles_itself(type(layer)):
            raise NotRestorableError(f"{type(layer).__name__} defines its own pickling, which need not keep its state")
    file = io.BytesIO()
    try:
        # A snapshot is pickled apart: the layers inside it are not ours to number.
        inside = pickle.dumps(last.snapshot(), protocol=5) if isinstance(last, Snapshotting) else None
        _Pickler(file, layers).dump(([_attributes(layer) for layer in outside], inside))
    except NotRestorableError:
        raise
    except Exception as error:  # pickling runs code of the environment, which raises what it likes
        raise NotRestorableError(f"{type(layers[-1]).__name__} cannot be pickled: {error}") from error
    return file.getvalue()


def restore_env(env: gym.Env[Any, Any], state: bytes) -> None:
    """
    Put an environment where another one was.

    :param env: built like the one that was saved
    :param state: from :func:`save_env`, of your own: it holds pickles
    :raises ValueError: if the wrappers are others
    """
    layers, last = _layers(env)
    attributes, inside = _Unpickler(io.BytesIO(state), layers).load()
    outside = layers[:-1] if isinstance(last, Snapshotting) else layers
    if len(attributes) != len(outside) or (inside is not None) != isinstance(last, Snapshotting):
        raise ValueError(
            f"Expected an environment with the wrappers it was saved with, got {env}: build it as it was built then."
        )
    for layer, saved in zip(outside, attributes, strict=True):
        vars(layer).update(saved)
    if isinstance(last, Snapshotting):
        last.restore_snapshot(pickle.loads(inside))


def _attributes(layer: Any) -> dict[str, Any]:
    unsaved = getattr(type(layer), "UNSAVED", ())
    return {name: value for name, value in vars(layer).items() if name not in unsaved}


def _layers(env: gym.Env[Any, Any]) -> tuple[list[Any], Any]:
    """All layers down to the environment, or to the first that knows how to save itself; and that last layer."""
    layers: list[Any] = [env]
    while not isinstance(layers[-1], Snapshotting) and isinstance(layers[-1], gym.Wrapper):
        layers.append(layers[-1].env)
    return layers, layers[-1]


def _pickles_itself(kind: type) -> bool:
    names = ("__getstate__", "__reduce__", "__reduce_ex__")  # Python 3.10 has no object.__getstate__
    return any(getattr(kind, name, None) is not getattr(object, name, None) for name in names)


class SnapshotMethods(gym.Wrapper[ObsType, ActType, ObsType, ActType]):
    """Offer :func:`save_env` and :func:`restore_env` as methods, for environments in other processes."""

    def save_env(self) -> bytes | str:
        """:return: the state, or the reason why there is none: an error would end the process"""
        try:
            return save_env(self.env)
        except NotRestorableError as error:
            return str(error)

    def restore_env(self, state: bytes) -> None:
        restore_env(self.env, state)
