"""Random numbers for a batch of samples, which deterministic answers share."""

from __future__ import annotations

import torch
from torch import Tensor


class Draws:
    """
    :param batch: number of samples B
    :param deterministic: every call of the same sequence returns the same numbers, one set for all samples, so that an
        answer depends neither on earlier ones nor on the rest of the batch; else Torch's global generator is used
    :param device: of the numbers
    """

    def __init__(self, batch: int, deterministic: bool, device: torch.device) -> None:
        self._batch, self._device = batch, device
        self._generator = torch.Generator(device).manual_seed(0) if deterministic else None

    def uniform(self, *shape: int) -> Tensor:
        """:return: ``[B, *shape]`` in [0, 1)"""
        if self._generator is None:
            return torch.rand(self._batch, *shape, device=self._device)
        one = torch.rand(1, *shape, device=self._device, generator=self._generator)
        return one.expand(self._batch, *shape)

    def normal(self, *shape: int) -> Tensor:
        """:return: ``[B, *shape]``, standard normal"""
        if self._generator is None:
            return torch.randn(self._batch, *shape, device=self._device)
        one = torch.randn(1, *shape, device=self._device, generator=self._generator)
        return one.expand(self._batch, *shape)
