"""A real cluster of three nodes on this machine. What runs is a small program that counts, with checkpoints."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from difftori_gym.comparison.engines import EngineOptions, Job, make_engine, node
from difftori_gym.comparison.engines.storage import Storage

ROOT = Path(__file__).resolve().parents[3]
STEPS, INTERVAL = 40, 5
# Counts to STEPS; "trained" remembers every step that any process did.
RUN = f"""
import json, os, pathlib, signal, sys, time
folder, trained = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
ending = []
signal.signal(signal.SIGTERM, lambda number, frame: ending.append(number))
def save(step):
    checkpoint = folder / f"checkpoint-{{step:09d}}"
    checkpoint.mkdir(exist_ok=True)
    (checkpoint / "model.zip").write_text(str(step))
    (checkpoint / "state.json").write_text(str(step))
    for old in sorted(folder.glob("checkpoint-*"))[:-1]:
        for file in old.iterdir():
            file.unlink()
        old.rmdir()
def tell(step):
    (folder / "results.csv").write_text(str(step))
    content = {{"stage": "train", "done": step, "evaluations": step // {INTERVAL}, "score": None}}
    (folder / "new").write_text(json.dumps(content))
    os.replace(folder / "new", folder / "progress.json")
step = max([int(path.name[11:]) for path in folder.glob("checkpoint-*") if (path / "state.json").exists()], default=0)
while step < {STEPS}:
    time.sleep(0.1)
    step += 1
    with trained.open("a") as file:
        file.write(f"{{step}}\\n")
    if step % {INTERVAL} == 0 or ending:
        save(step)
        tell(step)
    if ending:
        sys.exit(130)
"""


@pytest.fixture(scope="module")
def cluster():
    """Ports are given: nodes wait fifteen seconds at most until their agents tell theirs, too few on a busy machine."""

    def ports() -> dict[str, int]:
        names = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port", "runtime_env_agent_port")
        sockets = [socket.create_server(("", 0)) for _ in names]
        found = {name: each.getsockname()[1] for name, each in zip(names, sockets, strict=True)}
        for each in sockets:
            each.close()
        return found

    started = Cluster(initialize_head=True, head_node_args=dict(num_cpus=1, **ports()))
    started.mortal = [started.add_node(num_cpus=1, **ports()) for _ in range(2)]
    yield started
    started.shutdown()


def jobs(tmp_path: Path, names: str) -> list[Job]:
    found = []
    for name in names:
        folder = tmp_path / "out" / "runs" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "run.json").write_text("{}")
        (tmp_path / "trained").mkdir(exist_ok=True)
        found.append(Job(name, folder, (sys.executable, "-c", RUN, str(folder), str(tmp_path / "trained" / name))))
    return found


def engine_of(tmp_path: Path, cluster, **options):
    return make_engine("ray", EngineOptions(out=tmp_path / "out", address=cluster.address, **options))


def follow(engine, names: str, until=lambda events: False) -> list:
    events, deadline = [], time.monotonic() + 60
    while {event.name for event in events if event.kind == "ended"} != set(names) and not until(events):
        assert time.monotonic() < deadline, events
        events += engine.watch(0.5)
    return events


def steps_of(tmp_path: Path, name: str) -> list[int]:
    return [int(line) for line in (tmp_path / "trained" / name).read_text().split()]


def evaluated(events) -> set[str]:
    return {event.name for event in events if event.kind == "progress" and event.progress.evaluations > 0}


def test_runs_outlive_a_node_that_dies(tmp_path, cluster):
    with engine_of(tmp_path, cluster) as engine:
        for job in jobs(tmp_path, "abcd"):
            engine.submit(job)
        events = follow(engine, "abcd", lambda events: len(evaluated(events)) >= 3)
        cluster.remove_node(cluster.mortal.pop(), allow_graceful=False)
        events += follow(
            engine, "abcd", lambda found: {e.name for e in events + found if e.kind == "ended"} == {*"abcd"}
        )
    assert {event.exit_code for event in events if event.kind == "ended"} == {0}
    starts = [event.name for event in events if event.kind == "started"]
    assert len(starts) == 5, starts  # four runs, one of them twice
    for name in "abcd":
        steps = steps_of(tmp_path, name)
        assert sorted(set(steps)) == list(range(1, STEPS + 1))
        assert len(steps) - STEPS <= INTERVAL * (starts.count(name) - 1)


def test_where_no_folder_is_shared_a_storage_keeps_everything(tmp_path, cluster):
    uri = f"file://{tmp_path}/storage"
    stored = tmp_path / "storage" / "runs" / "e"
    with engine_of(tmp_path, cluster, storage=uri) as engine:
        (job,) = jobs(tmp_path, "e")
        engine.submit(job)
        follow(engine, "e", lambda events: evaluated(events) == {"e"})
        engine.cancel()  # as Ctrl-C does
        assert [event.exit_code for event in engine.watch(1.0) if event.kind == "ended"] == [130]
    reached = int((job.folder / "results.csv").read_text())
    assert 0 < reached < STEPS
    assert [path.name for path in stored.glob("checkpoint-*/*")] == ["model.zip", "state.json"]
    with engine_of(tmp_path, cluster, storage=uri) as engine:
        engine.submit(job)
        assert follow(engine, "e")[-1].exit_code == 0
    assert steps_of(tmp_path, "e") == list(range(1, STEPS + 1))  # nothing twice
    assert (job.folder / "results.csv").read_text() == (stored / "results.csv").read_text() == str(STEPS)
    assert not list(job.folder.glob("checkpoint-*"))  # they stay in the storage
    assert [int(path.name[11:]) for path in stored.glob("checkpoint-*")] == [STEPS]


def test_a_run_that_fails_does_not_start_again(tmp_path, cluster):
    folder = tmp_path / "out" / "runs" / "f"
    folder.mkdir(parents=True)
    gone = tmp_path / "out" / "runs" / "gone"
    with engine_of(tmp_path, cluster) as engine:
        engine.submit(Job("f", folder, (sys.executable, "-c", "import sys; sys.exit('no such suite')")))
        engine.submit(Job("gone", gone, (sys.executable, "-c", "")))
        ended = {event.name: event for event in follow(engine, ["f", "gone"]) if event.kind == "ended"}
    assert ended["f"].exit_code == 1
    assert "no such suite" in (folder / "output.txt").read_text()
    assert ended["gone"].exit_code is None
    assert "share it with all nodes" in ended["gone"].told
    assert "\n" not in ended["gone"].told


def test_what_cannot_work_is_told_before_anything_starts(tmp_path, cluster):
    def told(**options) -> str:
        with pytest.raises(ValueError, match=r"^[^\n]+$") as error, engine_of(tmp_path, cluster, **options):
            pass
        return str(error.value)

    (tmp_path / "file").write_text("")
    assert "--storage" in told(storage=f"file://{tmp_path}/file/inside")
    assert "No node of the cluster has 64 processors" in told(cpus_per_run=64.0)
    assert "one of them more" in told(cpus_per_run=0.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for port in (1, silent.getsockname()[1]):
            with pytest.raises(ValueError, match="no Ray cluster answers"):
                make_engine("ray", EngineOptions(out=tmp_path, address=f"127.0.0.1:{port}")).__enter__()


def test_a_node_that_cannot_do_runs_says_why(tmp_path, monkeypatch):
    token = tmp_path / "token"
    assert "is not the driver's" in node.fault(token, {}, None)
    token.touch()
    assert node.fault(token, {}, None) == ""
    assert "cannot be written" in node.fault(token, {}, Storage(f"file://{token}/inside"))
    monkeypatch.setattr(node, "_HAS_PACKAGE", "import sys; sys.exit(1)")
    assert "install the package there" in node.fault(token, {}, None)


def test_a_ray_that_does_not_start_is_told_in_one_line(tmp_path, monkeypatch):
    def late(*arguments, **keywords):
        raise Exception("The current node timed out\nduring startup.")

    monkeypatch.setattr("ray.init", late)
    with pytest.raises(ValueError, match=r"^No Ray starts here: The current node timed out during startup\.$"):
        make_engine("ray", EngineOptions(out=tmp_path)).__enter__()


def raylets() -> set[str]:
    """Numbers of the processes that are nodes of Ray."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            found |= {path.parent.name} if path.read_bytes().split(b"\0")[0].endswith(b"/raylet") else set()
    return found


@pytest.mark.slow
def test_ctrl_c_leaves_checkpoints_and_no_ray(tmp_path):
    """Without an address compare.py starts a Ray of its own, which a terminal's Ctrl-C reaches, too."""
    small = ["--seeds", "0", "--frames", "20000", "--eval-freq", "300", "--eval-episodes", "1", "--no-video"]
    program = [sys.executable, str(ROOT / "examples/compare.py"), "--methods", "sac", "--tasks", "Pendulum-v1"]
    others = raylets()
    # A shell that starts the tests in the background makes them, and what they start, deaf to it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    running = subprocess.Popen(
        [*program, *small, "--device", "cpu", "--engine", "ray", "--out", str(tmp_path)],
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    signal.signal(signal.SIGINT, before)
    folder = tmp_path / "runs" / "sac-Pendulum-v1-state-seed0"
    try:
        deadline = time.monotonic() + 240
        while not list(folder.glob("checkpoint-*/state.json")):
            assert running.poll() is None, running.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert raylets() - others
        saved = max(int(path.name[11:]) for path in folder.glob("checkpoint-*"))
        os.killpg(running.pid, signal.SIGINT)
        told, _ = running.communicate(timeout=240)
    finally:
        running.kill()
    assert running.returncode == 130, told
    assert "the same command continues" in told
    (newest,) = folder.glob("checkpoint-*")
    assert saved < int(newest.name[11:]) < 20000
    deadline = time.monotonic() + 60
    while raylets() - others:
        assert time.monotonic() < deadline, "a node of Ray is left"
        time.sleep(0.2)
