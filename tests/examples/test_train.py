"""``examples/train_rl.py`` and ``examples/train_il.py``: short real runs, from the command line to the evaluation."""

import importlib.util
import re
from pathlib import Path

import pytest

from difftori_gym import DiffTORI, DiffTORIImitation
from difftori_gym.checkpointing import newest_checkpoint, read_checkpoint

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PROGRAMS = ("train_rl", "train_il")


def program(name: str):
    spec = importlib.util.spec_from_file_location(f"{name}_example", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_own_project_starts_from_less_than_eighty_lines(name):
    assert len((EXAMPLES / f"{name}.py").read_text(encoding="utf-8").splitlines()) < 80


def test_reinforcement_learning_trains_evaluates_films_and_goes_on(tmp_path, capsys):
    pytest.importorskip("pygame")
    pytest.importorskip("imageio_ffmpeg")
    main = program("train_rl").main
    arguments = ["--env", "Pendulum-v1", "--n-envs", "2", "--eval-freq", "1004", "--out", str(tmp_path)]

    main([*arguments, "--steps", "1006"])  # the first updates come after 1000 agent steps
    first = DiffTORI.load(tmp_path / "model.zip")
    assert first.num_timesteps == 1006
    assert first._n_updates > 0
    assert (tmp_path / "evaluations-from-0" / "evaluations.npz").is_file()
    assert [film.name for film in (tmp_path / "videos").iterdir()] == ["film-000001004.mp4"]
    assert re.search(r"model.zip: return -\d+\.\d over 10 episodes", capsys.readouterr().out)

    main([*arguments, "--steps", "1010", "--no-video"])
    second = DiffTORI.load(tmp_path / "model.zip")
    assert second.num_timesteps == 1010
    assert second._n_updates > first._n_updates


def test_imitation_collects_trains_evaluates_films_and_goes_on(tmp_path, capsys):
    pytest.importorskip("metaworld")
    pytest.importorskip("imageio_ffmpeg")
    main = program("train_il").main
    arguments = ["--env", "metaworld/reach", "--episodes", "2", "--eval-episodes", "1", "--out", str(tmp_path)]

    main([*arguments, "--steps", "5"])
    assert DiffTORIImitation.load(tmp_path / "DiffTORIImitation.zip").num_timesteps == 5
    assert (tmp_path / "film.mp4").stat().st_size > 1000
    told = capsys.readouterr().out
    assert re.search(r"^BC: return \d+\.\d, success [01]\.0$", told, flags=re.MULTILINE)
    assert re.search(r"^DiffTORIImitation: return \d+\.\d, success [01]\.0$", told, flags=re.MULTILINE)

    demonstrations = tmp_path / "demos"
    before = {path: path.stat().st_mtime_ns for path in demonstrations.rglob("*") if path.is_file()}
    main([*arguments, "--steps", "7", "--no-video", "--demos", str(demonstrations)])
    assert {path: path.stat().st_mtime_ns for path in before} == before
    for learner in ("BC", "DiffTORIImitation"):
        newest = newest_checkpoint(tmp_path / "checkpoints" / learner)
        assert newest is not None
        assert read_checkpoint(newest).agent_steps == 7
