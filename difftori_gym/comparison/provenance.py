"""Where a run came from: what was asked, what did it, and the command that repeats it."""

from __future__ import annotations

import json
import shlex
import subprocess
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from difftori_gym.comparison.files import read_json, write_text
from difftori_gym.comparison.machine import describe_machine, package_versions
from difftori_gym.comparison.settings import RunSettings

_FILE = "run.json"


@dataclass(frozen=True)
class Session:
    """
    One process that worked on a run.

    :param started: when, in UTC
    :param from_step: agent steps that the run had then
    :param begins_anew: why the episodes of its checkpoint could not go on, empty if they went on or there were none
    :param commit: git commit of the package, ``+changes`` if files differ from it; None if it is not in a repository
    :param machine: what it ran on
    :param versions: of packages that numbers depend on
    """

    started: str
    from_step: int
    begins_anew: str
    commit: str | None
    machine: str
    versions: dict[str, str]

    @classmethod
    def now(cls, from_step: int = 0, begins_anew: str = "") -> Session:
        """
        :param from_step: see the class
        :param begins_anew: see the class
        :return: this process
        """
        started = datetime.now(timezone.utc).isoformat(timespec="seconds")
        return cls(started, from_step, begins_anew, git_commit(), describe_machine(), package_versions())


def note_session(directory: Path, arguments: str, command: str, session: Session) -> None:
    """
    Write ``run.json``: arguments, the command that repeats the run, and every process that worked on it.

    :param directory: folder of the run
    :param arguments: its arguments, as json
    :param command: command line that makes the same run
    :param session: the process that begins to work on it
    """
    path = directory / _FILE
    earlier: list[Any] = read_json(path)["sessions"] if path.exists() else []
    content = {
        "command": command,
        "arguments": json.loads(arguments),
        "sessions": [*earlier, asdict(session)],
    }
    write_text(path, json.dumps(content, indent=2))


def repeating_command(settings: RunSettings) -> str:
    """
    :param settings: a run
    :return: command line that makes the same run, every hyper-parameter written out
    """
    overrides = [f"{settings.method}.{key}={json.dumps(value)}" for key, value in settings.hyperparameters.items()]
    words = [
        *("python", "examples/compare.py"),
        *("--methods", settings.method),
        *("--tasks", str(settings.task_id)),
        *("--seeds", str(settings.seed)),
        *("--frames", str(settings.frames)),
        *("--obs", settings.obs),
        *(("--obs-kwargs", json.dumps(settings.obs_kwargs)) if settings.obs_kwargs else ()),
        *("--action-repeat", str(settings.action_repeat)),
        *(("--episode-steps", str(settings.episode_steps)) if settings.episode_steps is not None else ()),
        *("--n-envs", str(settings.n_envs)),
        *("--eval-freq", str(settings.eval_freq)),
        *("--eval-episodes", str(settings.eval_episodes)),
        *("--device", settings.device),
        "--video" if settings.video else "--no-video",
        *("--out", "results/repeated"),
        *(["--set", *overrides] if overrides else []),
    ]
    return shlex.join(words)


def git_commit() -> str | None:
    """:return: commit of the repository this package lies in, ``+changes`` if tracked files differ; None outside"""
    here = Path(__file__).resolve().parent
    try:
        commit = _git(here, "rev-parse", "HEAD")
        return f"{commit}+changes" if _git(here, "status", "--porcelain", "--untracked-files=no") else commit
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.strip()
