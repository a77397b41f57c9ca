"""Checkpoints: all that a learner needs to go on as if it had never stopped."""

from __future__ import annotations

import io
import json
import pickle
import re
import warnings
import zlib
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from difftori_gym.checkpointing.files import atomic_folder, discard
from difftori_gym.checkpointing.replay import TrimmedReplay
from difftori_gym.checkpointing.training_state import TrainingState

FORMAT = 1
_MODEL = "model.zip"
_REPLAY = "replay_buffer.pkl"
_TRAINING = "training_state.pkl"
_RECORD = "state.json"


class DamagedCheckpointError(ValueError):
    """A checkpoint that is not whole; the message names the file and what is wrong with it."""


@dataclass(frozen=True)
class CheckpointRecord:
    """
    What stands in a checkpoint's ``state.json``.

    :param agent_steps: agent steps trained, gradient steps of an imitation learner
    :param wall_s: seconds of training
    :param learner: class of the model
    :param begins_anew: why running episodes cannot go on and new ones begin, empty if they go on
    :param written: when, in UTC
    :param files: size in bytes and CRC-32 of each file
    :param format: version of this layout
    :param cpu_s: seconds of processor time of training
    """

    agent_steps: int
    wall_s: float
    learner: str
    begins_anew: str
    written: str
    files: dict[str, tuple[int, int]] = field(default_factory=dict)
    format: int = FORMAT
    cpu_s: float = 0.0


def save_checkpoint(
    directory: Path,
    model: BaseAlgorithm,
    *,
    wall_s: float = 0.0,
    cpu_s: float = 0.0,
    keep: int = 1,
    whole_step: bool = True,
) -> Path:
    """
    Save model, optimisers, replay, schedules, random generators and environments, then drop old checkpoints.

    A checkpoint is a folder ``checkpoint-STEPS``, which appears in one step when all of it is on the disk. It holds
    pickles: restore only what you have written yourself.

    :param directory: folder of the run
    :param model: the learner, between two rollouts
    :param wall_s: seconds of training, for the record
    :param cpu_s: seconds of processor time of training, for the record
    :param keep: how many of the newest checkpoints stay, at least 1
    :param whole_step: False if training was stopped after a step of the environments and before it was stored: their
        episodes then begin anew
    :return: the checkpoint
    :raises OSError: if it cannot be written, naming cause and remedy; older checkpoints are then as they were
    """
    if keep < 1:
        raise ValueError(f"save_checkpoint needs keep >= 1, got {keep}.")
    path = directory / f"checkpoint-{model.num_timesteps:09d}"
    state = TrainingState.of(model, whole_step=whole_step)
    with atomic_folder(path) as folder:
        # By way of memory: of a full disk, torch tells less than the system does.
        file = io.BytesIO()
        model.save(file)
        (folder / _MODEL).write_bytes(file.getbuffer())
        if isinstance(model, OffPolicyAlgorithm) and model.replay_buffer is not None:
            _write(folder / _REPLAY, TrimmedReplay(model.replay_buffer))
        _write(folder / _TRAINING, state)
        record = CheckpointRecord(
            agent_steps=model.num_timesteps,
            wall_s=wall_s,
            cpu_s=cpu_s,
            learner=type(model).__name__,
            begins_anew=state.why_anew(),
            written=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            files={file.name: _fingerprint(file) for file in sorted(folder.iterdir())},
        )
        content = asdict(record)
        (folder / _RECORD).write_text(json.dumps({**content, "crc32": _checksum(content)}, indent=2), encoding="utf-8")
    older = [other for other in list_checkpoints(directory) if steps_of(other) < model.num_timesteps]
    newer = [other for other in list_checkpoints(directory) if steps_of(other) > model.num_timesteps]
    for other in (*older[: max(len(older) - keep + 1, 0)], *newer):
        discard(other)
    return path


def list_checkpoints(directory: Path) -> list[Path]:
    """:return: a run's checkpoints, whole or not, oldest first"""
    found = [path for path in directory.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted(found, key=steps_of)


def steps_of(checkpoint: Path) -> int:
    """:return: the agent steps in a checkpoint's name"""
    return int(checkpoint.name.removeprefix("checkpoint-"))


def read_checkpoint(checkpoint: Path) -> CheckpointRecord:
    """
    Read the record of a checkpoint and compare every file with it.

    :raises DamagedCheckpointError: if a file is missing, cut short or changed
    """
    try:
        content = json.loads((checkpoint / _RECORD).read_text(encoding="utf-8"))
        if content.get("format") != FORMAT:
            raise ValueError(f"expected format {FORMAT}, got {content.get('format')}")
        if content.pop("crc32") != _checksum(content):
            raise ValueError("it is not what was written")
        content["files"] = {name: tuple(fingerprint) for name, fingerprint in content["files"].items()}
        record = CheckpointRecord(**content)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DamagedCheckpointError(f"{checkpoint / _RECORD} cannot be read: {error}") from error
    for name, expected in record.files.items():
        try:
            found = _fingerprint(checkpoint / name)
        except OSError as error:
            raise DamagedCheckpointError(f"{checkpoint / name} cannot be read: {error}") from error
        if found != expected:
            raise DamagedCheckpointError(
                f"{checkpoint / name} is not what was written: expected {expected[0]} bytes with CRC-32 "
                f"{expected[1]:08x}, got {found[0]} with {found[1]:08x}"
            )
    return record


def newest_checkpoint(directory: Path) -> Path | None:
    """:return: a run's newest whole checkpoint, None when there is none; damaged ones are passed over with a warning"""
    for path in reversed(list_checkpoints(directory)):
        try:
            read_checkpoint(path)
        except DamagedCheckpointError as error:
            warnings.warn(f"Passed over a damaged checkpoint: {error}.", stacklevel=2)
        else:
            return path
    return None


@dataclass(frozen=True)
class Restored:
    """
    :param model: the learner, ready to go on
    :param record: of its checkpoint
    :param state: what :meth:`TrainingState.restore_noise` is still needed for
    :param begins_anew: why new episodes begin, empty if the running ones go on
    """

    model: Any
    record: CheckpointRecord
    state: TrainingState
    begins_anew: str


def load_checkpoint(
    checkpoint: Path,
    learner: type[BaseAlgorithm],
    env: Any = None,
    *,
    demonstrations: Any = None,
    device: torch.device | str = "auto",
) -> Restored:
    """
    Load all that :func:`save_checkpoint` saved. Go on with ``learn(..., reset_num_timesteps=False)``.

    :param checkpoint: a whole checkpoint that you have written yourself: it holds pickles
    :param learner: class of the model
    :param env: environments built like the ones it was trained with; of an imitation learner also None
    :param demonstrations: those that an imitation learner learns from: they are not in the file
    :param device: torch device
    :return: the learner and its record
    :raises DamagedCheckpointError: if it is not whole
    :raises ValueError: if the environments do not fit, or another learner wrote it
    """
    record = read_checkpoint(checkpoint)
    if record.learner != learner.__name__:
        raise ValueError(
            f"{checkpoint} was expected to be of {learner.__name__}, got one of {record.learner}: restore it with the "
            "class that wrote it, or use another folder."
        )
    model = learner.load(checkpoint / _MODEL, env=env, device=device)
    if isinstance(model, OffPolicyAlgorithm):
        model.load_replay_buffer(checkpoint / _REPLAY, truncate_last_traj=False)
    if demonstrations is not None:
        model.set_demonstrations(demonstrations)  # type: ignore[attr-defined]
    with (checkpoint / _TRAINING).open("rb") as file:
        state: TrainingState = pickle.load(file)
    # Environments that begin anew shall not repeat the episodes that the run began with.
    fresh = np.random.SeedSequence([model.seed or 0, record.agent_steps]).generate_state(1)[0] % 2**31
    return Restored(model, record, state, state.restore(model, int(fresh)))


def _write(path: Path, value: Any) -> None:
    with path.open("wb") as file:
        pickle.dump(value, file, protocol=5)


def _checksum(content: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


def _fingerprint(path: Path) -> tuple[int, int]:
    """Bytes and CRC-32 of a file."""
    size = checksum = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            size, checksum = size + len(block), zlib.crc32(block, checksum)
    return size, checksum
