"""What is checked of a saved model before Stable-Baselines3 builds one from it."""

from __future__ import annotations

import inspect
import io
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

from stable_baselines3.common.save_util import load_from_zip_file


def check_saved_model(
    path: str | pathlib.Path | io.BufferedIOBase,
    custom_objects: dict[str, Any] | None,
    *,
    algorithm: str,
    constructor: Callable[..., Any],
    changes: Iterable[str],
) -> None:
    """
    :param path: file written by ``save``
    :param custom_objects: see ``stable_baselines3.common.base_class.BaseAlgorithm.load``
    :param algorithm: which algorithm must have written it
    :param constructor: of that algorithm
    :param changes: names of what ``load`` shall set to other values than saved
    :raises ValueError: if another algorithm wrote it, or if a change is an argument of the constructor that is kept
        inside a record, where Stable-Baselines3's way of changing it would have no effect
    """
    data, _, _ = load_from_zip_file(path, device="cpu", custom_objects=custom_objects)
    if isinstance(path, io.IOBase):
        path.seek(0)
    data = data or {}
    policy = getattr(data.get("policy_class"), "__name__", None)
    saved_by = data.get("saved_by", f"an algorithm with a {policy}")
    if saved_by != algorithm:
        raise ValueError(
            f"{algorithm}.load expects a file saved by {algorithm}, got one saved by {saved_by}: "
            "load it with the class that saved it."
        )
    inside = sorted(set(changes) & set(inspect.signature(constructor).parameters) - set(data))
    if inside:
        raise ValueError(
            f"{algorithm}.load cannot change {inside}: build a new model with them, or replace the record that holds "
            "them, `planner` or `update_settings`, before training goes on."
        )
