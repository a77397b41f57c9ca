"""A card of a model that was trained on a real task."""

import json
import re
import sys
import zipfile

import numpy as np
import pytest
from stable_baselines3.common.monitor import Monitor

from difftori_gym import DiffTORI, export, load_export, make_env
from difftori_gym.card.__main__ import main
from difftori_gym.card.curve import read_curve

TASK = "dm_control/cartpole-swingup"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A short training on cartpole-swingup; its zip and Monitor's csv."""
    folder = tmp_path_factory.mktemp("trained")
    env = Monitor(make_env(TASK, seed=0), str(folder / "train"))
    settings = dict(
        learning_starts=20,
        batch_size=8,
        pg_batch_size=4,
        planner_kwargs=dict(max_iterations=1),
        horizon=1,
        train_freq=50,
    )
    model = DiffTORI("MlpPolicy", env, policy_kwargs=dict(net_arch=[8]), device="cpu", seed=0, **settings)
    model.learn(510)
    model.save(folder / "model")
    env.close()
    return folder, model


def test_card_of_a_saved_model(trained, tmp_path, capsys):
    folder, model = trained
    out, curve = tmp_path / "card", str(folder / "train.monitor.csv")
    arguments = [str(folder / "model.zip"), "--out", str(out), "--env", TASK, "--episodes", "2", "--film", "film.gif"]
    assert main([*arguments, "--curve", curve]) == 0
    assert capsys.readouterr().out.strip() == str(out / "README.md")
    files = {"README.md", "model.safetensors", "film.gif", "curve.png"}
    pytest.importorskip("onnx")
    assert {path.name for path in out.iterdir()} == {*files, "model.onnx", "model.json"}
    # 100 frames a second, four an action
    assert json.loads((out / "model.json").read_text())["control_hz"] == pytest.approx(25.0)
    text = (out / "README.md").read_text(encoding="utf-8")
    yaml = pytest.importorskip("yaml")
    front = yaml.safe_load(text.split("---\n")[1])
    found = front["model-index"][0]["results"][0]
    assert found["dataset"]["type"] == TASK
    # The figures are those of the model: its first episode, run again by hand.
    env = make_env(TASK)
    observation, _ = env.reset(seed=0)
    total, done = 0.0, False
    while not done:
        action, _ = model.predict(observation, deterministic=True)
        observation, reward, terminated, truncated, _ = env.step(action)
        total, done = total + reward, terminated or truncated
    (extremes,) = re.findall(r"\| least and greatest return \| (.*), (.*) \|", text)
    assert f"{total:.2f}" in extremes
    returns = [float(each) for each in extremes]
    mean, std = (float(each) for each in found["metrics"][0]["value"].split(" +/- "))
    assert mean == pytest.approx(np.mean(returns), abs=0.02)
    assert std == pytest.approx(np.std(returns), abs=0.02)
    assert "| success rate | not told by the environment |" in text
    assert f"{model.num_timesteps} steps" in text
    assert "| `planner.optimizer.max_iterations` | `1` |" in text
    assert "![training curve](curve.png)" in text
    (program,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    program_here = program.replace("'model.safetensors'", repr(str(out / "model.safetensors")))
    names: dict = {}
    exec(program_here.split("while not done")[0], names)
    assert names["policy"].action_space == model.action_space
    observations = np.random.default_rng(0).uniform(-1, 1, (4, 5)).astype(np.float32)
    expected, _ = model.predict(observations, deterministic=True)
    actual, _ = load_export(out / "model.safetensors", "cpu").predict(observations, deterministic=True)
    np.testing.assert_array_equal(actual, expected)


def test_card_of_an_export_without_an_environment_and_onnx(trained, tmp_path, monkeypatch, caplog):
    _, model = trained
    path = export(model.policy, tmp_path / "policy")
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert main([str(path), "--film", "none"]) == 0
    assert caplog.text.count("export_onnx needs the package onnx: pip install") == 1
    text = (tmp_path / "policy-card" / "README.md").read_text(encoding="utf-8")
    assert text.startswith("---\nlibrary_name: difftori-gym\n")
    assert "# DiffTORIPolicy" in text
    assert "Evaluation" not in text


def test_what_cannot_be_read_is_told(tmp_path, capsys):
    (tmp_path / "bad.safetensors").write_bytes(b"12345678901234567890")
    assert main([str(tmp_path / "bad.safetensors")]) == 1
    assert "a header of" in capsys.readouterr().err
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("data", json.dumps({"saved_by": "PPO"}))
    assert main([str(tmp_path / "other.zip")]) == 1
    assert "--algo" in capsys.readouterr().err


def test_curves_of_every_kind(trained, tmp_path):
    folder, _ = trained
    monitored = read_curve(folder / "train.monitor.csv")
    np.testing.assert_array_equal(monitored.steps, [250, 500])
    np.savez(tmp_path / "evaluations.npz", timesteps=[10, 20], results=[[1.0, 3.0], [4.0, 6.0]])
    np.testing.assert_array_equal(read_curve(tmp_path / "evaluations.npz").returns, [2.0, 5.0])
    results = tmp_path / "results.csv"
    results.write_text("suite,steps,episode_return\nx,5,1.5\n")
    np.testing.assert_array_equal(read_curve(results).steps, [5])
    results.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="expected Monitor's csv"):
        read_curve(results)
