"""``examples/record_video.py`` from the command line to the film."""

import importlib.util
import json
from pathlib import Path

import pytest
from stable_baselines3 import PPO

from difftori_gym.comparison.settings import RunSettings
from difftori_gym.envs import make_vec_env

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
    run = RunSettings(
        "gymnasium",
        "Pendulum-v1",
        method="ppo",
        seed=0,
        frames=100,
        action_repeat=2,
        n_envs=1,
        eval_freq=50,
        eval_episodes=1,
        hyperparameters={},
        **kwargs,
    )
    (tmp_path / "args.json").write_text(run.to_json())
    out = tmp_path / "film.gif"
    assert main(["--model", str(tmp_path), "--env", "Pendulum-v1", "--out", str(out)]) == 0
    assert len(iio.imread(out)) == 101  # 200 frames, every second one is seen
