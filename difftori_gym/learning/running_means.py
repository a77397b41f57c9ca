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

    def add_all(self, values: dict[str, Tensor]) -> None:
        """Take several values of one update, with one operation if all have been there before."""
        if any(name not in self.sums for name in values):
            for name, value in values.items():
                self.add(name, value)
            return
        totals = torch._foreach_add([self.sums[name][0] for name in values], list(values.values()))
        for name, total in zip(values, totals, strict=True):
            self.sums[name] = (total, self.sums[name][1] + 1)

    def pop(self) -> dict[str, float]:
        """:return: the mean of every quantity since the last call; the device is waited for once"""
        names = list(self.sums)
        means = [(total / count).double() for total, count in self.sums.values()]
        self.sums.clear()
        return dict(zip(names, torch.stack(means).tolist(), strict=True)) if names else {}
