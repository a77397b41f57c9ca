"""JSON as untrusted text: bounded in depth, without duplicate keys, nan and infinities."""

from __future__ import annotations

import json
import re
import reprlib
from collections import Counter
from typing import Any, NoReturn

MAX_DEPTH = 32
"""Greatest nesting; what export writes stays far below it."""

_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 60
_STRING_OR_BRACKET = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)


def refusal(where: str, expected: str, got: Any) -> ValueError:
    """The error of a file that cannot be used; ``got`` is shown in a few characters, whatever its size."""
    return ValueError(
        f"{where}: expected {expected}, got {_short.repr(got)}: the file is damaged or was not written by export."
    )


def parse(text: bytes, where: str) -> dict[str, Any]:
    """The JSON object in a text; a ``ValueError`` if it is too deep, names a key twice, or holds nan or infinities."""
    check_depth(text, where)
    try:
        value = json.loads(
            text.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite
        )
    except ValueError as error:  # of json, of the decoding, and of the functions below
        raise ValueError(
            f"{where}: expected JSON, got {error}: the file is damaged or was not written by export."
        ) from None
    if not isinstance(value, dict):
        raise refusal(where, "a JSON object", value)
    return value


def check_depth(text: bytes, where: str) -> None:
    """A ``ValueError`` if brackets are nested more than :data:`MAX_DEPTH` deep."""
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(text):
        token = match[0]
        if token in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise refusal(where, f"at most {MAX_DEPTH} nested brackets", "more")
        elif token in b"]}":
            depth -= 1


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"the key {twice[:60]!r} twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"the number {name}")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"the number {text[:60]}, which is too large")
    return number
