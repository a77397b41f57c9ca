"""The RL Zoo's files of hyper-parameters, written from the presets that examples/compare.py uses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from difftori_gym.baselines.methods import METHODS


@dataclass(frozen=True)
class MeasuredTask:
    """
    A task whose learning curve is in docs/results.md, or docs/results_pixels.md for images.

    :param id: what ``--env`` is given
    :param task: canonical name, by which the presets know it
    :param n_timesteps: agent steps
    :param n_envs: environments side by side
    :param changes: what that measurement set in place of the preset
    """

    id: str
    task: str
    n_timesteps: int
    n_envs: int = 1
    changes: tuple[tuple[str, Any], ...] = ()


TASKS = (
    MeasuredTask("dm_control/cartpole-swingup", "dm_control/cartpole-swingup", 10_000),
    MeasuredTask("dm_control/cheetah-run", "dm_control/cheetah-run", 50_000, 4),
    MeasuredTask("dm_control/pendulum-swingup", "dm_control/pendulum-swingup", 50_000, 4, (("gradient_steps", 2),)),
    MeasuredTask("Pendulum-v1", "gymnasium/Pendulum-v1", 10_000),
)


def hyperparameters(name: str) -> dict[str, dict[str, Any]]:
    """:return: what the RL Zoo is told of a method for each task; ``default`` is for all others"""
    method = METHODS["rl"][name]
    if "state" not in method.obs:
        pixels = {"policy": "CnnPolicy", "env_kwargs": {"obs": "pixels"}, **method.hyperparameters("", obs="pixels")}
        return {"default": {"n_timesteps": 50_000, **pixels}}
    found: dict[str, dict[str, Any]] = {
        "default": {"n_timesteps": 50_000, "policy": "MlpPolicy", **method.hyperparameters("")}
    }
    for each in TASKS:
        preset = {**method.hyperparameters(each.task), **dict(each.changes)}
        found[each.id] = {"n_timesteps": each.n_timesteps, "n_envs": each.n_envs, "policy": "MlpPolicy", **preset}
    return found


def as_yaml(name: str) -> str:
    """:return: the text of a method's file"""
    head = "# Written by `python -m difftori_gym.zoo hyperparameters` from difftori_gym/baselines/methods.py.\n"
    return head + yaml.dump(hyperparameters(name), Dumper=_WithoutAnchors, sort_keys=False, default_flow_style=None)


class _WithoutAnchors(yaml.SafeDumper):
    """The same list in two places is written twice, for people to read."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def write(folder: Path, names: tuple[str, ...]) -> None:
    """Write the methods' files into a folder."""
    for name in names:
        (folder / f"{name}.yml").write_text(as_yaml(name), encoding="utf-8")
