"""Small commands on this machine, and the arguments that choose an engine."""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from difftori_gym.comparison.engines import Event, Job, Progress, add_engine_arguments, engine_from
from difftori_gym.comparison.engines.local import LocalEngine

PROGRESS = """
import json, os, sys, time
for done in (1, 2):
    content = {"stage": "train", "done": done, "evaluations": done, "score": done / 2}
    with open("{folder}/new", "w") as file:
        json.dump(content, file)
    os.replace("{folder}/new", "{folder}/progress.json")
    time.sleep(0.3)
print("told", os.environ["OMP_NUM_THREADS"])
sys.exit(3)
"""
# Says that it is there, and ends as a run does when it is interrupted.
POLITE = """
import pathlib, signal, sys, time
folder = pathlib.Path("{folder}")
def stop(number, frame):
    (folder / "checkpoint").write_text("")
    sys.exit(130)
signal.signal(signal.SIGTERM, stop)
(folder / "ready").write_text("")
time.sleep(60)
"""


def job(tmp_path: Path, name: str, program: str) -> Job:
    folder = tmp_path / "runs" / name
    return Job(name, folder, (sys.executable, "-c", program.replace("{folder}", str(folder))))


def until(engine, seconds=20.0, wanted="ended", count=1) -> list[Event]:
    events, deadline = [], time.monotonic() + seconds
    while sum(event.kind == wanted for event in events) < count:
        assert time.monotonic() < deadline, events
        events += engine.watch(0.2)
    return events


def wait_for(path: Path, seconds=20.0) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.02)


def dead(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_a_job_tells_its_progress_its_exit_code_and_prints_into_its_folder(tmp_path):
    with LocalEngine(1) as engine:
        (tmp_path / "runs/a").mkdir(parents=True)
        old = {"stage": "film", "done": 9, "evaluations": 9, "score": None}
        (tmp_path / "runs/a/progress.json").write_text(json.dumps(old))
        engine.submit(job(tmp_path, "a", PROGRESS))
        events = until(engine)
    assert events == [
        Event("a", "started"),
        Event("a", "progress", Progress("train", 1, 1, 0.5)),
        Event("a", "progress", Progress("train", 2, 2, 1.0)),
        Event("a", "ended", exit_code=3),
    ]
    assert (tmp_path / "runs/a/output.txt").read_text() == "told 1\n"


def test_progress_that_cannot_be_read_is_passed_over(tmp_path):
    with LocalEngine(1) as engine:
        engine.submit(job(tmp_path, "a", "open('{folder}/progress.json', 'w').write('[1')"))
        assert [event.kind for event in until(engine)] == ["started", "ended"]


def test_a_killed_job_ends_by_the_signal_and_others_go_on(tmp_path):
    with LocalEngine(2) as engine:
        engine.submit(job(tmp_path, "killed", "import os; os.kill(os.getpid(), 9)"))
        engine.submit(job(tmp_path, "other", "import time; time.sleep(0.5)"))
        codes = {event.name: event.exit_code for event in until(engine, count=2) if event.kind == "ended"}
    assert codes == {"killed": -signal.SIGKILL, "other": 0}


def test_cancelled_jobs_write_their_checkpoints(tmp_path):
    with LocalEngine(2) as engine:
        for name in ("a", "b"):
            engine.submit(job(tmp_path, name, POLITE))
        for name in ("a", "b"):
            wait_for(tmp_path / "runs" / name / "ready")
        engine.cancel()
        assert {event.exit_code for event in engine.watch(1.0) if event.kind == "ended"} == {130}
    assert all((tmp_path / "runs" / name / "checkpoint").exists() for name in ("a", "b"))


def test_leaving_ends_what_does_not_listen_with_all_it_started(tmp_path):
    program = (
        "import signal, subprocess, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen(['sleep', '60']); open('{folder}/child', 'w').write(f'{child.pid}\\n')\n"
        "time.sleep(60)"
    )
    with LocalEngine(1) as engine:
        engine.submit(job(tmp_path, "a", program))
        wait_for(tmp_path / "runs/a/child")
        time.sleep(0.1)
    child = int((tmp_path / "runs/a/child").read_text())
    time.sleep(0.2)
    assert dead(child)


def test_jobs_die_with_their_parent(tmp_path):
    program = f"""
import time
from pathlib import Path
from difftori_gym.comparison.engines.jobs import Job
from difftori_gym.comparison.engines.local import LocalEngine
sleeper = "import os, time; open('{tmp_path}/pid.new', 'w').write(str(os.getpid()));"
sleeper += "os.replace('{tmp_path}/pid.new', '{tmp_path}/pid'); time.sleep(60)"
with LocalEngine(1) as engine:
    engine.submit(Job("a", Path({str(tmp_path)!r}) / "a", ({sys.executable!r}, "-c", sleeper)))
    time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", program])
    try:
        wait_for(tmp_path / "pid", 60)
        pid = int((tmp_path / "pid").read_text())
        assert not dead(pid)
    finally:
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    time.sleep(0.3)
    assert dead(pid)


def chosen(*arguments: str):
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("results"))
    add_engine_arguments(parser)
    return engine_from(parser.parse_args(arguments))


def test_the_engine_is_chosen_by_its_name():
    assert chosen("--jobs", "3").slots == 3


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("--engine cloud", "one of local, ray, slurm, got 'cloud'"),
        ("--jobs 0", "at least 1, got 0"),
        ("--address auto", "--address is for --engine ray, not for local"),
        ("--slurm time=5", "--slurm is for --engine slurm, not for local"),
        ("--engine slurm --slurm partition", "KEY=VALUE, such as partition=gpu, got 'partition'"),
        ("--engine slurm --storage s3://bucket", "--storage is for --engine ray, not for slurm"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(arguments, told):
    with pytest.raises(ValueError, match=told) as error:
        chosen(*arguments.split())
    assert "\n" not in str(error.value)


def test_a_local_comparison_loads_no_scheduler():
    # fsspec is there anyway: tensorboard, which Stable-Baselines3 imports, loads it.
    program = (
        "import sys, difftori_gym, difftori_gym.comparison.compare, difftori_gym.comparison.engines as engines\n"
        "with engines.make_engine('local', engines.EngineOptions()): pass\n"
        "ours = {f'difftori_gym.comparison.engines.{name}' for name in ('ray', 'slurm', 'storage')}\n"
        "print(sorted(({'ray', 'submitit', 'plotly'} | ours) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "[]\n", done.stderr
