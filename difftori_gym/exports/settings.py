"""Kinds of settings: how each is written as JSON, and what is accepted when it is read from an untrusted file."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Protocol

from difftori_gym.exports.strict_json import refusal

MAX_LAYERS = 16
MAX_STEPS = 1000
"""Greatest horizon and number of past observations."""
MAX_ITERATIONS = 10_000
MAX_SAMPLES = 1 << 16


class Setting(Protocol):
    """A kind of setting."""

    def to_json(self, value: Any, where: str) -> Any:
        """JSON of a policy's setting, whose name is ``where``; a ``ValueError`` if it cannot be written."""

    def from_json(self, value: Any, where: str, budget: int) -> Any:
        """
        The setting in JSON from a file; a ``ValueError`` if it is anything but this kind, inside its range.

        ``budget`` is the greatest size of anything: a network has no more numbers in a row than the file has bytes.
        """


@dataclass(frozen=True)
class Whole:
    """A whole number; ``greatest=None`` stands for what the size of the file allows."""

    least: int = 0
    greatest: int | None = None

    def to_json(self, value: Any, where: str) -> int:
        is_whole = isinstance(value, Integral) and not isinstance(value, bool)
        if not is_whole or value < self.least or (self.greatest is not None and value > self.greatest):
            raise unwritable(where, f"a whole number in [{self.least}, {self.greatest}]", value)
        return int(value)

    def from_json(self, value: Any, where: str, budget: int) -> int:
        greatest = budget if self.greatest is None else self.greatest
        if type(value) is not int or not self.least <= value <= greatest:
            raise refusal(where, f"a whole number in [{self.least}, {greatest}]", value)
        return value


@dataclass(frozen=True)
class Number:
    """A finite number."""

    least: float = -1e12
    greatest: float = 1e12

    def to_json(self, value: Any, where: str) -> float:
        number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
        if not self.least <= number <= self.greatest:
            raise unwritable(where, f"a number in [{self.least:g}, {self.greatest:g}]", value)
        return number

    def from_json(self, value: Any, where: str, budget: int) -> float:
        # Compared before it is converted: a whole number may be too large for a float. A nan is in no range.
        if type(value) not in (int, float) or not self.least <= value <= self.greatest:
            raise refusal(where, f"a number in [{self.least:g}, {self.greatest:g}]", value)
        return float(value)


@dataclass(frozen=True)
class Plain:
    """What JSON holds as it is: the same check for what is written and what is read."""

    expected: str
    accepts: Callable[[Any], bool]

    def to_json(self, value: Any, where: str) -> Any:
        if not self.accepts(value):
            raise unwritable(where, self.expected, value)
        return value

    def from_json(self, value: Any, where: str, budget: int) -> Any:
        if not self.accepts(value):
            raise refusal(where, self.expected, value)
        return value


FLAG = Plain("True or False", lambda value: isinstance(value, bool))
TEXT = Plain(
    "at most 100 printable characters",
    lambda value: isinstance(value, str) and len(value) <= 100 and value.isprintable(),
)


def choice(words: Sequence[str]) -> Plain:
    """One of a few words."""
    return Plain(f"one of {', '.join(words)}", lambda value: isinstance(value, str) and value in words)


@dataclass(frozen=True)
class Named:
    """A class, written as a name from a fixed list. Nothing is imported: a name that is not in the list is refused."""

    classes: Mapping[str, type]
    what: str

    def to_json(self, value: Any, where: str) -> str:
        for name, known in self.classes.items():
            if value is known:
                return name
        raise unwritable(where, f"one of the {self.what} {', '.join(self.classes)}", value)

    def from_json(self, value: Any, where: str, budget: int) -> type:
        if not isinstance(value, str) or value not in self.classes:
            raise refusal(where, f"one of the {self.what} {', '.join(self.classes)}", value)
        return self.classes[value]


@dataclass(frozen=True)
class Optionally:
    """Something or nothing."""

    kind: Setting

    def to_json(self, value: Any, where: str) -> Any:
        return None if value is None else self.kind.to_json(value, where)

    def from_json(self, value: Any, where: str, budget: int) -> Any:
        return None if value is None else self.kind.from_json(value, where, budget)


@dataclass(frozen=True)
class ListOf:
    """At most so many of one kind."""

    kind: Setting
    most: int = MAX_LAYERS

    def to_json(self, value: Any, where: str) -> list[Any]:
        if isinstance(value, str) or not isinstance(value, Sequence) or len(value) > self.most:
            raise unwritable(where, f"a list of at most {self.most}", value)
        return [self.kind.to_json(each, f"{where}[{index}]") for index, each in enumerate(value)]

    def from_json(self, value: Any, where: str, budget: int) -> list[Any]:
        if not isinstance(value, list) or len(value) > self.most:
            raise refusal(where, f"a list of at most {self.most}", value)
        return [self.kind.from_json(each, f"{where}[{index}]", budget) for index, each in enumerate(value)]


@dataclass(frozen=True)
class Table:
    """Keyword arguments, or the fields of a record that ``build`` makes; if ``partial``, some may be left out."""

    kinds: Mapping[str, Setting]
    partial: bool = False
    build: Callable[..., Any] | None = None

    def to_json(self, value: Any, where: str) -> dict[str, Any]:
        if self.build is not None:
            value = {name: getattr(value, name) for name in self.kinds}
        if not isinstance(value, Mapping):
            raise unwritable(where, "settings by name", value)
        self._check_names(value, where, unwritable)
        return {name: self.kinds[name].to_json(each, f"{where}.{name}") for name, each in value.items()}

    def from_json(self, value: Any, where: str, budget: int) -> Any:
        if not isinstance(value, dict):
            raise refusal(where, "settings by name", value)
        self._check_names(value, where, refusal)
        found = {name: self.kinds[name].from_json(each, f"{where}.{name}", budget) for name, each in value.items()}
        if self.build is None:
            return found
        try:
            return self.build(**found)
        except ValueError as error:  # two settings that exclude each other
            raise ValueError(f"{where}: {error}") from error

    def _check_names(self, value: Mapping[str, Any], where: str, error: Callable[..., ValueError]) -> None:
        unknown = sorted(str(name) for name in set(value) - set(self.kinds))
        missing = [] if self.partial else sorted(set(self.kinds) - set(value))
        if unknown or missing:
            raise error(where, f"the settings {', '.join(self.kinds)}", f"unknown {unknown}, missing {missing}")


@dataclass(frozen=True)
class OneOf:
    """One of two kinds, told apart by whether the value is a dictionary."""

    table: Table
    other: Setting

    def to_json(self, value: Any, where: str) -> Any:
        return (self.table if isinstance(value, Mapping) else self.other).to_json(value, where)

    def from_json(self, value: Any, where: str, budget: int) -> Any:
        return (self.table if isinstance(value, dict) else self.other).from_json(value, where, budget)


def unwritable(where: str, expected: str, got: Any) -> ValueError:
    """The error to raise when a policy cannot be exported."""
    shown = f"{got.__module__}.{got.__qualname__}" if isinstance(got, type) else repr(got)[:80]
    return ValueError(
        f"export cannot write {where}: expected {expected}, got {shown}. A file that is loaded without running "
        "anything names only what this package knows: use one of these, or share the code and save()."
    )


SIZE = Whole(1)
SIZES = ListOf(SIZE)
STEPS = Whole(1, MAX_STEPS)
SAMPLES = Whole(1, MAX_SAMPLES)
SHARE = Number(0.0, 1.0)
WEIGHT = Number(0.0)
