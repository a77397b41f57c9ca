"""What a policy remembers from one call to the next, as inputs and outputs of a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from difftori_gym.exports.onnx.graph import Graph, Value

BEFORE, AFTER = "memory.", "next."


@dataclass(frozen=True)
class Remembered:
    """
    One part of the memory.

    :param name: without what tells its input, :data:`BEFORE`, from its output, :data:`AFTER`
    :param shape: of both
    :param dtype: of both
    :param initial: every number of it where an episode starts
    :param meaning: what it is, with its unit
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    initial: float
    meaning: str

    def to_json(self) -> dict[str, Any]:
        return {
            "input": BEFORE + self.name,
            "output": AFTER + self.name,
            "shape": list(self.shape),
            "dtype": str(self.dtype),
            "initial": self.initial,
            "meaning": self.meaning,
        }


class Memory:
    """The memory of a file that is being written."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.parts: list[Remembered] = []

    def recall(
        self, name: str, shape: Sequence[int], dtype: np.dtype[Any] | type, *, initial: float, meaning: str
    ) -> Value:
        """What was remembered."""
        part = Remembered(name, tuple(shape), np.dtype(dtype), initial, meaning)
        self.parts.append(part)
        return self._graph.input(BEFORE + name, part.shape, part.dtype)

    def remember(self, name: str, value: Value) -> None:
        """What the next call recalls under that name."""
        (part,) = (each for each in self.parts if each.name == name)
        self._graph.output(AFTER + name, value, part.shape, part.dtype)

    def begun(self) -> Value:
        """Whether this is not the first call of an episode, a bool ``[]``."""
        before = self.recall("begun", (), np.float32, initial=0.0, meaning="1 from the second call of an episode on")
        self.remember("begun", self._graph.constant(np.ones((), np.float32)))
        return self._graph("Greater", before, 0.5)
