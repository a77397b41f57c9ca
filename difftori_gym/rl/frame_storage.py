"""Storage of images for replay: every frame once, however many observations show it."""

from __future__ import annotations

from typing import Any

import numpy as np


class FrameStore:
    """
    Frames by number, each kept as long as an observation uses it.

    :param capacity: frames that there is room for from the start; the system hands out memory when it is written to.
        More than these, which very short episodes need, are put into further blocks.
    :param shape: of a frame
    :param dtype: of a frame
    """

    def __init__(self, capacity: int, shape: tuple[int, ...], dtype: Any) -> None:
        self.capacity, self.shape, self.dtype = capacity, shape, np.dtype(dtype)
        self.block_size = max(capacity // 16, 16)
        self.clear()

    def clear(self) -> None:
        """Forget all frames."""
        self.blocks = [np.zeros((self.capacity, *self.shape), self.dtype)]
        self.uses = np.zeros(self.capacity, np.int32)
        self._free: list[int] = []
        self.num_written = 0  # numbers below have been given out at least once

    @property
    def nbytes(self) -> int:
        """Bytes of all frames that were ever written; memory beyond has not been asked for."""
        return self.num_written * int(np.prod(self.shape)) * self.dtype.itemsize

    def put(self, frame: np.ndarray) -> int:
        """:return: number of a copy of the frame, kept from the first :meth:`acquire` to the last :meth:`release`"""
        if self._free:
            number = self._free.pop()
        else:
            number = self.num_written
            self.num_written += 1
            if number == len(self.uses):
                self.blocks.append(np.zeros((self.block_size, *self.shape), self.dtype))
                self.uses = np.concatenate([self.uses, np.zeros(self.block_size, np.int32)])
        block, place = self._locate(number)
        self.blocks[block][place] = frame
        return number

    def _locate(self, number: int) -> tuple[int, int]:
        if number < self.capacity:
            return 0, number
        block, place = divmod(number - self.capacity, self.block_size)
        return block + 1, place

    def acquire(self, numbers: np.ndarray) -> None:
        """Count one observation more that uses these frames, numbers of any shape."""
        np.add.at(self.uses, numbers, 1)

    def release(self, numbers: np.ndarray) -> None:
        """Count one observation less that uses these frames; negative numbers are passed over."""
        numbers = numbers[numbers >= 0]
        np.subtract.at(self.uses, numbers, 1)
        self._free += [int(number) for number in np.unique(numbers) if self.uses[number] == 0]

    def take(self, numbers: np.ndarray) -> np.ndarray:
        """:return: the frames of these numbers, ``[*numbers.shape, *shape]``"""
        if self.num_written <= self.capacity:
            return self.blocks[0].take(numbers, axis=0)
        flat = numbers.ravel()
        frames = np.empty((len(flat), *self.shape), self.dtype)
        block_of = np.maximum((flat - self.capacity) // self.block_size + 1, 0)
        for index in np.unique(block_of):
            chosen = block_of == index
            start = self.capacity + (index - 1) * self.block_size if index else 0
            frames[chosen] = self.blocks[index][flat[chosen] - start]
        return frames.reshape(*numbers.shape, *self.shape)

    def __getstate__(self) -> dict[str, Any]:
        first = self.blocks[0][: self.num_written]  # a file need not hold what was never written
        return {**self.__dict__, "blocks": [first, *self.blocks[1:]]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        first = np.zeros((self.capacity, *self.shape), self.dtype)
        first[: len(self.blocks[0])] = self.blocks[0]
        self.blocks[0] = first


class FrameRecorder:
    """
    Turns observations that come one after the other into numbers of stored frames.

    What an observation shares with the one before is found by comparing them, so nothing has to be known of episodes,
    resets or the way their first stack is made, and nothing is lost if observations do not overlap at all.

    :param store: where frames are put
    :param n_envs: observations per step
    :param stack: frames per observation
    """

    def __init__(self, store: FrameStore, n_envs: int, stack: int) -> None:
        self.store, self.n_envs, self.stack = store, n_envs, stack
        self.forget()

    def forget(self) -> None:
        """Compare with nothing before."""
        self.last_numbers = np.full((self.n_envs, self.stack), -1, np.int64)
        self.last_frames = np.zeros((self.n_envs, self.stack, *self.store.shape), self.store.dtype)

    def record(self, observations: np.ndarray) -> np.ndarray:
        """:return: numbers ``[n_envs, stack]`` of the frames of observations ``[n_envs, stack * c, H, W]``"""
        frames = observations.reshape(self.last_frames.shape)
        numbers = np.stack([self._record_one(env, frames[env]) for env in range(self.n_envs)])
        self.store.acquire(numbers)  # before the old ones are released, which may be the same
        self.store.release(self.last_numbers)
        self.last_numbers, self.last_frames = numbers, frames.copy()
        return numbers

    def _record_one(self, env: int, frames: np.ndarray) -> np.ndarray:
        before, known = self.last_frames[env], self.last_numbers[env]
        if known[0] >= 0:
            if np.array_equal(frames, before):
                return known
            if self.stack > 1 and np.array_equal(frames[:-1], before[1:]):
                return np.append(known[1:], self.store.put(frames[-1]))
        numbers: list[int] = []
        for i, frame in enumerate(frames):
            # The first stack of an episode mostly repeats one frame.
            same = next((j for j in range(i) if np.array_equal(frame, frames[j])), None)
            numbers.append(self.store.put(frame) if same is None else numbers[same])
        return np.array(numbers)


class StackedFrames:
    """
    Looks like the array ``[rows, n_envs, stack * c, H, W]`` of a replay buffer, and holds numbers of frames.

    Rows are written one by one, in the order in which the observations happened; any part can be read.

    :param recorder: shared by observations and next observations, which share their frames
    :param rows: of the buffer
    """

    def __init__(self, recorder: FrameRecorder, rows: int) -> None:
        self.recorder, self.store = recorder, recorder.store
        channels, height, width = self.store.shape
        self.shape = (rows, recorder.n_envs, recorder.stack * channels, height, width)
        self.dtype = self.store.dtype
        self.clear()

    def clear(self) -> None:
        """Forget which frames the rows show, without releasing them."""
        self.numbers = np.full((*self.shape[:2], self.recorder.stack), -1, np.int32)

    def __len__(self) -> int:
        return self.shape[0]

    def __setitem__(self, row: int, observations: np.ndarray) -> None:
        numbers = self.recorder.record(observations)
        self.store.acquire(numbers)
        self.store.release(self.numbers[row])
        self.numbers[row] = numbers

    def __getitem__(self, key: Any) -> np.ndarray:
        if isinstance(key, tuple):
            rest, key = key[2:], key[:2]
            if not all(isinstance(part, slice) and part == slice(None) for part in rest):
                raise IndexError("Images are read whole: index rows and environments only.")
        numbers = self.numbers[key]  # [..., stack]
        frames = self.store.take(np.maximum(numbers, 0))
        if (numbers < 0).any():
            frames[numbers < 0] = 0  # rows not written yet
        return frames.reshape(*numbers.shape[:-1], *self.shape[2:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype, copy=False)
