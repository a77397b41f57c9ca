"""Between host and GPU without waiting for the GPU; on a CPU nothing is copied."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor


def uploaded(array: np.ndarray, device: torch.device) -> Tensor:
    """:return: the array on the device; the copy to a GPU is made while the program goes on"""
    if device.type != "cuda":
        return torch.as_tensor(array, device=device)
    return torch.as_tensor(array).pin_memory().to(device, non_blocking=True)


class LateResults:
    """
    Results of a GPU that the host wants, one turn late, so that it has work while the host waits.

    Elsewhere there is nothing to wait for, and a result is taken at once.

    :param take: what is done with a result that has arrived, and with what was handed over beside it
    """

    def __init__(self, take: Callable[[np.ndarray, np.ndarray], None]) -> None:
        self._take = take
        self._pending: tuple[np.ndarray, Tensor, torch.cuda.Event] | None = None

    def put(self, beside: np.ndarray, result: Tensor) -> None:
        """Take the result before this one, and this one at once where it does not lie on a GPU."""
        if result.device.type != "cuda":
            self._take(beside, result.cpu().numpy())
            return
        host = torch.empty(result.shape, dtype=result.dtype, pin_memory=True)
        host.copy_(result.detach(), non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()
        self.settle()
        self._pending = beside, host, arrived

    def settle(self) -> None:
        """Wait for what has not been taken, and take it."""
        if self._pending is not None:
            (beside, host, arrived), self._pending = self._pending, None
            arrived.synchronize()
            self._take(beside, host.numpy())
