"""Replay buffers without their empty part."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.buffers import ReplayBuffer


def _resize(value: Any, size: int, new_size: int) -> Any:
    """
    Cut storage, or fill it with zeros, to a new size; anything else stays as it is.

    :param size: number of entries along the first axis that marks storage
    """
    if isinstance(value, dict):
        return {key: _resize(entry, size, new_size) for key, entry in value.items()}
    if not isinstance(value, (np.ndarray, torch.Tensor)) or value.ndim < 2 or value.shape[0] != size:
        return value
    if new_size <= size:
        # A copy: the file of a part of a tensor would hold all of it.
        return value[:new_size].clone() if isinstance(value, torch.Tensor) else value[:new_size]
    shape = (new_size, *value.shape[1:])
    resized: Any = value.new_zeros(shape) if isinstance(value, torch.Tensor) else np.zeros(shape, value.dtype)
    resized[:size] = value
    return resized


class TrimmedReplay:
    """
    A replay buffer on its way into a file: pickled without its empty part, which is most of it in a short run.

    What is unpickled is the buffer itself in its full size, so ``load_replay_buffer`` reads the file.

    :param buffer: the buffer, which is left as it is
    """

    def __init__(self, buffer: ReplayBuffer) -> None:
        self.buffer = buffer

    def __reduce__(self) -> tuple[Any, ...]:
        buffer, length = self.buffer, self.buffer.pos + 1
        if not buffer.full and length < buffer.buffer_size:
            # The entry after the newest one is kept: with optimize_memory_usage it holds the newest next observation.
            buffer = copy.copy(buffer)
            for name, value in vars(buffer).items():
                setattr(buffer, name, _resize(value, buffer.buffer_size, length))
        return _in_full_size, (buffer,)


def _in_full_size(buffer: ReplayBuffer) -> ReplayBuffer:
    """The same buffer, whose storage in a file may be shorter than its size."""
    length = buffer.dones.shape[0]
    if length < buffer.buffer_size:
        for name, value in vars(buffer).items():
            setattr(buffer, name, _resize(value, length, buffer.buffer_size))
    return buffer
