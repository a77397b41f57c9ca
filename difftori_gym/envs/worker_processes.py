"""Environments in processes of their own, with errors that say which of them is gone."""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
from stable_baselines3.common.vec_env import SubprocVecEnv

from difftori_gym.wrappers.snapshot import SnapshotMethods

# What a pipe raises when nobody is at its other end.
_GONE = (EOFError, BrokenPipeError, ConnectionResetError)
# Seconds without an answer after which it is looked whether a worker still runs.
_PATIENCE = 1.0


class _NamedPipe:
    """The connection to a worker process; errors say what it runs."""

    def __init__(self, remote: Any, process: Any, name: str) -> None:
        self._remote, self._process, self._name = remote, process, name

    def send(self, message: Any) -> None:
        try:
            self._remote.send(message)
        except _GONE as error:
            raise RuntimeError(_told(self._name, self._process)) from error

    def recv(self) -> Any:
        try:
            # Forked workers hold each other's pipes open, so that the end of one is not always seen in its pipe.
            while not self._remote.poll(_PATIENCE):
                if not self._process.is_alive() and not self._remote.poll():
                    raise EOFError
            return self._remote.recv()
        except _GONE as error:
            raise RuntimeError(_told(self._name, self._process)) from error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._remote, name)


class NamedSubprocVecEnv(SubprocVecEnv):
    """
    ``SubprocVecEnv`` whose error, when a worker process was killed or failed, names the environment.

    :param env_fns: one function per environment, which builds it
    :param start_method: of the processes: ``spawn``, ``forkserver`` or ``fork``
    :param names: of the environments, for messages
    :raises RuntimeError: if the first worker fails to build its environment
    """

    def __init__(
        self, env_fns: list[Callable[[], gym.Env[Any, Any]]], start_method: str | None = None, *, names: Sequence[str]
    ) -> None:
        try:
            super().__init__([functools.partial(_in_worker, env_fn) for env_fn in env_fns], start_method)
        except _GONE as error:
            processes = getattr(self, "processes", [])
            first = processes[0] if processes else None
            _end(processes)
            raise RuntimeError(_told(names[0], first)) from error
        self.remotes: Any = tuple(
            _NamedPipe(remote, process, name)
            for remote, process, name in zip(self.remotes, self.processes, names, strict=True)
        )

    def close(self) -> None:
        """End all workers, also those that wait for one that is gone."""
        if not self.closed and not all(process.is_alive() for process in self.processes):
            _end(self.processes)
            self.closed = True
        super().close()


def _in_worker(env_fn: Callable[[], gym.Env[Any, Any]]) -> SnapshotMethods[Any, Any]:
    """Builds an environment, which can be asked for its state."""
    # Ctrl-C reaches every process of a terminal. The parent decides what it means, and ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a fork has the parent's handler, which may do anything but end it
    return SnapshotMethods(env_fn())


def _end(processes: Sequence[Any]) -> None:
    for process in processes:
        process.terminate()
        process.join()


def _told(name: str, process: Any) -> str:
    """What happened to a worker, None if it never started, and what to do."""
    code = None
    if process is not None:
        process.join(timeout=5.0)
        code = process.exitcode
    if code is None:
        how = "is gone"
    elif code < 0:
        how = f"was killed by {signal.Signals(-code).name}"
    else:
        how = f"ended with exit code {code}"
    return (
        f"The worker process of {name} {how}. SIGKILL often means that memory ran out: use fewer environments. After "
        "an exit code the worker's own error is printed above. Start again from the last saved model."
    )
