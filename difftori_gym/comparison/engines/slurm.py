"""Runs as jobs in the queue of Slurm."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from difftori_gym.comparison.engines import node, process, storage
from difftori_gym.comparison.engines.jobs import Engine, EngineError, Event, Job, Progress

try:
    import cloudpickle
    import submitit
except ImportError as error:
    raise ImportError(f'--engine slurm needs {error.name}. Run: pip install "difftori-gym[cluster]"') from error

# Seconds between two looks at the queue, for jobs that ended without a word: killed, or their node died.
_QUEUE_S = 30.0
# What --slurm may replace. Jobs whose node died are enqueued again, whatever the cluster's habit is.
_OPTIONS = {"job_name": "difftori-gym", "cpus_per_task": 1, "additional_parameters": {"requeue": True}}
# Slurm refuses longer arrays by default.
_ARRAY = 1000
_RESTARTS = 1000
# In the folder of a run: its job, which outlives a driver that is killed.
_JOB_FILE = "slurm_job.txt"


class _Followed(NamedTuple):
    job: Job
    handle: Any  # of submitit
    progress: process.ProgressFile

    @property
    def over(self) -> bool:
        return bool(self.handle.paths.result_pickle.exists())


class SlurmEngine(Engine):
    """
    :param out: folder of the results, on a disk that all nodes share
    :param options: of the jobs, by submitit's names: ``partition``, ``time`` in minutes, ``mem``, ...
    """

    look_s = 1.0

    def __init__(self, out: Path, options: Mapping[str, str], executor: Any = None) -> None:
        self.out = out.resolve()
        self._cancelled = self.out / "slurm" / "cancelled"
        if executor is None:
            if shutil.which("sbatch") is None:
                raise ValueError("--engine slurm needs Slurm's commands: no sbatch on this machine.")
            executor = submitit.SlurmExecutor(self.out / "slurm" / "%j", max_num_timeout=_RESTARTS)
            values: dict[str, Any] = {key: int(text) if text.isdigit() else text for key, text in options.items()}
            minutes = values.get("time")
            if not isinstance(minutes, int) or minutes < 1:
                raise ValueError(f"--slurm needs time=MINUTES, a whole number, got {options.get('time')}.")
            # The longest evaluation ends meanwhile; a third of a short time limit is enough for a test.
            values.setdefault("signal_delay_s", min(int(process.GRACE_S), minutes * 20))
            try:
                executor.update_parameters(**_OPTIONS | values)
            except (TypeError, ValueError) as error:
                raise ValueError(f"--slurm: {' '.join(str(error).split())}") from error
        self._executor = executor
        self._waiting: list[Job] = []
        self._running: dict[str, _Followed] = {}
        self._started: set[str] = set()
        self._missing: set[str] = set()
        self._asked = time.monotonic()

    def __enter__(self) -> SlurmEngine:
        for module in (node, process, storage):
            cloudpickle.register_pickle_by_value(module)
        self._cancelled.parent.mkdir(parents=True, exist_ok=True)
        self._cancelled.unlink(missing_ok=True)
        return self

    def submit(self, job: Job) -> None:
        """Enqueue a job with the next call of :meth:`watch`, as part of an array."""
        self._waiting.append(job)

    def _enqueue(self) -> None:
        # A job of a driver that was killed goes on.
        numbers = [path.read_text() for job in self._waiting if (path := job.folder / _JOB_FILE).exists()]
        queue = self._queue() if numbers else set()
        new = []
        for job in self._waiting:
            path = job.folder / _JOB_FILE
            if path.exists() and path.read_text() in queue:
                self._follow(job, self._executor.job_class(self._executor.folder, path.read_text()))
            else:
                new.append(job)
        self._waiting.clear()
        for first in range(0, len(new), _ARRAY):
            jobs = new[first : first + _ARRAY]
            queued = [node.Queued(job.command, job.folder, self._cancelled) for job in jobs]
            try:
                with self._executor.batch():
                    handles = [self._executor.submit(each) for each in queued]
            except (submitit.core.utils.FailedJobError, OSError) as error:
                raise EngineError(f"Slurm takes no job: {' '.join(str(error).split())[:500]}") from error
            for job, handle in zip(jobs, handles, strict=True):
                (job.folder / _JOB_FILE).write_text(handle.job_id)
                self._follow(job, handle)

    def _follow(self, job: Job, handle: Any) -> None:
        self._running[job.name] = _Followed(job, handle, process.ProgressFile(job.folder))

    def look(self) -> list[Event]:
        """:raises EngineError: if Slurm refuses jobs, in one line"""
        events = []
        if self._waiting:
            self._enqueue()
        lost: set[str] = set()
        if time.monotonic() - self._asked > _QUEUE_S:
            self._asked = time.monotonic()
            queue = self._queue()
            missing = {name for name, each in self._running.items() if each.handle.job_id not in queue}
            lost, self._missing = missing & self._missing, missing
        for name, each in list(self._running.items()):
            handle, over = each.handle, each.over
            if name not in self._started and handle.paths.stdout.exists():
                self._started.add(name)
                events.append(Event(name, "started", told=f"job {handle.job_id}"))
            if (news := each.progress.news()) is not None:
                events.append(Event(name, "progress", Progress(**news)))
            if not over and name not in lost:
                continue
            told = f"job {handle.job_id} is no longer in Slurm's queue; its output: {handle.paths.stdout}"
            code = None
            if over:
                outcome, result = pickle.loads(handle.paths.result_pickle.read_bytes())
                code, told = (result, "") if outcome == "success" else (None, str(result).strip().splitlines()[-1])
            del self._running[name]
            (each.job.folder / _JOB_FILE).unlink(missing_ok=True)
            events.append(Event(name, "ended", exit_code=code, told=told))
        return events

    def _queue(self) -> set[str]:
        """Numbers of the user's jobs that wait or run; all of ours where nobody can be asked."""
        command = ["squeue", f"--user={os.getuid()}", "--noheader", "--array", "--format=%i"]
        done = subprocess.run(command, capture_output=True, text=True, check=False) if shutil.which("squeue") else None
        if done is None or done.returncode:
            return {each.handle.job_id for each in self._running.values()}
        return set(done.stdout.split())

    def cancel(self) -> None:
        self._waiting.clear()
        self._cancelled.touch()
        deadline = time.monotonic() + process.GRACE_S + 10.0
        self._end("--state=PENDING")
        while time.monotonic() < deadline and any(
            each.handle.paths.stdout.exists() and not each.over for each in self._running.values()
        ):
            time.sleep(self.look_s)

    def _end(self, *options: str) -> None:
        numbers = [each.handle.job_id for each in self._running.values()]
        if numbers and shutil.which("scancel"):
            subprocess.run(["scancel", *options, *numbers], check=False, capture_output=True)

    def __exit__(self, *exception: Any) -> None:
        self._end()
        for each in self._running.values():
            (each.job.folder / _JOB_FILE).unlink(missing_ok=True)
        self._running.clear()
