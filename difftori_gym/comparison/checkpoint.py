"""Stop a run and continue it later."""

from __future__ import annotations

import copy
import json
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.save_util import save_to_pkl
from stable_baselines3.common.vec_env import VecEnv

from difftori_gym.comparison.files import read_json, write_text

_MODEL = "model.zip"
_REPLAY = "replay_buffer.pkl"
_STATE = "state.json"


@dataclass(frozen=True)
class RunState:
    """
    How far a run has come.

    :param agent_steps: agent steps trained
    :param wall_s: seconds of training
    """

    agent_steps: int
    wall_s: float


def save_checkpoint(directory: Path, model: BaseAlgorithm, state: RunState) -> None:
    """
    Save model, optimisers and replay, then drop the previous checkpoint.

    The state file is written last: a folder without it is an unfinished checkpoint, which is never loaded.

    :param directory: folder of the run
    :param model: the learner
    :param state: how far it has come
    """
    folder = directory / f"checkpoint-{state.agent_steps:09d}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model.save(folder / _MODEL)
    if isinstance(model, OffPolicyAlgorithm) and model.replay_buffer is not None:
        save_to_pkl(folder / _REPLAY, trim_replay(model.replay_buffer))
    write_text(folder / _STATE, json.dumps(asdict(state)))
    for other in directory.glob("checkpoint-*"):
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)


def find_checkpoint(directory: Path) -> Path | None:
    """
    :param directory: folder of a run
    :return: folder of its newest whole checkpoint, None when there is none
    """
    whole = [path.parent for path in directory.glob(f"checkpoint-*/{_STATE}")]
    return max(whole, key=lambda path: int(re.sub(r"\D", "", path.name)), default=None)


def read_state(checkpoint: Path) -> RunState:
    """
    :param checkpoint: folder of a whole checkpoint
    :return: how far the run had come
    """
    return RunState(**read_json(checkpoint / _STATE))


def load_checkpoint(
    checkpoint: Path, learner: type[BaseAlgorithm], env: VecEnv, *, seed: int, device: str
) -> BaseAlgorithm:
    """
    Load model, optimisers and replay.

    Environments cannot be saved in the middle of an episode: training goes on with new episodes, and with random
    numbers of its own, drawn from the seed and the moment. It is a continuation, not a repetition, of the run.

    :param checkpoint: folder of a whole checkpoint
    :param learner: class of the model
    :param env: training environments
    :param seed: seed of the run
    :param device: torch device
    :return: the learner
    """
    model = learner.load(checkpoint / _MODEL, env=env, device=device)
    if isinstance(model, OffPolicyAlgorithm):
        model.load_replay_buffer(checkpoint / _REPLAY, truncate_last_traj=False)
        assert model.replay_buffer is not None
        restore_replay(model.replay_buffer)
    moment = np.random.SeedSequence([seed, read_state(checkpoint).agent_steps])
    model.set_random_seed(int(moment.generate_state(1)[0] % 2**31))
    return model


def _resize(value: Any, size: int, new_size: int) -> Any:
    """
    :param value: attribute of a buffer
    :param size: number of entries along the first axis that marks storage
    :param new_size: number of entries to cut it or fill it with zeros to
    :return: storage of the new size; anything else as it is
    """
    if isinstance(value, dict):
        return {key: _resize(entry, size, new_size) for key, entry in value.items()}
    if not isinstance(value, np.ndarray) or value.ndim < 2 or value.shape[0] != size:
        return value
    if new_size <= size:
        return value[:new_size]
    resized = np.zeros((new_size, *value.shape[1:]), dtype=value.dtype)
    resized[:size] = value
    return resized


def trim_replay(buffer: ReplayBuffer) -> ReplayBuffer:
    """
    Leave out the empty part of a replay buffer, which is most of it in a short run.

    The entry after the newest one is kept: with ``optimize_memory_usage`` it holds the newest next observation.

    :param buffer: the buffer, which is left as it is
    :return: a shallow copy with less storage, the buffer itself when it is full
    """
    length = buffer.pos + 1
    if buffer.full or length >= buffer.buffer_size:
        return buffer
    trimmed = copy.copy(buffer)
    for name, value in vars(buffer).items():
        setattr(trimmed, name, _resize(value, buffer.buffer_size, length))
    return trimmed


def restore_replay(buffer: ReplayBuffer) -> None:
    """
    Give a trimmed buffer its full size again, in place.

    :param buffer: a buffer from :func:`trim_replay`
    """
    length = buffer.dones.shape[0]
    if length == buffer.buffer_size:
        return
    for name, value in list(vars(buffer).items()):
        setattr(buffer, name, _resize(value, length, buffer.buffer_size))
