"""A graph of standard ONNX operations, written node by node. Every constant is stored once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper

OPSET, IR_VERSION = 20, 9
Value = str
"""Name of what a node writes."""
Input = Value | np.ndarray | np.integer | torch.Tensor | float
"""What a node reads: another's value, or a constant; a plain number is a float32."""


class Graph:
    """
    Called with an operation, its inputs and attributes, it adds a node and returns the name of its value.

    The first axis of values is a batch where networks read them; there is none in the inputs and outputs of the file.
    """

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], onnx.TensorProto] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._count = 0

    def __call__(self, operation: str, *inputs: Input | None, **attributes: Any) -> Value:
        return self.several(operation, 1, *inputs, **attributes)[0]

    def several(self, operation: str, outputs: int, *inputs: Input | None, **attributes: Any) -> list[Value]:
        """The same for an operation with more values than one."""
        written = [self._name() for _ in range(outputs)]
        self._nodes.append(helper.make_node(operation, [self._read(each) for each in inputs], written, **attributes))
        return written

    def constant(self, array: Any) -> Value:
        """A constant's name, the same for the same numbers."""
        if isinstance(array, torch.Tensor):
            array = array.detach().cpu().numpy()
        array = np.ascontiguousarray(array) if np.ndim(array) else np.asarray(array)
        key = str(array.dtype), array.shape, array.tobytes()
        if key not in self._constants:
            self._constants[key] = numpy_helper.from_array(array, f"~c{len(self._constants)}")
        return self._constants[key].name

    def input(self, name: str, shape: Sequence[int], dtype: np.dtype[Any] | type | str) -> Value:
        """An input of the file."""
        self._inputs.append(_info(name, shape, dtype))
        return name

    def output(self, name: str, value: Value, shape: Sequence[int], dtype: np.dtype[Any] | type | str) -> None:
        """An output of the file."""
        self._nodes.append(helper.make_node("Identity", [value], [name]))
        self._outputs.append(_info(name, shape, dtype))

    # What is written most often.

    def reshape(self, value: Input, *shape: int) -> Value:
        return self("Reshape", value, np.array(shape, np.int64))

    def concat(self, values: Sequence[Input], axis: int) -> Value:
        return self._read(values[0]) if len(values) == 1 else self("Concat", *values, axis=axis)

    def split(self, value: Value, sizes: Sequence[int], axis: int = 0) -> list[Value]:
        if len(sizes) == 1:
            return [value]
        return self.several("Split", len(sizes), value, np.array(sizes, np.int64), axis=axis)

    def slice(self, value: Value, begin: int, end: int, axis: int = 0) -> Value:
        return self("Slice", value, *(np.array([number], np.int64) for number in (begin, end, axis)))

    def reduce(self, operation: str, value: Value, *axes: int, keepdims: bool = True) -> Value:
        return self(f"Reduce{operation}", value, np.array(axes, np.int64), keepdims=int(keepdims))

    def cast(self, value: Value, dtype: np.dtype[Any] | type | str) -> Value:
        return self("Cast", value, to=_code(dtype))

    def expand(self, value: Value, *shape: int) -> Value:
        return self("Expand", value, np.array(shape, np.int64))

    @contextmanager
    def branch(self) -> Iterator[list[onnx.NodeProto]]:
        """Nodes that are added within go into the list, for :meth:`choose`."""
        outside, self._nodes = self._nodes, []
        inside = self._nodes
        try:
            yield inside
        finally:
            self._nodes = outside

    def choose(
        self,
        condition: Value,
        branches: Sequence[tuple[list[onnx.NodeProto], Value]],
        shape: Sequence[int],
    ) -> Value:
        """The float32 value of the first branch if the condition holds, else of the second; only one is computed."""
        graphs = []
        for nodes, value in branches:
            name = self._name()
            whole = [*nodes, helper.make_node("Identity", [value], [name])]
            graphs.append(helper.make_graph(whole, f"branch_{name}", [], [_info(name, shape, np.float32)]))
        return self("If", condition, then_branch=graphs[0], else_branch=graphs[1])

    def model(self, producer_version: str) -> onnx.ModelProto:
        """The checked file."""
        graph = helper.make_graph(self._nodes, "policy", self._inputs, self._outputs, [*self._constants.values()])
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="difftori-gym",
            producer_version=producer_version,
        )
        onnx.checker.check_model(model)
        return model

    def _name(self) -> Value:
        self._count += 1
        return f"~{self._count}"

    def _read(self, value: Input | None) -> Value:
        if value is None:
            return ""
        if isinstance(value, str):
            return value
        return self.constant(np.float32(value) if isinstance(value, (int, float)) else value)


def _code(dtype: np.dtype[Any] | type | str) -> int:
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


def _info(name: str, shape: Sequence[int], dtype: np.dtype[Any] | type | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, _code(dtype), shape)
