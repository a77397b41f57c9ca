"""``compare.py --export``: what the runs of a folder leave as ONNX files, and what it says of the others."""

import json
import sys

import pytest
from stable_baselines3 import SAC

from difftori_gym import DiffTORI
from difftori_gym.comparison import Run
from difftori_gym.comparison.exporting import export_runs

pytest.importorskip("onnx")


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Two runs of a planner and of SAC, and one that has no model yet."""
    out = tmp_path_factory.mktemp("out")
    small = dict(policy_kwargs=dict(net_arch=[8]), seed=0)
    models = {
        "difftori": DiffTORI("MlpPolicy", "Pendulum-v1", horizon=1, **small),
        "sac": SAC("MlpPolicy", "Pendulum-v1"),
    }
    for method, seed in (("difftori", 0), ("difftori", 1), ("sac", 0), ("sac", 1), ("difftori", 2)):
        task = dict(kind="rl", suite="gymnasium", task="Pendulum-v1", obs="state", amount=100)
        environment = dict(action_repeat=2, obs_kwargs={}, max_episode_steps=200)
        run = Run(**task, method=method, seed=seed, env_kwargs=environment)
        folder = out / "runs" / run.name
        run.write(folder)
        if seed < 2:
            models[method].save(folder / "model.zip")
    return out


def test_every_planner_has_a_file_and_a_reason_is_told_once(out):
    *told, missing = list(export_runs(out))
    first, second = (out / "runs" / f"difftori-Pendulum-v1-state-seed{seed}" / "policy.onnx" for seed in (0, 1))
    assert told[:2] == [first, second]
    assert first.exists()
    # Its render_fps of 30, two frames an action.
    assert json.loads(first.with_suffix(".json").read_text())["control_hz"] == pytest.approx(15.0)
    assert "seed2" in told[2] or "seed2" in missing
    reasons = [each for each in (*told[2:], missing) if "SACPolicy" in str(each)]
    assert len(reasons) == 1


def test_without_the_package_it_says_so_once(out, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert [str(each) for each in export_runs(out)] == [
        "no ONNX files: export_onnx needs the package onnx: pip install 'difftori-gym[onnx]'."
    ]
