"""Ctrl-C and SIGTERM, held back until a learner is between two steps."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterable
from types import FrameType
from typing import Any

_logger = logging.getLogger(__name__)


class TrainingInterrupted(KeyboardInterrupt):
    """A signal ended training; the message names it and the newest checkpoint."""


class HeldSignals:
    """
    Remember the first signal of some kinds instead of dying from it. The second has its usual effect at once.

    Does nothing outside the main thread, where Python delivers no signals.

    :param kinds: numbers of the signals
    """

    def __init__(self, kinds: Iterable[int]) -> None:
        self.kinds = tuple(kinds)
        self.received: signal.Signals | None = None
        self._before: dict[int, Any] = {}
        self._learner: object = None

    def hold(self, learner: object) -> None:
        """Begin, while ``learner.learn`` runs: a signal that comes when it does not has its usual effect."""
        self.received, self._learner = None, learner
        if threading.current_thread() is threading.main_thread():
            for kind in self.kinds:
                self._before.setdefault(kind, signal.signal(kind, self._note))

    def release(self) -> None:
        """End: signals have the effect they had before."""
        for kind, handler in self._before.items():
            signal.signal(kind, signal.SIG_DFL if handler is None else handler)
        self._before.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None or not self._learns(frame):
            self.release()
            signal.raise_signal(number)
            return
        self.received = signal.Signals(number)
        _logger.warning(
            "%s: training ends with a checkpoint when this rollout is over; a second one ends it at once.",
            self.received.name,
        )

    def _learns(self, frame: FrameType | None) -> bool:
        """An error may have ended training without a word to its callbacks."""
        while frame is not None:
            if frame.f_code.co_name == "learn" and frame.f_locals.get("self") is self._learner:
                return True
            frame = frame.f_back
        return False
