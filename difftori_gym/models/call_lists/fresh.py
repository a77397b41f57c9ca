"""Lists of calls that nobody keeps, for what is recorded as a CUDA graph, whose memory nothing else may hold."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

from difftori_gym.models.call_lists import scan


@contextmanager
def fresh_lists() -> Iterator[None]:
    """Objectives make their lists anew while this is open, in this thread, and afterwards find those from before."""
    before = getattr(scan._kept, "by_owner", None)
    scan._kept.by_owner = WeakKeyDictionary()
    try:
        yield
    finally:
        if before is None:
            del scan._kept.by_owner
        else:
            scan._kept.by_owner = before
