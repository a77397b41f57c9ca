"""Jobs in a queue: submitit's local executor runs them, or small scripts play Slurm's commands."""

import sys
import time
from pathlib import Path

import pytest
import submitit

from difftori_gym.comparison.engines import EngineOptions, Job, make_engine
from difftori_gym.comparison.engines.slurm import SlurmEngine

# submitit leaves it to the collector of garbage to wait for the processes of its local executor.
pytestmark = pytest.mark.filterwarnings(
    "ignore:subprocess .* is still running:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)

# Counts to a number, ten steps a second, and writes how far it is when it is interrupted.
RUN = """
import json, os, pathlib, signal, sys, time
folder, steps = pathlib.Path(sys.argv[1]), int(sys.argv[2])
ending = []
signal.signal(signal.SIGTERM, lambda number, frame: ending.append(number))
checkpoint = folder / "checkpoint"
step = int(checkpoint.read_text()) if checkpoint.exists() else 0
while step < steps:
    time.sleep(0.1)
    step += 1
    with (folder / "trained").open("a") as file:
        file.write(f"{step} {os.getpid()}\\n")
    content = {"stage": "train", "done": step, "evaluations": 0, "score": None}
    (folder / "new").write_text(json.dumps(content))
    os.replace(folder / "new", folder / "progress.json")
    if ending:
        checkpoint.write_text(str(step))
        sys.exit(130)
sys.exit(int(sys.argv[3]))
"""


def engine_of(out: Path, **options) -> SlurmEngine:
    executor = submitit.LocalExecutor(out / "slurm" / "%j", max_num_timeout=10)
    executor.update_parameters(**{"timeout_min": 5, **options})
    return SlurmEngine(out, {}, executor)


def job(out: Path, name: str, steps: int, code: int = 0) -> Job:
    folder = out / "runs" / name
    folder.mkdir(parents=True, exist_ok=True)
    return Job(name, folder, (sys.executable, "-c", RUN, str(folder), str(steps), str(code)))


def follow(engine, count: int) -> list:
    events, deadline = [], time.monotonic() + 60
    while sum(event.kind == "ended" for event in events) < count:
        assert time.monotonic() < deadline, events
        events += engine.watch(1.0)
    return events


def trained(out: Path, name: str) -> tuple[list[int], int]:
    """The steps that were done, and by how many processes."""
    lines = [line.split() for line in (out / "runs" / name / "trained").read_text().splitlines()]
    return [int(step) for step, _ in lines], len({process for _, process in lines})


def test_a_job_goes_on_in_the_next_one_after_its_time_limit(tmp_path):
    with engine_of(tmp_path, timeout_min=0.15, signal_delay_s=5) as engine:
        engine.submit(job(tmp_path, "long", 60))
        engine.submit(job(tmp_path, "fails", 1, code=3))
        events = follow(engine, 2)
    assert {event.name: event.exit_code for event in events if event.kind == "ended"} == {"long": 0, "fails": 3}
    assert [event.kind for event in events if event.name == "long"][:2] == ["started", "progress"]
    steps, processes = trained(tmp_path, "long")
    assert steps == list(range(1, 61))  # nothing twice
    assert processes > 1


def test_cancelled_jobs_write_their_checkpoints(tmp_path):
    with engine_of(tmp_path) as engine:
        engine.submit(job(tmp_path, "a", 1000))
        while not any(event.kind == "progress" for event in engine.watch(1.0)):
            pass
        engine.cancel()
        (ended,) = [event for event in engine.watch(1.0) if event.kind == "ended"]
    assert ended.exit_code == 130
    steps, _ = trained(tmp_path, "a")
    assert (tmp_path / "runs/a/checkpoint").read_text() == str(steps[-1])
    with engine_of(tmp_path) as engine:
        engine.submit(job(tmp_path, "a", steps[-1] + 3))
        assert follow(engine, 1)[-1].exit_code == 0
    assert trained(tmp_path, "a")[0] == list(range(1, steps[-1] + 4))


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """Slurm's commands: they take a number of jobs and do nothing."""
    folder = tmp_path / "commands"
    folder.mkdir()

    def write(**bodies: str) -> Path:
        for name, body in bodies.items():
            (folder / name).write_text(f"#!/bin/sh\n{body}\n")
            (folder / name).chmod(0o755)
        return folder

    write(sbatch="echo Submitted batch job 7", srun="", scancel=f'echo "$@" >> {folder}/cancelled', squeue="", sacct="")
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return write


def slurm(out: Path, **options: str) -> SlurmEngine:
    return make_engine("slurm", EngineOptions(out=out, slurm={"time": "60", **options}))


def test_jobs_are_one_array_with_the_options_given(tmp_path, commands):
    with slurm(tmp_path, partition="gpu", mem="4GB") as engine:
        for name in "abc":
            engine.submit(job(tmp_path, name, 1))
        assert engine.watch(0.0) == []
        (script,) = (tmp_path / "slurm").rglob("*submission.sh")
        text = script.read_text()
        for line in ("--partition=gpu", "--mem=4GB", "--time=60", "--array=0-2%3", "--signal=USR2@180", "--requeue"):
            assert line in text, text
        assert (tmp_path / "runs/b/slurm_job.txt").read_text() == "7_1"
    assert (commands() / "cancelled").read_text() == "7_0 7_1 7_2\n"
    assert not list(tmp_path.glob("runs/*/slurm_job.txt"))


def test_jobs_of_a_driver_that_was_killed_are_followed_not_submitted_again(tmp_path, commands):
    with slurm(tmp_path) as engine:
        for name, number in (("a", "5_0"), ("b", "5_1")):
            engine.submit(job(tmp_path, name, 1))
            (tmp_path / "runs" / name / "slurm_job.txt").write_text(number)
        commands(squeue="echo 5_0")
        engine.watch(0.0)
        assert {name: handle.job_id for name, (_, handle, _) in engine._running.items()} == {"a": "5_0", "b": "7"}


def test_a_job_that_left_the_queue_without_a_word_has_ended(tmp_path, commands, monkeypatch):
    monkeypatch.setattr("difftori_gym.comparison.engines.slurm._QUEUE_S", 0.0)
    with slurm(tmp_path) as engine:
        engine.submit(job(tmp_path, "a", 1))
        commands(squeue="echo 7")
        assert engine.watch(0.0) == engine.watch(0.0) == []
        commands(squeue="")
        (ended,) = follow(engine, 1)
    assert ended.exit_code is None
    assert "job 7 is no longer in Slurm's queue" in ended.told


def test_what_cannot_work_is_told_in_one_line(tmp_path, commands, monkeypatch):
    for options, told in (
        ({"time": "1:00"}, "time=MINUTES, a whole number, got 1:00"),
        ({"partitoin": "gpu"}, "partitoin"),
    ):
        with pytest.raises(ValueError, match=told) as error:
            slurm(tmp_path, **options)
        assert "\n" not in str(error.value)
    commands(sbatch="echo 'sbatch: error: invalid partition specified: gpu' >&2; exit 1")
    with slurm(tmp_path, partition="gpu") as engine:
        engine.submit(job(tmp_path, "a", 1))
        with pytest.raises(ValueError, match="invalid partition specified: gpu") as error:
            engine.watch(0.0)
        assert "\n" not in str(error.value)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ValueError, match="no sbatch on this machine"):
        slurm(tmp_path)
