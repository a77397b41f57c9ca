"""How a file that cannot be used is refused."""

from __future__ import annotations

import reprlib
from typing import Any

_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 60


def refusal(where: str, expected: str, got: Any) -> ValueError:
    """The error to raise; ``got`` is shown in a few characters, whatever its size."""
    return ValueError(
        f"{where}: expected {expected}, got {_short.repr(got)}: the file is damaged or was not written by export."
    )
