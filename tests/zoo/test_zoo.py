"""The RL Zoo trains, plays and tunes our learners, with the presets that the comparison uses."""

import csv
import subprocess
import sys

import pytest
import yaml

from difftori_gym.baselines.methods import METHODS
from difftori_gym.zoo import ALGORITHMS
from difftori_gym.zoo.__main__ import main, read_options
from difftori_gym.zoo.hyperparameters import TASKS, as_yaml
from difftori_gym.zoo.registration import hyperparameters_file
from difftori_gym.zoo.search import convert

SMALL = "learning_starts:20 batch_size:8 pg_batch_size:4 train_freq:4 gradient_steps:1"
SMALL += " planner_kwargs:dict(max_iterations=1)"
PROGRAM = f"""
from difftori_gym.zoo.__main__ import main

common = "--device cpu --num-threads 1 --seed 0 -f logs --eval-freq -1 --verbose 0".split()
small = "-params {SMALL}".split()
play = "--device cpu --num-threads 1 -f logs --no-render".split()
main(["train", "--algo", "difftori", "--env", "dm_control/cartpole-swingup", "-n", "40", *small, *common])
main(["enjoy", "--algo", "difftori", "--env", "dm_control/cartpole-swingup", "-n", "252", *play])
tune = "-optimize --n-trials 2 --n-evaluations 1 --eval-episodes 1 --no-optim-plots".split()
main(["train", "--algo", "tdmpc", "--env", "Pendulum-v1", "-n", "160", *tune, *common,
      "-params", "learning_starts:150", "planner_kwargs:dict(num_samples=8,num_elites=2,max_iterations=1)",
      "train_freq:20", "gradient_steps:1"])
"""


def test_training_playing_and_tuning(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, timeout=3000, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "logs/difftori/dm_control-cartpole-swingup_1/dm_control-cartpole-swingup.zip").exists()
    config = (
        tmp_path / "logs/difftori/dm_control-cartpole-swingup_1/dm_control-cartpole-swingup/config.yml"
    ).read_text()
    assert "schedule_steps" in config  # our presets, not those of another algorithm
    assert "Episode Reward" in done.stdout
    (report,) = (tmp_path / "logs" / "tdmpc").glob("report_Pendulum-v1_2-trials-*.csv")
    with report.open() as file:
        trials = list(csv.DictReader(file))
    assert [trial["state"] for trial in trials] == ["COMPLETE", "COMPLETE"]
    assert all(float(trial["value"]) < 0 for trial in trials)
    assert {int(trial["params_horizon"]) for trial in trials} <= set(range(1, 8))


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_files_are_the_presets(name):
    text = hyperparameters_file(name).read_text(encoding="utf-8")
    assert text == as_yaml(name), "run `python -m difftori_gym.zoo hyperparameters`"
    for id, found in yaml.safe_load(text).items():
        assert found.keys() - METHODS["rl"][name].hyperparameter_names() <= {
            "n_timesteps",
            "n_envs",
            "policy",
            "env_kwargs",
        }, id


def test_presets_of_the_measured_tasks():
    found = yaml.safe_load(hyperparameters_file("difftori").read_text(encoding="utf-8"))
    assert set(found) == {"default", *(task.id for task in TASKS)}
    assert found["dm_control/pendulum-swingup"]["exploration_kwargs"]["correlation"] == 0.95


def test_searched_settings_are_arguments_of_the_learners():
    assert convert({"batch_size_pow": 5, "one_minus_gamma": 0.25, "horizon": 2}) == {
        "batch_size": 32,
        "gamma": 0.75,
        "horizon": 2,
    }

    class Lowest:
        def suggest_float(self, name, low, high, *, log=False):
            return low

        def suggest_int(self, name, low, high):
            return low

    from difftori_gym.zoo.registration import _SAMPLERS

    for name in ALGORITHMS:
        suggested = _SAMPLERS[name](Lowest(), 1, 1, {})
        assert set(suggested) <= METHODS["rl"][name].hyperparameter_names()


def test_options_and_unknown_commands():
    command = "--env a -n 40 --eval-freq -1 --gym-packages b c -params d:1 --algo=e --gym-packages f"
    given = read_options(command.split(" "))
    assert (given.env, given.algo, given.gym_packages) == ("a", "e", ["b", "c", "f"])
    assert given.conf_file is None
    assert read_options(["-conf", "a.yml"]).conf_file == read_options(["--conf-file=a.yml"]).conf_file == "a.yml"
    with pytest.raises(SystemExit, match="train, enjoy"):
        main(["fly"])


MINE = """
import gymnasium as gym
from gymnasium.envs.classic_control.pendulum import PendulumEnv

gym.register("Mine-v0", PendulumEnv, max_episode_steps=20)
"""
OWN = f"""
from difftori_gym.zoo.__main__ import main

common = "--env Mine-v0 --gym-packages mine --device cpu --num-threads 1 -f logs".split()
main(["train", "--algo", "difftori", *common, "-n", "40", "--seed", "0", "--eval-freq", "-1", "--verbose", "0",
      "-params", *"{SMALL}".split()])
main(["enjoy", "--algo", "difftori", *common, "-n", "22", "--no-render"])
"""


def test_environments_of_a_package_of_ones_own(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    done = subprocess.run(
        [sys.executable, "-c", OWN], cwd=tmp_path, capture_output=True, text=True, timeout=3000, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "logs/difftori/Mine-v0_1/Mine-v0.zip").exists()
    assert "Episode Reward" in done.stdout


TUNE_TOGETHER = """
from difftori_gym.zoo.__main__ import main

small = "-n 160 --n-trials 2 --n-evaluations 1 --eval-episodes 1 --no-optim-plots -optimize --n-startup-trials 2"
shared = "--storage shared/study.log --study-name together"
main(["train", "--algo", "tdmpc", "--env", "Pendulum-v1", *small.split(), *shared.split(), *"COMMON".split(),
      "-params", "learning_starts:150", "planner_kwargs:dict(num_samples=8,num_elites=2,max_iterations=1)",
      "train_freq:20", "gradient_steps:1"])
"""


def test_two_processes_tune_one_study(tmp_path):
    from optuna import load_study
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    program = TUNE_TOGETHER.replace("COMMON", "--device cpu --num-threads 1 -f logs --eval-freq 100000 --verbose 0")
    both = [subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path) for _ in range(2)]
    assert [process.wait(timeout=600) for process in both] == [0, 0]
    study = load_study(
        study_name="together", storage=JournalStorage(JournalFileBackend(f"{tmp_path}/shared/study.log"))
    )
    ran = [trial for trial in study.trials if trial.state.is_finished()]
    assert len(ran) == 4
    assert len({tuple(sorted(trial.params.items())) for trial in ran}) == 4
