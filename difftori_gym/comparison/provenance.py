"""Where a run came from: what worked on it, when, and on which machine."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import re
import subprocess
from datetime import datetime, timezone
from pathlib import Path

from difftori_gym.comparison.files import read_json, write_text

_FILE = "sessions.json"
_PACKAGES: tuple[str, ...] = ("difftori-gym", "torch", "stable-baselines3", "gymnasium", "numpy", "mujoco")
_PACKAGES += ("dm-control", "shimmy", "theseus-ai")


def note_session(folder: Path, from_step: int = 0, begins_anew: str = "") -> None:
    """
    Add this process to ``sessions.json``, which lists every process that worked on a run: when it started, in UTC, with
    which commit of the package, on which machine, with which versions.

    :param from_step: steps that the learner had then
    :param begins_anew: why the episodes of its checkpoint could not go on, empty if they went on or there were none
    """
    session = dict(
        started=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        from_step=from_step,
        begins_anew=begins_anew,
        commit=git_commit(),
        machine=describe_machine(),
        versions=package_versions(),
    )
    path = folder / _FILE
    earlier = read_json(path)["sessions"] if path.exists() else []
    write_text(path, json.dumps({"sessions": [*earlier, session]}, indent=2))


def package_versions() -> dict[str, str]:
    """:return: versions of the packages that numbers depend on; those that are not installed are left out"""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def describe_machine() -> str:
    """:return: processor, number of cores, system, and graphics card if torch sees one"""
    import torch

    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:(.*)$", cpuinfo.read_text("utf-8", "replace") if cpuinfo.exists() else "", re.M)
    processor = found[1].strip() if found else platform.processor() or platform.machine()
    card = [torch.cuda.get_device_name()] if torch.cuda.is_available() else []
    return ", ".join([processor, f"{os.cpu_count()} cores", platform.platform(), *card])


def git_commit() -> str | None:
    """:return: commit of the repository this package lies in, ``+changes`` if tracked files differ; None outside"""
    try:
        changed = _git("status", "--porcelain", "--untracked-files=no")
        return _git("rev-parse", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(Path(__file__).resolve().parent), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.strip()
