"""CUDA graphs of functions, optimisers included, and a look beforehand at whether a function waits for the device."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

Function = Callable[[Sequence[Tensor]], list[Tensor]]
"""Tensors in, tensors without a graph of autograd's out; whatever else it reads must be named by a key."""

_WAITS = "synchronizing CUDA operation"
_OF_THE_LOOK = "Synchronization debug mode"  # torch's remark that the look is a prototype


class CaptureError(RuntimeError):
    """A function cannot be recorded, for the reason that is its message."""


class CudaGraphs:
    """
    Records functions as CUDA graphs that share their memory: what a replay returns must be read before the next one.

    :param device: a GPU
    """

    warm_ups = 3  # as torch's own recipe: libraries choose their kernels, optimisers make their state

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()
        self._rates: dict[tuple[int, int], tuple[float, Tensor]] = {}

    def warm_up(
        self, function: Function, inputs: Sequence[Tensor], optimizers: Sequence[Any], last: bool
    ) -> tuple[list[Tensor], str | None]:
        """
        Call the function on the stream that it will be recorded on.

        :return: what it returns, and what it waits for the device for, which cannot be recorded; looked for ``last``
        """
        current, looking = torch.cuda.current_stream(self._device), contextlib.ExitStack()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream), self._on_device(optimizers), looking:
            waits = looking.enter_context(synchronizations()) if last else []
            outputs = function(inputs)
        current.wait_stream(self._stream)
        for tensors, stream in ((inputs, self._stream), (outputs, current)):
            for tensor in tensors:
                tensor.record_stream(stream)
        return outputs, f"it waits for the device at {waits[0]}" if waits else None

    def record(self, function: Function, inputs: Sequence[Tensor], optimizers: Sequence[Any]) -> CudaGraph:
        """:raises CaptureError: if it cannot be recorded"""
        static = [tensor.detach().clone() for tensor in inputs]
        current = torch.cuda.current_stream(self._device)
        index = torch.cuda.current_device() if self._device.index is None else self._device.index
        generator = torch.cuda.default_generators[index]
        before = generator.clone_state()
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads, of a simulator for instance, may do meanwhile what a recording may not.
            with (
                self._on_device(optimizers),
                torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"),
            ):
                outputs = function(static)
        except RuntimeError as error:
            # A recording that broke off leaves stream, memory and generator in it.
            torch.cuda.set_stream(current)
            with contextlib.suppress(RuntimeError):
                torch._C._cuda_endAllocateToPool(index, self._pool)
            with contextlib.suppress(RuntimeError):
                generator.graphsafe_set_state(before)
            raise CaptureError(_reason(error)) from error
        return CudaGraph(graph, static, outputs)

    def before_replay(self, optimizers: Sequence[Any]) -> None:
        for index, optimizer in enumerate(optimizers):
            for number, group in enumerate(optimizer.param_groups):
                if takes_tensor_rate(optimizer, group):
                    self._rate(index, number, group)

    def _rate(self, index: int, number: int, group: dict[str, Any]) -> Tensor:
        """The learning rate of a group, on the device; Stable-Baselines3 sets a number."""
        wanted = float(group["lr"])
        known, rate = self._rates.get((index, number), (None, None))
        if rate is None:
            rate = torch.full((), wanted, device=self._device)
        elif known != wanted:
            rate.fill_(wanted)
        self._rates[index, number] = wanted, rate
        return rate

    @contextmanager
    def _on_device(self, optimizers: Sequence[Any]) -> Iterator[None]:
        """Learning rates and counts of steps are on the device meanwhile; afterwards groups are as they were."""
        before = []
        for index, optimizer in enumerate(optimizers):
            optimizer._warned_capturable_if_run_uncaptured = True  # the calls before the recording are meant
            for number, group in enumerate(optimizer.param_groups):
                if "capturable" not in group:
                    continue
                before.append((group, group["capturable"], group["lr"]))
                if takes_tensor_rate(optimizer, group):
                    group["lr"] = self._rate(index, number, group)
                group["capturable"] = True
                for parameter in group["params"]:
                    steps = optimizer.state.get(parameter, {}).get("step")
                    if isinstance(steps, Tensor) and steps.device != parameter.device:
                        optimizer.state[parameter]["step"] = steps.to(parameter.device)
        try:
            yield
        finally:
            for group, capturable, rate in before:
                group["capturable"], group["lr"] = capturable, rate


class CudaGraph:
    """A graph and the memory that it reads and writes."""

    def __init__(self, graph: torch.cuda.CUDAGraph, inputs: list[Tensor], outputs: list[Tensor]) -> None:
        self.inputs = inputs
        self._graph, self._outputs = graph, outputs

    def replay(self) -> list[Tensor]:
        self._graph.replay()
        return self._outputs


def _reason(error: BaseException) -> str:
    """The first line of what broke a recording off; that it cannot be ended then says nothing."""
    while isinstance(error.__context__, RuntimeError):
        error = error.__context__
    return str(error).strip().partition("\n")[0] or type(error).__name__


def takes_tensor_rate(optimizer: torch.optim.Optimizer, group: dict[str, Any]) -> bool:
    """:return: whether the learning rate may be a tensor; of others it is part of the recording"""
    return isinstance(optimizer, (torch.optim.Adam, torch.optim.AdamW)) and "capturable" in group


@contextmanager
def synchronizations() -> Iterator[list[str]]:
    """
    Where the program waits for a GPU while this is open, as ``file:line``, known when it is closed.

    Torch tells of copies and of numbers that are asked for, not of an explicit ``torch.cuda.synchronize``.
    """
    found: list[str] = []
    mode = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode(mode)
    for each in caught:
        if _WAITS in str(each.message):
            found.append(f"{each.filename}:{each.lineno}")
        elif _OF_THE_LOOK not in str(each.message):
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
