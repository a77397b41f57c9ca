"""``examples/record_video.py`` from the command line to the film."""

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
from stable_baselines3 import PPO

from difftori_gym.baselines import BC, DrQv2
from difftori_gym.card.__main__ import main as write_a_card
from difftori_gym.comparison import Run
from difftori_gym.envs import make_vec_env
from difftori_gym.evaluation import evaluate
from difftori_gym.exports import load_export, read_export
from difftori_gym.il import Demonstrations, DiffTORIImitation, Episode

pytest.importorskip("pygame")
pytest.importorskip("imageio_ffmpeg")
iio = pytest.importorskip("imageio.v3")

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "record_video.py"


@pytest.fixture(scope="module")
def main():
    spec = importlib.util.spec_from_file_location("record_video_example", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model in a file, and as the newer checkpoint of a run."""
    folder = tmp_path_factory.mktemp("run")
    model = PPO("MlpPolicy", make_vec_env("Pendulum-v1", seed=0), n_steps=8, batch_size=8, seed=0, device="cpu")
    for steps in (50, 100):
        checkpoint = folder / f"checkpoint-{steps:09d}"
        checkpoint.mkdir()
        (checkpoint / "state.json").write_text(json.dumps({"agent_steps": steps, "wall_s": 1.0}))
    model.save(checkpoint / "model.zip")
    return folder


def test_a_saved_model_is_filmed(main, saved, tmp_path, capsys):
    out = tmp_path / "film.gif"
    file = saved / "checkpoint-000000100" / "model.zip"
    arguments = ["--env", "Pendulum-v1", "--out", str(out), "--n-envs", "2", "--max-steps", "3"]
    assert main(["--model", str(file), "--method", "ppo", *arguments]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    frames = iio.imread(out)
    assert len(frames) == 4
    assert frames.shape[2] == 2 * frames.shape[1]
    assert main(["--model", str(saved), "--method", "ppo", *arguments]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--model", "nothing.zip"],
            "expected a saved model or the folder of a run, got nothing.zip, which is not there",
        ),
        (["--model", "."], "expected the folder of a run with a model or a checkpoint in it, got ."),
        (["--env", "Pendulm-v1"], "Unknown environment 'Pendulm-v1'"),
        (["--method", "sacc"], "Unknown method 'sacc'. Methods: difftori"),
        (["--overlay", "plan"], "overlay='plan' needs a policy that plans"),
        (["--pretty"], "Pendulum-v1 does not take --pretty: "),
        (["--out", "film.avi"], "writes .mp4 or .gif, got 'film.avi'"),
    ],
)
def test_a_request_that_cannot_be_carried_out_is_one_line(main, saved, tmp_path, capsys, arguments, message):
    given = ["--model", str(saved), "--method", "ppo", "--env", "Pendulum-v1", "--out", str(tmp_path / "film.mp4")]
    assert main([*given, *arguments]) == 2
    said = capsys.readouterr().err
    assert said.startswith("record_video: ")
    assert message in said
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_run_tells_what_its_model_sees(main, tmp_path):
    kwargs = {"obs": "pixels", "obs_kwargs": {"size": [40, 36], "grey": True}}
    model = PPO("CnnPolicy", make_vec_env("Pendulum-v1", **kwargs), n_steps=8, batch_size=8, seed=0, device="cpu")
    (tmp_path / "checkpoint-000000100").mkdir()
    model.save(tmp_path / "checkpoint-000000100" / "model.zip")
    (tmp_path / "checkpoint-000000100" / "state.json").write_text("{}")
    environment = dict(obs_kwargs=kwargs["obs_kwargs"], action_repeat=2)
    task = dict(suite="gymnasium", task="Pendulum-v1", obs="pixels")
    Run(kind="rl", **task, method="ppo", amount=100, env_kwargs=environment).write(tmp_path)
    out = tmp_path / "film.gif"
    assert main(["--model", str(tmp_path), "--env", "Pendulum-v1", "--out", str(out)]) == 0
    assert len(iio.imread(out)) == 101  # 200 frames, every second one is seen


def save_run(folder, run, model):
    run.write(folder)
    model.save(folder / "model.zip")


@pytest.fixture(scope="module")
def imitated(tmp_path_factory):
    """Folder of an imitation run of compare.py: run.json and model.zip, with a base policy of its own."""
    task = dict(suite="gymnasium", task="Pendulum-v1", obs="state", env_kwargs={"action_repeat": 4})
    run = Run(kind="imitation", **task, method="difftori", base="bc", demos=1, amount=1, size="small")
    env = make_vec_env("Pendulum-v1")
    episode = Episode(np.zeros((9, 3)), np.zeros((8, 1)), np.zeros(8), terminated=False, truncated=True)
    demonstrations = Demonstrations((episode,), env.observation_space, env.action_space)
    small = dict(policy_kwargs=dict(net_arch=[8]), device="cpu", seed=0)
    base = BC("MlpPolicy", None, demonstrations, **small)
    folder = tmp_path_factory.mktemp("runs") / run.name
    save_run(folder, run, DiffTORIImitation("MlpPolicy", None, demonstrations, base_policy=base, **small))
    base.save(folder.parent / "bc.zip")
    return folder


def test_an_imitation_run_is_filmed_from_its_folder(main, imitated, tmp_path):
    assert main(["--model", str(imitated), "--out", str(tmp_path / "film.gif")]) == 0
    assert len(iio.imread(tmp_path / "film.gif")) == 51  # 200 frames, every fourth is seen


def test_a_file_of_imitation_is_filmed_and_says_what_it_does_not_tell(main, imitated, tmp_path, capsys):
    arguments = ["--env", "Pendulum-v1", "--out", str(tmp_path / "film.gif"), "--max-steps", "2"]
    assert main(["--model", str(imitated.parent / "bc.zip"), "--method", "bc", *arguments]) == 0
    said = capsys.readouterr().err
    assert "does not tell how it saw and acted; taken: --obs state, --action-repeat 1" in said


def test_a_card_of_an_imitation_run(imitated, tmp_path):
    pytest.importorskip("matplotlib")
    assert write_a_card([str(imitated), "--out", str(tmp_path), "--episodes", "1", "--film", "film.gif"]) == 0
    text = (tmp_path / "README.md").read_text()
    assert "# DiffTORIImitation on Pendulum-v1" in text
    assert "| agent steps per episode | 50.0 |" in text
    assert "make_env('Pendulum-v1', obs='state', action_repeat=4)" in text
    assert "not told by the model" not in text
    assert len(iio.imread(tmp_path / "film.gif")) == 51


def test_a_card_of_a_model_of_the_pixel_preset(tmp_path):
    pytest.importorskip("matplotlib")
    env = make_vec_env("Pendulum-v1", obs="pixels")
    small = dict(buffer_size=10, policy_kwargs=dict(net_arch=[8], features_extractor_kwargs=dict(kernels=[8, 4])))
    small["policy_kwargs"]["features_extractor_kwargs"]["strides"] = [8, 4]
    DrQv2("CnnPolicy", env, device="cpu", **small).save(tmp_path / "seeing.zip")
    arguments = [str(tmp_path / "seeing.zip"), "--algo", "drqv2", "--env", "Pendulum-v1", "--film", "none"]
    assert write_a_card([*arguments, "--episodes", "1"]) == 0
    text = (tmp_path / "seeing-card" / "README.md").read_text()
    assert "make_env('Pendulum-v1', obs='pixels', action_repeat=1)" in text
    assert "| not told by the model, and taken as preset | `obs`, `action_repeat` |" in text


def test_a_card_of_what_saw_otherwise_says_how_to_tell(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    env = make_vec_env("Pendulum-v1", obs="pixels", obs_kwargs={"size": 36})
    DrQv2("CnnPolicy", env, buffer_size=10, device="cpu", policy_kwargs=dict(net_arch=[8])).save(tmp_path / "small.zip")
    arguments = [str(tmp_path / "small.zip"), "--algo", "drqv2", "--env", "Pendulum-v1", "--film", "none"]
    assert write_a_card([*arguments, "--episodes", "1"]) == 1
    said = capsys.readouterr().err
    assert "the model sees Box(0, 255, (9, 36, 36), uint8), Pendulum-v1 shows Box(0, 255, (9, 84, 84), uint8)" in said
    assert "--obs-kwargs" in said
    assert write_a_card([*arguments, "--episodes", "1", "--obs-kwargs", '{"size": 36}']) == 0


def test_a_card_of_a_learner_of_stable_baselines3(saved, tmp_path):
    pytest.importorskip("matplotlib")
    model = saved / "checkpoint-000000100" / "model.zip"
    arguments = [str(model), "--algo", "ppo", "--env", "Pendulum-v1", "--out", str(tmp_path), "--film", "none"]
    assert write_a_card([*arguments, "--episodes", "1"]) == 0
    text = (tmp_path / "README.md").read_text()
    assert "# PPO on Pendulum-v1" in text
    assert (tmp_path / "model.zip").read_bytes() == model.read_bytes()
    (program,) = re.findall(r"```python\n(.*?)while not done", text, flags=re.DOTALL)
    names: dict = {}
    exec(program.replace("'model.zip'", repr(str(tmp_path / "model.zip"))), names)
    assert isinstance(names["policy"], PPO)


def test_settings_that_cannot_be_read_are_no_reason_to_delete(main, saved, tmp_path, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.json").write_text("{")
    (folder / "model.zip").write_bytes((saved / "checkpoint-000000100" / "model.zip").read_bytes())
    assert main(["--model", str(folder), "--env", "Pendulum-v1", "--out", str(tmp_path / "film.gif")]) == 2
    said = capsys.readouterr().err
    assert "run.json cannot be read" in said
    assert "emove" not in said


def test_a_policy_that_comes_along_is_filmed_by_its_name(main, tmp_path, monkeypatch, capsys):
    pytest.importorskip("dm_control")
    monkeypatch.chdir(tmp_path)
    assert main(["--policy", "cartpole-swingup", "--max-steps", "3", "--width", "64", "--height", "64"]) == 0
    assert capsys.readouterr().out == "cartpole-swingup.mp4\n"
    assert (tmp_path / "cartpole-swingup.mp4").exists()
    assert main(["--policy", "walker-fly"]) == 2
    assert "--policy: there is no 'walker-fly'. Policies: cartpole-swingup, " in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--model", "model.zip"])
    assert "required: --out" in capsys.readouterr().err


def test_policies_that_come_along_are_whole_and_small():
    folder = SCRIPT.parent / "policies"
    table = json.loads((folder / "policies.json").read_text())
    assert {path.stem for path in folder.glob("*.safetensors")} == set(table)
    assert sum(path.stat().st_size for path in folder.iterdir()) < 12e6
    for name, about in table.items():
        assert f"{about['mean_return']:.2f} ± " in (folder / f"{name}.md").read_text(encoding="utf-8")
        described = read_export(folder / f"{name}.safetensors")
        assert (described.algorithm, described.num_timesteps) == ("DiffTORI", about["agent_steps"])


def test_a_policy_that_comes_along_earns_what_its_card_says():
    pytest.importorskip("dm_control")
    folder = SCRIPT.parent / "policies"
    about = json.loads((folder / "policies.json").read_text())["cartpole-swingup"]
    env = make_vec_env(about["env"], 1, action_repeat=about["action_repeat"])
    found = evaluate(load_export(folder / "cartpole-swingup.safetensors"), env, n_episodes=1, seed=7_000_000)
    assert found.mean_return == pytest.approx(about["mean_return"], abs=20)
