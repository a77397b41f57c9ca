"""deploy.py runs without torch, at its rate, and refuses files that are damaged or do not fit their description."""

import contextlib
import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces

from difftori_gym import DiffTORIPolicy
from difftori_gym.exports import export_onnx
from difftori_gym.rl.planning import Planner

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "deploy.py"
#: Everything but the standard library, numpy, and onnxruntime with what it needs is not there.
ALONE = """
import importlib.abc, runpy, sys

ABSENT = {"torch", "gymnasium", "stable_baselines3", "difftori_gym", "onnx", "safetensors", "scipy", "pandas"}

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}")

sys.meta_path.insert(0, Absent())
try:
    sys.argv.pop(0)
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    assert not ABSENT & set(sys.modules), ABSENT & set(sys.modules)
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    torch.manual_seed(0)
    vector, action = spaces.Box(-3.0, 3.0, (3,)), spaces.Box(-2.0, 2.0, (1,))
    policy = DiffTORIPolicy(
        vector, action, lambda _: 1e-3, net_arch=[8], latent_dim=4, horizon=2, planner=Planner(init="warm")
    )
    return export_onnx(policy, tmp_path_factory.mktemp("exported") / "policy.onnx", control_hz=100.0)


@pytest.fixture
def file(exported, tmp_path):
    for path in (exported, exported.with_suffix(".json")):
        shutil.copy(path, tmp_path)
    return tmp_path / exported.name


@pytest.fixture(scope="module")
def deploy():
    return runpy.run_path(str(SCRIPT))


def alone(*arguments):
    command = [sys.executable, "-c", ALONE, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_it_runs_where_there_is_no_torch(file):
    done = alone(file, "--hz", 20, "--seconds", 0.5)
    assert done.returncode in (0, 1), done.stderr
    assert done.stdout.startswith("10 actions, ")
    assert "deadlines missed; ms an action: 50th percentile" in done.stdout
    file.write_bytes(file.read_bytes()[:-100])
    done = alone(file)
    assert done.returncode == 2
    assert done.stderr.startswith(f"deploy: {file}: onnxruntime does not load it:")
    assert done.stderr.count("\n") == 1


def test_late_actions_are_counted_and_not_made_up_for(file, deploy, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(deploy["time"], "perf_counter", lambda: now[0])
    monkeypatch.setattr(deploy["time"], "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    lengths = iter([0.01, 0.25, 0.01, 0.01])

    def act(action):
        now[0] += next(lengths)

    report = deploy["run"](deploy["OnnxPolicy"](file), lambda: np.zeros(3), act, hz=10.0, steps=4)
    assert report.missed == 1
    assert report.seconds.tolist() == pytest.approx([0.01, 0.25, 0.01, 0.01])
    assert now[0] == pytest.approx(0.1 + 0.25 + 0.1 + 0.1)


def test_what_the_description_says(file):
    described = json.loads(file.with_suffix(".json").read_text())
    assert described["control_hz"] == 100.0
    assert described["observations"] == [
        {
            "input": "observation",
            "shape": [3],
            "dtype": "float32",
            "low": -3.0,
            "high": 3.0,
            "unit": "the environment's",
        }
    ]
    assert described["action"]["output"] == "action"
    assert (described["action"]["low"], described["action"]["high"]) == (-2.0, 2.0)
    assert [(part["input"], part["output"], part["shape"], part["initial"]) for part in described["memory"]] == [
        ("memory.plan", "next.plan", [2, 1], 0.0),
        ("memory.begun", "next.begun", [], 0.0),
    ]


def test_the_file_holds_standard_operations_and_every_weight_once(file):
    model = onnx.load(file)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 20)]
    assert {node.domain for node in model.graph.node} == {""}
    contents = [(each.data_type, tuple(each.dims), each.raw_data) for each in model.graph.initializer]
    assert len(set(contents)) == len(contents)


CHANGES = {
    "schema": (lambda d: d.update(schema="another"), "expected version 1"),
    "version": (lambda d: d.update(version=2), "expected version 1"),
    "no memory": (lambda d: d.pop("memory"), "lacks something"),
    "memory of another size": (lambda d: d["memory"][0].update(shape=[3, 1]), "inputs and its description differ"),
    "memory missing": (lambda d: d["memory"].pop(), "inputs and its description differ"),
    "type": (lambda d: d["observations"][0].update(dtype="float64"), "inputs and its description differ"),
    "name": (lambda d: d["observations"][0].update(input="other"), "inputs and its description differ"),
    "shape": (lambda d: d["observations"][0].update(shape="abc"), "lacks something"),
    "huge": (lambda d: d["observations"][0].update(shape=[1 << 40]), "too large"),
    "output": (lambda d: d["action"].update(output="memory.plan"), "outputs and its description differ"),
    "list": (lambda d: d.update(observations=[1]), "lacks something"),
    "initial": (lambda d: d["memory"][0].update(initial=float("nan")), "no initial memory"),
    "initial text": (lambda d: d["memory"][0].update(initial="0"), "lacks something"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_description_that_does_not_fit_is_refused(name, file, deploy):
    change, message = CHANGES[name]
    path = file.with_suffix(".json")
    described = json.loads(path.read_text())
    change(described)
    path.write_text(json.dumps(described))
    with pytest.raises(ValueError, match=message) as caught:
        deploy["OnnxPolicy"](file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, "\x00"])
def test_a_description_that_is_none_is_refused(text, file, deploy):
    file.with_suffix(".json").write_text(text)
    with pytest.raises(ValueError, match=r"policy\.json: "):
        deploy["OnnxPolicy"](file)
    file.with_suffix(".json").unlink()
    with pytest.raises(ValueError, match="cannot be read"):
        deploy["OnnxPolicy"](file)


def test_damaged_files_are_refused_in_one_line(file, deploy):
    whole = file.read_bytes()
    rng = np.random.default_rng(0)
    for kept in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:kept])
        with pytest.raises(ValueError, match="onnx") as caught:
            deploy["OnnxPolicy"](file)
        assert "\n" not in str(caught.value)
    for _ in range(40):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 20):
            damaged[place] = rng.integers(256)
        file.write_bytes(damaged)
        with contextlib.suppress(ValueError):  # some damage only changes weights
            deploy["OnnxPolicy"](file).predict(np.zeros(3))


def test_a_file_that_points_at_other_files_does_not_read_them(file, deploy):
    model = onnx.load(file)
    (tensor,) = (each for each in model.graph.initializer if list(each.dims) == [8, 3])
    onnx.external_data_helper.set_external_data(tensor, "/etc/hostname")
    tensor.ClearField("raw_data")
    file.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match="does not load it"):
        deploy["OnnxPolicy"](file)


def test_observations_that_do_not_fit_are_refused(file, deploy):
    policy = deploy["OnnxPolicy"](file)
    with pytest.raises(ValueError, match=r"expected 'observation' of shape \(3,\), got \(1, 3\)"):
        policy.predict(np.zeros((1, 3)))
    with pytest.raises(ValueError, match=r"expected observations \['observation'\], got \['state'\]"):
        policy.predict({"state": np.zeros(3)})
    with pytest.raises(ValueError, match="nan or infinity in 'observation'"):
        policy.predict(np.array([0.0, np.nan, 0.0]))
    assert policy.predict([0.0, 1.0, 2.0]).shape == (1,)
    assert policy.predict({"observation": np.zeros(3, np.float64)}).dtype == np.float32
