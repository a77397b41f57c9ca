"""Imitation runs on a real MetaWorld task, in this process and from the command line."""

import contextlib
import importlib.util
import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from difftori_gym.envs.rendering import select_gl_backend

select_gl_backend()  # before the first import of MuJoCo
pytest.importorskip("metaworld")
pytest.importorskip("h5py")

from difftori_gym.baselines import BC  # noqa: E402
from difftori_gym.checkpointing import TrainingInterrupted  # noqa: E402
from difftori_gym.collection import CollectionSettings, collect, make_expert  # noqa: E402
from difftori_gym.comparison import ComparisonSettings, compare, plan_runs  # noqa: E402
from difftori_gym.comparison.compare import run_all  # noqa: E402
from difftori_gym.comparison.engines import Event  # noqa: E402
from difftori_gym.comparison.records import is_finished  # noqa: E402
from difftori_gym.comparison.results import read_rows, write_rows  # noqa: E402
from difftori_gym.comparison.training import do_run  # noqa: E402
from difftori_gym.envs import parse_task  # noqa: E402
from difftori_gym.il import DiffTORIImitation, read_minari  # noqa: E402

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TASK = "metaworld/drawer-close"
TINY = {
    "bc": dict(batch_size=16, policy_kwargs=dict(net_arch=[32])),
    "difftori": dict(batch_size=16, planner_kwargs=dict(max_iterations=2, backward_num_iterations=2), latent_dim=4),
}


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    out = tmp_path_factory.mktemp("demos") / "drawer-close-state"
    collect(CollectionSettings(TASK, out, 2, steps_after_success=0), make_expert(parse_task(TASK)))
    return out


def asked(tmp_path, demos, **changes):
    fields = dict(methods=("difftori",), tasks=(TASK,), seeds=(0,), out=tmp_path, demos=2, demos_from=demos.parent)
    quick = dict(steps=20, size="small", eval_episodes=3, episode_steps=25, video=False)
    alone = changes.get("methods") == ("bc",)
    overrides = {"bc": TINY["bc"]} if alone else TINY
    return ComparisonSettings(**{**fields, **quick, **changes}, overrides=overrides)


def do(run, out, report=lambda progress: None):
    do_run(run, out / "runs" / run.name, report, contextlib.nullcontext())


def test_an_interrupted_run_goes_on_and_shares_its_base(tmp_path, demos):
    base, run = plan_runs(asked(tmp_path, demos, eval_freq=10))
    do(base, tmp_path)
    assert is_finished(base, tmp_path)
    seen = []

    def stop(progress):
        seen.append(progress)
        if progress.evaluations == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        do(run, tmp_path, stop)
    folder = tmp_path / "runs" / run.name
    (first,) = read_rows(folder / "results.csv")
    assert (first.steps, seen[-1].done) == (10, 10)
    assert not is_finished(run, tmp_path)

    do(run, tmp_path, seen.append)
    rows = read_rows(folder / "results.csv")
    assert rows[0] == first
    assert [row.steps for row in rows] == [10, 20]
    assert rows[1].cpu_s > first.cpu_s > 0
    assert rows[1].plan_ms > 0
    assert is_finished(run, tmp_path)
    assert list(folder.glob("checkpoint-*")) == []

    model = DiffTORIImitation.load(folder / "model.zip", device="cpu")
    assert model.num_timesteps == 20
    shared = BC.load(tmp_path / "runs" / base.name / "model.zip", device="cpu").policy.state_dict()
    for name, value in model.policy.base.state_dict().items():
        torch.testing.assert_close(value, shared[name], rtol=0, atol=0)
    before = (folder / "results.csv").read_bytes()
    do(run, tmp_path)  # nothing is left
    assert (folder / "results.csv").read_bytes() == before


def test_sigterm_leaves_a_checkpoint_and_no_half_of_one(tmp_path, demos):
    results = []
    for name in ("whole", "ended"):
        (run,) = plan_runs(asked(tmp_path / name, demos, methods=("bc",), eval_freq=10))
        folder = tmp_path / name / "runs" / run.name
        if name == "ended":
            with pytest.raises(TrainingInterrupted, match=r"SIGTERM ended .* after 13 gradient steps"):
                do(run, tmp_path / name, lambda told: told.done == 13 and os.kill(os.getpid(), signal.SIGTERM))
            assert [path.name for path in folder.glob("checkpoint-*")] == ["checkpoint-000000013"]
            (folder / ".unfinished-1-checkpoint").mkdir()  # of a process that was killed while it wrote
            (folder / ".unfinished-1-checkpoint" / "model.zip").write_bytes(b"half")
        do(run, tmp_path / name)
        results.append([(row.steps, row.successes, row.episode_return) for row in read_rows(folder / "results.csv")])
        assert list(folder.glob(".unfinished-*")) == []
    assert results[0] == results[1]


def test_seeds_of_the_evaluation_are_held_out(tmp_path, demos):
    (run,) = plan_runs(asked(tmp_path, demos, methods=("bc",), steps=1, eval_episodes=1))
    metadata = demos.parent / "drawer-close"
    collect(
        CollectionSettings(TASK, metadata, 1, seed=1_000_000, max_steps=20, keep_failures=True),
        make_expert(parse_task(TASK)),
    )
    with pytest.raises(
        ValueError, match=r"other seeds than those of the evaluation, 1000000 to 1000000, got \[1000000"
    ):
        do(replace(run, demonstrations=str(metadata), demos=None), tmp_path)
    with pytest.raises(ValueError, match=r"expected demonstrations of metaworld/reach, got metaworld/drawer-close"):
        do(replace(run, task="reach"), tmp_path)


class Shown:
    """A display that remembers."""

    def __init__(self):
        self.stopped = {}

    def start(self, run):
        pass

    def update(self, run, progress):
        pass

    def stop(self, run, outcome):
        self.stopped[run.name] = outcome


class DyingBases:
    """An engine that ends every job at once; those of base policies died."""

    slots = 2

    def __init__(self):
        self.jobs = []

    def submit(self, job):
        self.jobs.append(job)

    def watch(self, timeout_s):
        done, self.jobs = self.jobs, []
        for job in done:
            if job.name.startswith("bc-"):
                (job.folder / "traceback.txt").write_text("RuntimeError: the base died")
        return [Event(job.name, "ended", exit_code=int(job.name.startswith("bc-"))) for job in done]


def test_what_needs_a_run_that_died_is_given_up(tmp_path, demos):
    runs = plan_runs(asked(tmp_path, demos, methods=("diffusion", "difftori")))
    assert [run.method for run in runs] == ["bc", "diffusion", "difftori"]
    display = Shown()
    died = run_all(runs, tmp_path, DyingBases(), display)
    assert list(died) == [runs[0].name, runs[2].name]
    assert "RuntimeError: the base died" in died[runs[0].name]
    assert died[runs[2].name] == f"It needs {runs[0].name}, which died."
    assert display.stopped == {runs[0].name: "failed", runs[1].name: "done", runs[2].name: "failed"}


def load(name):
    sys.path.insert(0, str(EXAMPLES))
    try:
        spec = importlib.util.spec_from_file_location(f"{name}_example", EXAMPLES / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(EXAMPLES))


@pytest.mark.slow
def test_the_command_collects_trains_reports_and_continues(tmp_path, capsys):
    out = tmp_path / "out"
    command = ["--methods", "difftori", "--base", "bc", "--tasks", TASK, "--demos", "1", "--size", "small"]
    command += ["--steps", "10", "--eval-episodes", "2", "--episode-steps", "20", "--no-video", "--out", str(out)]
    sets = [f"{name}.{key}={json.dumps(value)}" for name, values in TINY.items() for key, value in values.items()]
    main = load("compare").main
    assert main([*command, "--set", *sets]) == 0
    assert len(read_minari(out / "demos" / "drawer-close-state")) == 1
    rows = read_rows(out / "results.csv")
    assert [(row.entry, row.steps, row.episodes) for row in rows] == [("bc", 10, 2), ("difftori+bc", 10, 2)]
    assert all(0 <= row.successes <= 2 for row in rows)
    assert all(np.isfinite(row.episode_return) for row in rows)
    report = (out / "report.md").read_text()
    for text in ("metaworld/drawer-close (state, 1 demonstrations)", "| DiffTORI (+BC) | 1 | 2 |", "## Differences"):
        assert text in report
    assert (out / "success.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    capsys.readouterr()
    assert main([*command, "--set", *sets]) == 0
    assert capsys.readouterr().err.count("already there") == 3


@pytest.mark.parametrize(
    ("program", "arguments", "message"),
    [
        ("compare", ["--methods", "bc", "--tasks", TASK], "compare: expected --frames NUMBER"),
        (
            "compare",
            ["--methods", "bc", "--tasks", TASK, "--demos", "1", "--frames", "9"],
            "compare: --frames is for rei",
        ),
        (
            "compare",
            ["--methods", "sac", "--tasks", TASK, "--frames", "9", "--steps", "3"],
            "compare: --steps is for imit",
        ),
        (
            "ablations",
            ["start", "--task", TASK, "--demos", "1", "--base", "bc", "ibc"],
            "ablations: an ablation has one",
        ),
        ("ablations", ["latent", "--task", TASK], "ablations: expected --frames NUMBER"),
    ],
)
def test_a_request_that_cannot_be_carried_out_is_one_line(tmp_path, capsys, program, arguments, message):
    assert load(program).main([*arguments, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert said.startswith(message)
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_task_that_tells_no_success_is_still_reported(tmp_path, demos):
    settings = asked(tmp_path, demos, methods=("bc",), steps=2, eval_episodes=1)
    (run,) = plan_runs(settings)
    do(run, tmp_path)
    path = tmp_path / "runs" / run.name / "results.csv"
    (row,) = read_rows(path)
    write_rows(path, [replace(row, successes=None)])
    assert compare(settings, [run], Shown()) == {}
    assert "| BC | 1 | 1 | - | - |" in (tmp_path / "report.md").read_text()
