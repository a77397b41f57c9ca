"""A Stable-Baselines3 replay buffer of any kind, with its images stored frame by frame."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer
from stable_baselines3.common.preprocessing import get_obs_shape

from difftori_gym.models import observation_kind
from difftori_gym.observations import entries, space_from_entries, under
from difftori_gym.rl.frame_storage import FrameRecorder, FrameStore, StackedFrames


class FrameReplay(ReplayBuffer):
    """
    Mixed in before ``ReplayBuffer``, ``DictReplayBuffer`` or ``NStepReplayBuffer``: stores every image frame once.

    An observation of ``frame_stack`` stacked frames shares all but one with the observation before it, and the
    observation after a step is the one before the next. Stored as they come, a frame would be kept
    ``2 * frame_stack`` times. What is read is bit for bit what was written. Images without a stack are kept once
    instead of twice. Observations other than images are left to the class this is mixed into.

    Overlaps are found in the images themselves. So ``frame_stack`` is no promise: a wrong one costs memory only.

    :param frame_stack: frames that every image stacks along its channels, oldest first. None: colour frames if the
        number of channels is six, nine and so on, else grey ones; one colour frame is stored as three grey ones
    :raises ValueError: if ``frame_stack`` does not divide the channels
    """

    observation_space: Any
    obs_shape: Any
    observations: Any
    next_observations: Any

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        *args: Any,
        frame_stack: int | None = None,
        **kwargs: Any,
    ) -> None:
        self._stacks = _frame_stacks(observation_space, frame_stack)
        # Arrays of whole images are never made: even untouched, they may be more than the system grants.
        small = _without(observation_space, list(self._stacks))
        super().__init__(buffer_size, small, action_space, *args, **kwargs)
        self.observation_space = observation_space
        self.obs_shape = get_obs_shape(observation_space)
        self.frame_stack = frame_stack
        self.frame_stores: dict[str | None, FrameStore] = {}
        self._recorders: list[FrameRecorder] = []
        for key, stack in self._stacks.items():
            self._store_frames(key, stack)

    def _store_frames(self, key: str | None, stack: int) -> None:
        space = self.observation_space if key is None else self.observation_space[key]
        channels, height, width = space.shape
        # A frame per row, the stacks that are being written, and some room for the first stacks of episodes.
        rows = self.buffer_size + self.buffer_size // 100 + 2 * stack
        if channels == stack == 3:  # it may be one colour frame, of which all three are new in every row
            rows *= stack
        store = FrameStore(rows * self.n_envs, (channels // stack, height, width), space.dtype)
        recorder = FrameRecorder(store, self.n_envs, stack)
        self.frame_stores[key] = store
        self._recorders.append(recorder)
        for name in ("observations",) if self.optimize_memory_usage else ("observations", "next_observations"):
            frames = StackedFrames(recorder, self.buffer_size)
            if key is None:
                setattr(self, name, frames)
            else:
                getattr(self, name)[key] = frames

    def reset(self) -> None:
        """Empty the buffer."""
        super().reset()
        for key in self._stacks:
            self.frame_stores[key].clear()
            for storage in (self.observations, getattr(self, "next_observations", None)):
                if storage is not None:
                    (storage if key is None else storage[key]).clear()
        for recorder in self._recorders:
            recorder.forget()


class FrameReplayBuffer(FrameReplay, ReplayBuffer):
    """Stable-Baselines3's replay buffer, with every image frame stored once: for its own SAC, TD3 and DDPG."""


class DictFrameReplayBuffer(FrameReplay, DictReplayBuffer):
    """Stable-Baselines3's replay buffer of dictionaries, with every image frame stored once."""


def _frame_stacks(space: spaces.Space[Any], frame_stack: int | None) -> dict[str | None, int]:
    """:return: frames per image, by key of the dictionary that holds it; None is the key of an image by itself"""
    stacks: dict[str | None, int] = {}
    for key, entry in entries(space).items():
        if observation_kind(entry, key) != "image" or len(entry.shape) != 3:
            continue
        channels, height, width = entry.shape
        if frame_stack is None:
            is_stack = channels < min(height, width)
            colour = channels % 3 == 0 and channels > 3
            stacks[key] = 1 if not is_stack else channels // 3 if colour else channels
        elif frame_stack < 1 or channels % frame_stack:
            raise ValueError(
                f"frame_stack must divide the channels of an image, got {frame_stack} for the shape {entry.shape}"
                f"{under(key)}: give the number of frames that the environment stacks, or leave it out."
            )
        else:
            stacks[key] = frame_stack
    return stacks


def _without(space: spaces.Space[Any], keys: list[str | None]) -> spaces.Space[Any]:
    """:return: the space with one number instead of each of these entries"""
    number = spaces.Box(0.0, 1.0, (1,), np.float32)
    return space_from_entries({key: number if key in keys else entry for key, entry in entries(space).items()})
