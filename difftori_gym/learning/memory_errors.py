"""Memory that runs out in an update, told with what to do about it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def out_of_memory_explained(**settings: object) -> Iterator[None]:
    """Tell torch's ``OutOfMemoryError`` with ``settings`` that the need for memory grows with, and a remedy."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        told = ", ".join(f"{name}={value}" for name, value in settings.items())
        raise torch.OutOfMemoryError(
            f"The memory of the device ran out in an update with {told}: make them smaller, or give the device to "
            f"fewer programs, and start again from the newest checkpoint. {error}"
        ) from error
