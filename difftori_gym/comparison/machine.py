"""What a comparison ran on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

_PACKAGES = (
    "difftori-gym",
    "torch",
    "stable-baselines3",
    "gymnasium",
    "numpy",
    "mujoco",
    "dm-control",
    "shimmy",
    "theseus-ai",
)


def package_versions() -> dict[str, str]:
    """:return: versions of the packages that numbers depend on; those that are not installed are left out"""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def describe_machine() -> str:
    """:return: processor, number of cores, system, and graphics card if torch sees one"""
    import torch

    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        processor = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), processor)
    parts = [processor, f"{os.cpu_count()} cores", platform.platform()]
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    return ", ".join(parts)
