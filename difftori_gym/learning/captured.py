"""
Functions that are called over and over on tensors of the same shapes, as CUDA graphs.

What a GPU does for a small network is over before the next operation has been called. A CUDA graph is a recording of
all of them, on memory that stays, which one call replays. The first calls of a shape run operation by operation; the
next one is recorded, which computes nothing, and replayed from then on. So every call is made exactly once.

Where something cannot be recorded, the function is called as it is, which is said once. The environment variable
``DIFFTORI_CUDA_GRAPHS=0`` switches recording off.
"""

from __future__ import annotations

import os
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from difftori_gym.learning.cuda_graphs import CaptureError, CudaGraphs, Function, takes_tensor_rate

MOST_GRAPHS, MOST_RECORDINGS = 16, 200
"""Graphs kept, the latest used; and recordings after which shapes are not taken for fixed any more."""

SWITCH = "DIFFTORI_CUDA_GRAPHS"


class Recording(Protocol):
    """A function on memory that stays: ``inputs`` are written, then it is replayed, then ``outputs`` are read."""

    inputs: list[Tensor]

    def replay(self) -> list[Tensor]:
        """:return: the outputs, which the next call overwrites"""


class Recorder(Protocol):
    """What makes recordings, see :class:`~difftori_gym.learning.cuda_graphs.CudaGraphs`."""

    warm_ups: int

    def warm_up(
        self, function: Function, inputs: Sequence[Tensor], optimizers: Sequence[Any], last: bool
    ) -> tuple[list[Tensor], str | None]:
        """:return: what the function returns, and why it cannot be recorded, if that was found out the ``last`` time"""

    def record(self, function: Function, inputs: Sequence[Tensor], optimizers: Sequence[Any]) -> Recording:
        """:raises CaptureError: if the function cannot be recorded"""

    def before_replay(self, optimizers: Sequence[Any]) -> None:
        """Write down what optimizers have been told since, such as the learning rate."""


def _of_device(device: torch.device) -> Recorder | None:
    if device.type != "cuda" or os.environ.get(SWITCH, "1") == "0":
        return None
    return CudaGraphs(device)


_recorder_for: Callable[[torch.device], Recorder | None] = _of_device


@contextmanager
def recorded_by(make: Callable[[torch.device], Recorder | None]) -> Iterator[None]:
    """
    What is called first while this is open is recorded by another recorder than the device's.

    :param make: the recorder for a device, None for none: ``lambda device: None`` switches recording off
    """
    global _recorder_for
    before, _recorder_for = _recorder_for, make
    try:
        yield
    finally:
        _recorder_for = before


class Captured:
    """
    The recordings of one function, by shapes and key.

    :param what: its name, for the warning
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self._recorder: Recorder | None = None
        self._asked: object = None
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        self._recordings = 0

    def records(self, device: torch.device) -> bool:
        """:return: whether calls on this device are recorded, or will be"""
        if self._asked != (_recorder_for, device):
            self._asked, self._recorder = (_recorder_for, device), _recorder_for(device)
            self._entries.clear()
        return self._recorder is not None

    def __call__(
        self,
        function: Function,
        inputs: Sequence[Tensor],
        key: Hashable = None,
        *,
        reads: Callable[[], Iterable[Tensor]] = tuple,
        optimizers: Sequence[torch.optim.Optimizer] = (),
    ) -> list[Tensor]:
        """
        :param function: called, or recorded: what it does may depend on ``inputs``, ``key`` and ``reads`` alone
        :param inputs: at least one, of one device, without a graph of autograd's
        :param key: what else the function depends on
        :param reads: tensors that it reads or writes besides; where one lies elsewhere, it is recorded anew
        :param optimizers: that make a step in it
        :return: what it returns, in memory that is the caller's
        """
        if not self.records(inputs[0].device):
            return function(inputs)
        assert self._recorder is not None
        shapes = tuple((tensor.shape, tensor.dtype) for tensor in inputs)
        rates = tuple(
            group["lr"] for each in optimizers for group in each.param_groups if not takes_tensor_rate(each, group)
        )
        entry = self._entry((key, shapes, rates))
        if entry.recording is not None and entry.places != _places(reads()):
            entry.forget()
        if entry.recording is None:
            if entry.calls < self._recorder.warm_ups:
                entry.calls += 1
                return self._warm_up(function, inputs, optimizers, entry.calls == self._recorder.warm_ups)
            if not self._record(entry, function, inputs, optimizers):
                return function(inputs)
            entry.places = _places(reads())
        assert entry.recording is not None
        self._recorder.before_replay(optimizers)
        with torch.no_grad():
            torch._foreach_copy_(entry.recording.inputs, list(inputs))
        return [tensor.clone() for tensor in entry.recording.replay()]

    def _entry(self, key: Hashable) -> _Entry:
        entry = self._entries.setdefault(key, _Entry())
        self._entries.move_to_end(key)
        if len(self._entries) > MOST_GRAPHS:
            self._entries.popitem(last=False)
        return entry

    def _warm_up(
        self, function: Function, inputs: Sequence[Tensor], optimizers: Sequence[torch.optim.Optimizer], last: bool
    ) -> list[Tensor]:
        assert self._recorder is not None
        outputs, reason = self._recorder.warm_up(function, inputs, optimizers, last)
        if reason is not None:
            self._give_up(reason)
        return outputs

    def _record(
        self, entry: _Entry, function: Function, inputs: Sequence[Tensor], optimizers: Sequence[torch.optim.Optimizer]
    ) -> bool:
        """:return: whether there is a recording now"""
        assert self._recorder is not None
        self._recordings += 1
        if self._recordings > MOST_RECORDINGS:
            self._give_up(f"it was recorded {MOST_RECORDINGS} times, so its shapes or settings are not fixed")
            return False
        try:
            entry.recording = self._recorder.record(function, inputs, optimizers)
        except CaptureError as error:
            self._give_up(str(error))
            return False
        return True

    def _give_up(self, reason: str) -> None:
        self._recorder = None
        self._entries.clear()
        warnings.warn(
            f"{self.what} is not recorded as a CUDA graph and goes on operation by operation: {reason}", stacklevel=2
        )


class _Entry:
    """Calls of one shape and key."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self.calls = 0
        self.recording: Recording | None = None
        self.places: tuple[int, ...] = ()


def _places(tensors: Iterable[Tensor]) -> tuple[int, ...]:
    return tuple(tensor.data_ptr() for tensor in tensors)


class EagerRecorder:
    """
    Stands for CUDA graphs where there is no GPU: a replay is a call of the recorded function on memory that stays.

    What is closed over is that of the recording, and outputs are overwritten by the next call, as with a graph.
    """

    warm_ups = 2

    def __init__(self, device: torch.device) -> None:
        self.recordings = 0
        self.replays = 0

    def warm_up(
        self, function: Function, inputs: Sequence[Tensor], optimizers: Sequence[Any], last: bool
    ) -> tuple[list[Tensor], str | None]:
        return function(inputs), None

    def record(self, function: Function, inputs: Sequence[Tensor], optimizers: Sequence[Any]) -> Recording:
        self.recordings += 1
        return _Replayed(self, function, [torch.zeros_like(tensor) for tensor in inputs])

    def before_replay(self, optimizers: Sequence[Any]) -> None:
        pass


class _Replayed:
    def __init__(self, recorder: EagerRecorder, function: Function, inputs: list[Tensor]) -> None:
        self.inputs = inputs
        self._recorder, self._function = recorder, function
        self._outputs: list[Tensor] = []

    def replay(self) -> list[Tensor]:
        self._recorder.replays += 1
        found = self._function(self.inputs)
        if not self._outputs:
            self._outputs = [tensor.clone() for tensor in found]
        for kept, tensor in zip(self._outputs, found, strict=True):
            kept.copy_(tensor)
        return self._outputs
