"""Powers of the discount as a tensor."""

from __future__ import annotations

import torch
from torch import Tensor


def powers(discount: float, count: int, like: Tensor) -> Tensor:
    """:return: discount^0 to discount^(count - 1) ``[count, 1]``, of the other tensor's kind and device"""
    numbers = [discount**t for t in range(count)]
    if like.device.type == "cpu":
        return like.new_tensor(numbers)[:, None]
    # Written there: to copy them from the host is to wait for the device.
    return torch.cat([like.new_full((1, 1), number) for number in numbers])
