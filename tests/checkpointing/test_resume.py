"""Trained straight through, or ended and continued by another process: the same numbers, bit for bit."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from difftori_gym import ResumeCallback

PROGRAM = Path(__file__).with_name("resumed_runs.py")

# Python 3.12 warns of forks in processes with threads, which JAX and torch start.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*")


def _load():
    spec = importlib.util.spec_from_file_location("resumed_runs", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    sys.modules["resumed_runs"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


runs = _load()


@pytest.fixture(scope="module")
def continued(request, tmp_path_factory):
    """The selected runs ended a little after half their steps, then continued, all by one other process."""
    folder = tmp_path_factory.mktemp("continued")
    names = [item.callspec.params["name"] for item in request.session.items if item.path == request.path]
    for name in names:
        run = runs.RUNS[name]
        model = run.new()
        resume = ResumeCallback(folder / name, every_steps=runs.HALF, every_seconds=None)
        with pytest.raises(runs.Ended):
            model.learn(2 * runs.HALF, callback=[resume, runs.EndsAt()])
        resume._held.release()
        if model.env is not None:
            model.env.close()
    subprocess.run([sys.executable, str(PROGRAM), str(folder), *names], check=True)
    return folder


@pytest.mark.parametrize("name", list(runs.RUNS))
def test_a_continued_run_ends_in_the_weights_of_one_that_never_stopped(continued, name):
    model = runs.RUNS[name].new().learn(2 * runs.HALF)
    straight, ended = runs.weights(model), torch.load(continued / f"{name}.pt")
    if model.env is not None:
        model.env.close()
    assert straight.keys() == ended.keys()
    assert [key for key in straight if not torch.equal(straight[key], ended[key])] == []
    # The comparison can fail: another half of training does change the weights.
    first = runs.RUNS[name].learner.load(continued / name / f"checkpoint-{runs.HALF:09d}" / "model.zip", device="cpu")
    assert any(not torch.equal(value, straight[key]) for key, value in runs.weights(first).items())
