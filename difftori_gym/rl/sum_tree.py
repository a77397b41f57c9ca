"""A binary tree of partial sums: draw in proportion to a weight, without a loop over samples."""

from __future__ import annotations

from typing import Any

import numpy as np


class SumTree:
    """``capacity`` non-negative weights that can be set, read and drawn from in logarithmic time, many at once."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._depth = max(int(np.ceil(np.log2(capacity))), 0)
        self._first_leaf = 2**self._depth
        # Node 1 is the root, node i has children 2i and 2i + 1.
        self._sums = np.zeros(2 * self._first_leaf, dtype=np.float64)

    @property
    def total(self) -> float:
        """Sum of all weights."""
        return float(self._sums[1])

    def get(self, indices: np.ndarray) -> np.ndarray:
        """:return: the weights ``[N]`` at indices ``[N]``"""
        return self._sums[self._first_leaf + indices]

    def __getstate__(self) -> dict[str, Any]:
        leaves = self._sums[self._first_leaf :]
        used = int(np.flatnonzero(leaves)[-1]) + 1 if leaves.any() else 0
        # A file need not hold the sums, nor what was never written.
        return {**self.__dict__, "_sums": leaves[:used].copy()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        leaves, self._sums = self._sums, np.zeros(2 * self._first_leaf, dtype=np.float64)
        self.set(np.arange(len(leaves)), leaves)

    def set(self, indices: np.ndarray, weights: np.ndarray) -> None:
        """
        :param indices: which weights, ``[N]``; of a repeated index the last entry counts
        :param weights: their new values, finite and not negative, ``[N]``
        """
        nodes = self._first_leaf + np.asarray(indices)
        self._sums[nodes] = weights
        for _ in range(self._depth):
            nodes = nodes >> 1
            # Repeated parents are computed repeatedly: the same sum, cheaper than removing the repeats.
            self._sums[nodes] = self._sums[2 * nodes] + self._sums[2 * nodes + 1]

    def sample(self, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        """
        Draw with replacement, stratified: one draw from each of ``batch_size`` equal parts of the total.

        :param batch_size: N
        :return: indices ``[N]`` in random order, so that any part of them is a random draw; their probabilities ``[N]``
        :raises ValueError: if every weight is zero
        """
        if not self.total > 0:
            raise ValueError("SumTree.sample needs at least one positive weight, got none: add a transition first.")
        stratum = np.random.permutation(batch_size)
        position = (stratum + np.random.random_sample(batch_size)) * (self.total / batch_size)
        nodes = np.ones(batch_size, dtype=np.int64)
        for _ in range(self._depth):
            left = self._sums[2 * nodes]
            # Rounding may point just past the end of a subtree; an empty right side is never entered.
            go_right = (position >= left) & (self._sums[2 * nodes + 1] > 0)
            position = np.where(go_right, position - left, position)
            nodes = 2 * nodes + go_right
        return nodes - self._first_leaf, self._sums[nodes] / self.total
