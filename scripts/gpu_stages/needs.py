"""Packages that the stages need, and what is not there."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import dataclass


@dataclass(frozen=True)
class Package:
    """
    :param module: that is imported
    :param bring: wheels to bring, as pip names them; docs/gpu.md has their sizes
    :param stages: that do not run without it
    """

    module: str
    bring: str
    stages: str


PACKAGES = (
    Package("torch", "torch with CUDA", "abcdef"),
    Package("numpy", "numpy", "abcdef"),
    Package("gymnasium", "gymnasium, farama-notifications, cloudpickle, typing-extensions", "abcdef"),
    Package("stable_baselines3", "stable-baselines3", "abcdef"),
    Package("safetensors", "safetensors", "abcdef"),
    Package("matplotlib", "matplotlib, contourpy, cycler, fonttools, kiwisolver, pyparsing", "ef"),
    Package("rich", "rich, markdown-it-py, mdurl, pygments", "ef"),
    Package("dm_control", "dm-control, dm-env, dm-tree, labmaze, lxml, glfw, pyopengl, imageio, scipy", "bef"),
    Package("mujoco", "mujoco, absl-py, etils", "bcef"),
    Package("shimmy", "shimmy", "bef"),
    Package("jax", "jax with CUDA", "c"),
    Package("mujoco_playground", "playground, mujoco-mjx, flax, ml-collections, msgpack, trimesh", "c"),
)
"""In the order in which they are worth bringing."""


def missing(stages: str) -> list[Package]:
    """
    :param stages: letters of those that are asked for
    :return: packages that these need and that cannot be imported
    """
    return [each for each in PACKAGES if set(each.stages) & set(stages) and not _is_there(each.module)]


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def told(stages: str) -> list[str]:
    """:return: lines that say what is missing and what does not run because of it, none if everything is there"""
    lines = []
    for package in missing(stages):
        stopped = ", ".join(sorted(set(package.stages) & set(stages)))
        lines.append(f"missing {package.module}: bring {package.bring} (without it not: {stopped})")
    return lines


def versions() -> str:
    """:return: one line that names the versions that matter"""
    found = []
    for name in ("torch", "jax", "mujoco", "dm-control", "stable-baselines3", "playground"):
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{name} missing")
    return ", ".join(found)
