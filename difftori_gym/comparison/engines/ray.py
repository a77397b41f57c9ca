"""Runs as tasks of a Ray cluster."""

from __future__ import annotations

import os
import signal
import socket
import threading
import uuid
import warnings
from typing import Any

from difftori_gym.comparison.engines import node, process, storage
from difftori_gym.comparison.engines.jobs import Engine, EngineError, EngineOptions, Event, Job, Progress

try:
    import ray
    from ray import cloudpickle
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
except ImportError as error:
    raise ImportError(f'--engine ray needs {error.name}. Run: pip install "difftori-gym[cluster]"') from error

# Nodes that may die under one run: if more do, the run is likely to be what kills them.
_RETRIES = 20
# Variables of the driver that runs need on every node.
_HANDED_ON = ("PYTHONPATH", "MUJOCO_GL", "PYOPENGL_PLATFORM")
_CHECK_S = 60.0
# HTTP/2: its preface and an empty frame of settings.
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


class RayEngine(Engine):
    """Options: see :class:`~difftori_gym.comparison.engines.jobs.EngineOptions`."""

    def __init__(self, options: EngineOptions) -> None:
        self.out, self.address = options.out.resolve(), options.address
        self.cpus = 1.0 if options.cpus_per_run is None else options.cpus_per_run
        self.gpus = options.gpus_per_run or 0.0
        if min(self.cpus, self.gpus) < 0 or self.cpus + self.gpus == 0:
            raise ValueError(
                f"--cpus-per-run and --gpus-per-run must be 0 or more, one of them more, got {self.cpus}, {self.gpus}."
            )
        self.storage = storage.Storage(options.storage) if options.storage else None
        self._environment = {name: os.environ[name] for name in _HANDED_ON if name in os.environ}
        self._running: dict[Any, Job] = {}
        self._evaluations: dict[str, int] = {}

    def __enter__(self) -> RayEngine:
        if self.storage is not None and (told := self.storage.fault()):
            raise EngineError(f"--storage {self.storage.uri} cannot be written: {told}.")
        try:
            self._connect()
            for module in (node, process, storage):
                cloudpickle.register_pickle_by_value(module)
            here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
            self._board = ray.remote(node.Board).options(num_cpus=0, scheduling_strategy=here).remote()
            self._check_nodes()
            self._work = ray.remote(_task_of(self._board))
        except BaseException:
            ray.shutdown()
            raise
        return self

    def _connect(self) -> None:
        if self.address not in (None, "auto"):
            host, _, port = str(self.address).rpartition(":")
            try:  # Ray itself would wait for minutes; what speaks gRPC answers a greeting at once
                with socket.create_connection((host, int(port)), timeout=5.0) as connection:
                    connection.sendall(_GREETING)
                    if len(connection.recv(9)) < 9:
                        raise OSError("what listens there is not Ray")
            except (OSError, ValueError) as error:
                told = f"no Ray cluster answers: {error}"
                raise EngineError(f"--address must be auto or HOST:PORT, got {self.address}: {told}.") from None
        before = signal.getsignal(signal.SIGTERM)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Ray's own, about its next versions
                started = dict(include_dashboard=False) if self.address is None else {}
                ray.init(self.address or "local", log_to_driver=False, logging_level="ERROR", **started)
        except Exception as error:  # Ray's own are bare where its processes do not start in time
            told = f"--address {self.address}: no Ray cluster answers" if self.address else "No Ray starts here"
            raise EngineError(f"{told}: {_line(error)}") from error
        finally:
            if threading.current_thread() is threading.main_thread():  # Ray takes SIGTERM for itself
                signal.signal(signal.SIGTERM, before)

    def _check_nodes(self) -> None:
        """:raises EngineError: if a node cannot do runs, naming the first"""
        alive = [each for each in ray.nodes() if each["Alive"]]
        rooms = [(each["Resources"].get("CPU", 0.0), each["Resources"].get("GPU", 0.0)) for each in alive]
        if not any(cpus >= self.cpus and gpus >= self.gpus for cpus, gpus in rooms):
            raise EngineError(f"No node of the cluster has {self.cpus:g} processors and {self.gpus:g} GPUs for a run.")
        token = self.out / f".shared-{uuid.uuid4().hex}"
        self.out.mkdir(parents=True, exist_ok=True)
        token.touch()
        try:
            asked = {}
            for each in alive:
                there = NodeAffinitySchedulingStrategy(each["NodeID"], soft=False)
                task = ray.remote(node.fault).options(num_cpus=0, max_retries=0, scheduling_strategy=there)
                asked[task.remote(token, self._environment, self.storage)] = each["NodeManagerHostname"]
            for answer, name in asked.items():
                try:
                    told = ray.get(answer, timeout=_CHECK_S)
                except ray.exceptions.TaskUnschedulableError:
                    continue  # it has died meanwhile
                except ray.exceptions.RayError as error:
                    told = _line(error)
                if told:
                    raise EngineError(f"Node {name}: {told}.")
        finally:
            token.unlink(missing_ok=True)

    def submit(self, job: Job) -> None:
        """Start a job as soon as a node has room."""
        if self.storage is not None:
            self.storage.begin(self.out, job.name)
        options = dict(name=job.name, num_cpus=self.cpus, num_gpus=self.gpus, max_retries=_RETRIES)
        folder = job.folder.resolve()
        command = tuple(str(folder) if part == str(job.folder) else part for part in job.command)
        arguments = (job.name, folder, command, job.needs, self._environment, self.storage)
        self._running[self._work.options(**options).remote(*arguments)] = job

    def look(self) -> list[Event]:
        tasks = list(self._running)
        over, _ = ray.wait(tasks, num_returns=len(tasks), timeout=0) if tasks else ([], [])
        events = []
        for name, kind, content in ray.get(self._board.take.remote()):
            if kind == "started":
                events.append(Event(name, "started", told=content))
                continue
            if content["evaluations"] != self._evaluations.get(name):
                self._evaluations[name] = content["evaluations"]
                self._fetch(name)
            events.append(Event(name, "progress", Progress(**content)))
        for task in over:
            name = self._running.pop(task).name
            try:
                ended = Event(name, "ended", exit_code=ray.get(task))
            except ray.exceptions.RayError as error:
                ended = Event(name, "ended", told=_line(error))
            self._fetch(name)
            events.append(ended)
        return events

    def _fetch(self, name: str) -> None:
        if self.storage is not None:
            self.storage.load(self.out, [f"runs/{name}", f"videos/{name}.mp4"], checkpoints=False)

    def cancel(self) -> None:
        ray.get(self._board.stop.remote())
        tasks = list(self._running)
        if tasks:
            ray.wait(tasks, num_returns=len(tasks), timeout=process.GRACE_S + 10.0)
        for job in self._running.values():
            self._fetch(job.name)

    def __exit__(self, *exception: Any) -> None:
        self._running.clear()
        ray.shutdown()  # Ray ends what is left of this driver's tasks, and a run dies with its task


def _task_of(board: Any) -> Any:
    """The function that Ray runs on nodes, defined here so that it is sent by value."""
    do: Any = node.work

    def task(name: str, *arguments: Any) -> int:
        import ray

        return do(*arguments, lambda kind, content: ray.get(board.tell.remote(name, kind, content)))

    return task


def _line(error: BaseException) -> str:
    """The cause of an error, in one line."""
    cause = getattr(error, "cause", None) or error
    return " ".join(str(cause).split())[:500] or type(cause).__name__
