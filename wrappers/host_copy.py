"""Many tensors from the device to the host in one copy."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

_NUMPY_DTYPES: dict[torch.dtype, np.dtype] = {
    torch.from_numpy(np.empty(0, kind)).dtype: np.dtype(kind)
    for kind in ("f8", "i8", "f4", "i4", "f2", "i2", "u1", "i1", "?")
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
    """The only place where a step waits for the device."""
    return packed.cpu().numpy()
