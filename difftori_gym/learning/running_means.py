"""What is logged about updates, as means over those since the last time."""

from __future__ import annotations

import torch
from torch import Tensor


class RunningMeans:
    """Sums of scalars on their device; nothing waits for it before :meth:`pop`."""

    def __init__(self) -> None:
        self.sums: dict[str, tuple[Tensor, int]] = {}  # sum and number of values; checkpoints keep it

    def add(self, name: str, value: Tensor) -> None:
        """Take the value of one update, a scalar without a graph."""
        total, count = self.sums.get(name, (torch.zeros_like(value), 0))
        self.sums[name] = (total + value, count + 1)

    def pop(self) -> dict[str, float]:
        """:return: the mean of every quantity since the last call"""
        means = {name: (total / count).item() for name, (total, count) in self.sums.items()}
        self.sums.clear()
        return means
