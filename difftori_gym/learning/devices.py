"""A device that was asked for and is not there."""

from __future__ import annotations

import warnings
from typing import Any

import torch

_told: set[str] = set()


def tell_missing_cuda(device: Any) -> None:
    """
    Say once if CUDA is asked for where there is none: Stable-Baselines3 takes the CPU instead, without a word.

    :param device: what a constructor was given, or None
    """
    asked = str(device)
    if not asked.startswith("cuda") or torch.cuda.is_available() or "cuda" in _told:
        return
    _told.add("cuda")
    built = "finds no GPU" if torch.backends.cuda.is_built() else "is built without CUDA"
    warnings.warn(
        f"device={asked!r} was asked for, but torch {torch.__version__} {built}: everything runs on the CPU.",
        stacklevel=2,
    )
