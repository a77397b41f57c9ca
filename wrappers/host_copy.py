"""Many tensors from the device to the host in one copy."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

_NUMPY_DTYPES: dict[torch.dtype, np.dtype] = {
    torch.float64: np.dtype(np.float64),
    torch.int64: np.dtype(np.int64),
    torch.float32: np.dtype(np.float32),
    torch.int32: np.dtype(np.int32),
    torch.float16: np.dtype(np.float16),
    torch.int16: np.dtype(np.int16),
    torch.uint8: np.dtype(np.uint8),
    torch.int8: np.dtype(np.int8),
    torch.bool: np.dtype(np.bool_),
}


def copy_to_host(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """
    Copy tensors of any shape and type, packed into one buffer of bytes.

    A copy from a GPU waits for the device and costs some ten microseconds however small it is, so that five small
    copies take five times as long as one. The buffer is new each time: the arrays may be kept.

    :param tensors: on one device
    :return: an array for each, views into one buffer
    :raises ValueError: for a type that numpy does not have, such as bfloat16
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in _NUMPY_DTYPES:
            raise ValueError(f"Expected a type that numpy has, got {tensor.dtype} in {name!r}: convert it first.")
    # Wide types first: every array then starts at a multiple of its item size.
    order = sorted(tensors, key=lambda name: -tensors[name].element_size())
    packed = torch.cat([tensors[name].detach().contiguous().reshape(-1).view(torch.uint8) for name in order])
    host = _to_host(packed)
    arrays, start = {}, 0
    for name in order:
        tensor = tensors[name]
        end = start + tensor.numel() * tensor.element_size()
        arrays[name] = host[start:end].view(_NUMPY_DTYPES[tensor.dtype]).reshape(tuple(tensor.shape))
        start = end
    return arrays


def _to_host(packed: Tensor) -> np.ndarray:
    """
    :param packed: bytes ``[n]``
    :return: the same on the host; the only place where a step waits for the device
    """
    return packed.cpu().numpy()
