"""What a comparison accepts, and what it refuses before anything starts."""

import copy
import sys

import pytest

from difftori_gym.baselines.methods import METHODS
from difftori_gym.comparison import ComparisonSettings, Run, plan_runs
from difftori_gym.envs import make_vec_env


def settings(tmp_path, **changes):
    asked = dict(methods=("sac", "ppo"), tasks=("Pendulum-v1",), seeds=(0, 1), frames=1000, out=tmp_path)
    return ComparisonSettings(**{**asked, **changes})


def test_runs_are_methods_times_tasks_times_seeds(tmp_path):
    runs = plan_runs(settings(tmp_path, tasks=("Pendulum-v1", "MountainCarContinuous-v0")))
    assert [run.name for run in runs] == [
        f"{method}-{task}-state-seed{seed}"
        for task in ("Pendulum-v1", "MountainCarContinuous-v0")
        for method in ("sac", "ppo")
        for seed in (0, 1)
    ]
    assert {run.eval_freq for run in runs} == {100}
    assert {run.suite for run in runs} == {"gymnasium"}


def test_frames_are_environment_frames(tmp_path):
    pytest.importorskip("dm_control")
    (run,) = plan_runs(settings(tmp_path, methods=("sac",), tasks=("dm_control/ball_in_cup-catch",), seeds=(0,)))
    assert (run.suite, run.task, run.action_repeat, run.amount, run.steps) == (
        "dm_control",
        "cup-catch",
        2,
        1000,
        500,
    )
    assert run.name == "sac-cup-catch-state-seed0"


def test_settings_of_the_observation_reach_the_run_and_its_command(tmp_path):
    pytest.importorskip("dm_control")
    asked = dict(methods=("sac",), tasks=("dm_control/cartpole-swingup",), seeds=(0,), obs="pixels")
    (run,) = plan_runs(settings(tmp_path, **asked, obs_kwargs={"size": 48, "grey": True}))
    assert run.env_kwargs["obs_kwargs"] == {"size": 48, "grey": True}
    assert """--obs-kwargs '{"size": 48, "grey": true}'""" in run.command()
    run.write(tmp_path / "runs" / run.name)
    with pytest.raises(ValueError, match=r"obs_kwargs was \{'size': 48, 'grey': True\}, now \{\}"):
        plan_runs(settings(tmp_path, **asked))
    with pytest.raises(ValueError, match="Unknown obs_kwargs 'colour'"):
        plan_runs(settings(tmp_path / "other", **asked, obs_kwargs={"colour": True}))


def test_another_action_repeat_reaches_the_run_and_its_command(tmp_path):
    asked = dict(methods=("sac",), tasks=("dm_control/cartpole-swingup",), seeds=(0,))
    (preset,) = plan_runs(settings(tmp_path, **asked))
    (run,) = plan_runs(settings(tmp_path, **asked, action_repeat=8))
    assert (preset.action_repeat, preset.steps) == (4, 250)
    assert (run.action_repeat, run.steps) == (8, 125)
    assert "--action-repeat 8" in run.command()


def test_a_preset_of_a_suite_holds_for_its_tasks():
    preset = METHODS["rl"]["difftori"].hyperparameters
    assert preset("metaworld/reach")["reward_scale"] == preset("metaworld/button-press")["reward_scale"] == 0.1
    assert preset("metaworld/reach", {"reward_scale": 1.0})["reward_scale"] == 1.0
    assert "reward_scale" not in preset("dm_control/walker-walk")


def test_presets_overrides_and_fixed_values_come_together(tmp_path):
    runs = plan_runs(settings(tmp_path, overrides={"sac": {"learning_rate": 5e-4}}))
    sac, ppo = runs[0].hyperparameters, runs[2].hyperparameters
    assert sac["learning_rate"] == 5e-4
    assert sac["batch_size"] == METHODS["rl"]["sac"].default["batch_size"]
    assert ppo["gamma"] == 0.9  # Pendulum's own line
    assert METHODS["rl"]["difftori_nopg"].hyperparameters("dm_control/walker-walk")["pg_coef"] == 0.0
    with pytest.raises(ValueError, match=r"difftori_nopg is defined by pg_coef=0\.0, got 1\.0"):
        METHODS["rl"]["difftori_nopg"].hyperparameters("dm_control/walker-walk", {"pg_coef": 1.0})


@pytest.mark.parametrize("name", ["sac", "td3", "ppo"])
def test_building_a_learner_leaves_its_presets_alone(name):
    method = METHODS["rl"][name]
    before = copy.deepcopy(method.hyperparameters("dm_control/walker-walk"))
    env = make_vec_env("Pendulum-v1", seed=0)
    model = method.build(env, seed=0, device="cpu", hyperparameters=method.hyperparameters("dm_control/walker-walk"))
    assert model.learning_rate == before["learning_rate"]
    assert method.hyperparameters("dm_control/walker-walk") == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ("sac", "sax")}, r"Unknown method 'sax'\. Methods: difftori, "),
        ({"tasks": ("Pendulm-v1",)}, r"Unknown environment 'Pendulm-v1'\. Choices: Pendulum-v1"),
        ({"tasks": ("CartPole-v1",)}, r"on gymnasium/CartPole-v1 expected a Box action space, got Discrete\(2\)"),
        ({"methods": ("drqv2",)}, "drqv2 learns from pixels observations, got obs='state'"),
        ({"obs": "touch"}, "sac learns from state or pixels or pointcloud observations, got obs='touch'"),
        ({"device": "tpu"}, "--device must be auto, cpu or cuda, got 'tpu'"),
        (
            {"overrides": {"sac": {"learning_rat": 1}}},
            r"no hyper-parameter 'learning_rat'\. Did you mean: learning_rate",
        ),
        (
            {"methods": ("tdmpc",), "overrides": {"tdmpc": {"horizn": 3}}},
            r"tdmpc has no hyper-parameter 'horizn'\. Did .* horizon",
        ),
        ({"overrides": {"td3": {}}}, "--set names 'td3', which is not among the methods sac, ppo"),
        (
            {"tasks": ("MountainCarContinuous-v0", "Pendulum-v1", "gymnasium/Pendulum-v1")},
            "--tasks needs tasks of different names, got gymnasium/Pendulum-v1, gymnasium/Pendulum-v1",
        ),
    ],
)
def test_what_cannot_run_is_told_before_anything_starts(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        plan_runs(settings(tmp_path, **changes))
    assert list(tmp_path.iterdir()) == []


def test_unbounded_actions_are_refused(tmp_path):
    pytest.importorskip("dm_control")
    with pytest.raises(ValueError, match="lqr-lqr-2-1 expected finite action bounds"):
        plan_runs(settings(tmp_path, tasks=("dm_control/lqr-lqr_2_1",)))


def test_a_missing_suite_names_its_install_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "dm_control", None)
    with pytest.raises(ImportError, match=r"difftori-gym\[dm_control\]"):
        plan_runs(settings(tmp_path, tasks=("dm_control/walker-walk",)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": 0}, "--frames must be at least 1, got 0"),
        ({"jobs": 0}, "--jobs must be at least 1, got 0"),
        ({"eval_freq": 0}, "--eval-freq must be at least 1, got 0"),
        ({"action_repeat": 0}, "--action-repeat must be at least 1, got 0"),
        ({"eval_episodes": 0}, "--eval-episodes must be at least 1, got 0"),
        ({"n_envs": 0}, "--n-envs must be at least 1, got 0"),
        ({"seeds": (1, 1)}, "--seeds needs one or more different values"),
        ({"seeds": ()}, "--seeds needs one or more different values"),
        ({"seeds": (-1,)}, "--seeds must be at least 0, got -1"),
    ],
)
def test_numbers_out_of_range_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        settings(tmp_path, **changes)


def test_settings_survive_the_disk(tmp_path):
    (run, *_) = plan_runs(settings(tmp_path))
    run.write(tmp_path / "runs" / run.name)
    assert Run.read(tmp_path / "runs" / run.name / "run.json") == run


def test_a_folder_is_continued_with_its_own_settings_only(tmp_path):
    (run, *_) = plan_runs(settings(tmp_path))
    run.write(tmp_path / "runs" / run.name)
    more = plan_runs(settings(tmp_path, frames=5000, device="cpu", video=False))
    assert {run.eval_freq for run in more} == {100}  # not a tenth of the new frames
    with pytest.raises(
        ValueError, match=r"sac-Pendulum-v1-state-seed0 was made with other settings: batch_size was 256, now 8"
    ):
        plan_runs(settings(tmp_path, overrides={"sac": {"batch_size": 8}}))
    with pytest.raises(ValueError, match="n_envs was 1, now 2"):
        plan_runs(settings(tmp_path, n_envs=2))
    with pytest.raises(ValueError, match="eval_freq was 100, now 50"):
        plan_runs(settings(tmp_path, eval_freq=50))


@pytest.mark.parametrize("text", ["{", "[]", '{"frames": 3}', '{"version": 1, "settings": {"frames": 3}}'])
def test_a_broken_folder_is_told_by_name(tmp_path, text):
    (run, *_) = plan_runs(settings(tmp_path))
    run.write(tmp_path / "runs" / run.name)
    (tmp_path / "runs" / run.name / "run.json").write_text(text)
    with pytest.raises(ValueError, match=r"run\.json .*Use another --out"):
        plan_runs(settings(tmp_path))
