"""What a comparison of imitation methods accepts and refuses, and what it says about its results."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from gymnasium import spaces

from difftori_gym.baselines.methods import METHODS
from difftori_gym.baselines.presets import merged
from difftori_gym.comparison import ComparisonSettings, Run, plan_ablation, plan_runs
from difftori_gym.comparison.report import _differences_table, _overall_section
from difftori_gym.comparison.results import Row, group_rows, read_rows, write_rows
from difftori_gym.comparison.statistics import differences, wilson
from difftori_gym.data.published import OUR_ENTRY, published_successes
from difftori_gym.il import CosineSchedule, Demonstrations, Episode

pytest.importorskip("metaworld")


def settings(tmp_path, **changes):
    asked = dict(methods=("difftori",), tasks=("metaworld/reach",), seeds=(0,), out=tmp_path, demos=10)
    return ComparisonSettings(**{**asked, **changes})


def row(entry, seed, successes, task="reach", **changes):
    method, _, base = entry.partition("+")
    fields = dict(
        suite="metaworld", task=task, obs="state", demos=10, variant="", steps=100, wall_s=1.5, cpu_s=1.5, episodes=20
    )
    own = dict(method=method, base=base, seed=seed, successes=successes, frames=0, dead_starts=None)
    return Row(**{**fields, **own, "episode_return": -3.25, "plan_ms": 4.5, "n_action_steps": 3, **changes})


def test_base_policies_come_first_and_are_shared(tmp_path):
    asked = settings(tmp_path, methods=("bcrnn", "residual", "difftori", "bc"), base=("bc", "diffusion"), seeds=(0, 1))
    collection, *runs = plan_runs(asked)
    assert collection.name == "collect-reach-state"
    entries = ["bc", "diffusion", "bcrnn", "residual+bc", "residual+diffusion", "difftori+bc", "difftori+diffusion"]
    assert [run.name for run in runs] == [
        f"{entry}-reach-state-demos10-seed{seed}" for entry in entries for seed in (0, 1)
    ]
    by_name = {run.name: run for run in runs}
    assert by_name["difftori+diffusion-reach-state-demos10-seed1"].needs == (
        "collect-reach-state",
        "diffusion-reach-state-demos10-seed1",
    )
    assert by_name["bc-reach-state-demos10-seed0"].needs == ("collect-reach-state",)
    assert {run.env_kwargs["max_episode_steps"] for run in runs} == {200}
    assert {run.amount for run in runs} == {50_000}
    for run in runs:
        run.write(tmp_path)
        assert Run.read(tmp_path / "run.json") == run


def test_flow_matching_and_mip_are_methods_and_bases(tmp_path):
    asked = settings(tmp_path, methods=("flow", "residual", "difftori"), base=("mip", "flow"), size="small")
    runs = plan_runs(asked)[1:]
    entries = ["mip", "flow", "residual+mip", "residual+flow", "difftori+mip", "difftori+flow"]
    assert [run.entry for run in runs] == entries
    assert [run.base_run for run in runs[2:]] == [f"{base}-reach-state-demos10-seed0" for base in ("mip", "flow")] * 2
    assert [run.hyperparameters.get("size") for run in runs] == ["small", "small", None, None, None, None]


def test_one_word_stands_for_the_papers_tasks(tmp_path):
    asked = settings(tmp_path, methods=("diffusion", "difftori"), base=("diffusion",), tasks=("metaworld/paper",))
    planned = plan_runs(replace(asked, obs="pointcloud", seeds=(0, 1, 2)))
    runs = [run for run in planned if run.kind == "imitation"]
    assert len({run.task for run in runs}) == len(planned) - len(runs) == 22
    assert len(runs) == 22 * 2 * 3
    assert {run.obs for run in runs} == {"pointcloud"}


def test_other_settings_of_an_existing_run_are_refused(tmp_path):
    _, base, run = plan_runs(settings(tmp_path))
    run.write(tmp_path / "runs" / run.name)
    assert plan_runs(settings(tmp_path, video=False))[1].name == base.name
    with pytest.raises(ValueError, match=r"planner_kwargs was None, now ..max_iterations.: 3."):
        plan_runs(settings(tmp_path, overrides={"difftori": {"planner_kwargs": {"max_iterations": 3}}}))
    with pytest.raises(ValueError, match=r"steps was 50000, now 7; cosine.*; size was .published., now .small."):
        plan_runs(settings(tmp_path, steps=7, size="small"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            dict(methods=("sac",)),
            "Unknown imitation method 'sac'. Methods: bc, bcrnn, ibc, diffusion, flow, mip, resid",
        ),
        (dict(base=("residual",)), "--base needs a method that stands alone, such as bc or diffusion, got 'residual'"),
        (dict(size="tiny"), "Unknown size 'tiny'. Choices: published, small."),
        (dict(tasks=("dm_control/cartpole-swingup",)), "has no scripted expert"),
        (dict(overrides={"difftori": {"planner_kwarg": {}}}), "Did you mean: planner_kwargs"),
        (
            dict(overrides={"ibc": {"sampling": "dfo"}}),
            "--set names 'ibc', which is not among the methods bc, difftori",
        ),
        (dict(demos=0), "--demos must be at least 1, got 0"),
        (dict(demos=None), "expected --frames NUMBER for reinforcement learning or --demos NUMBER for imitation"),
        (dict(leave_out=("demo_3",)), "--leave-out names episodes of --demos-from PATH, got no such path"),
        (
            dict(demos_from="two", leave_out=("demo_3",), tasks=("metaworld/reach", "metaworld/push")),
            "--leave-out names episodes of one data set, which serves one task",
        ),
        (dict(demos_from="nowhere"), "expected a data set of metaworld/reach, or a folder with one named reach-state"),
    ],
)
def test_what_cannot_be_done_is_refused(tmp_path, changes, message):
    if "demos_from" in changes:
        changes = {**changes, "demos_from": tmp_path / changes["demos_from"]}
    with pytest.raises(ValueError, match=re.escape(message)):
        plan_runs(settings(tmp_path, **changes))


def test_ablations_vary_one_thing(tmp_path):
    start = plan_ablation("start", settings(tmp_path))[1:]
    assert [(run.entry, run.hyperparameters.get("planner_kwargs", {}).get("init")) for run in start] == [
        ("bc", None),
        ("difftori+bc-start=base_policy", None),
        ("difftori-start=zero", "zero"),
        ("difftori-start=random", "random"),
    ]
    base, *horizons = plan_ablation("horizon", settings(tmp_path, base=("diffusion",)))[1:]
    assert (base.entry, base.hyperparameters["horizon"]) == ("diffusion", 8)
    assert [run.hyperparameters["horizon"] for run in horizons] == [1, 2, 3, 4, 5, 8]
    assert {run.hyperparameters["n_action_steps"] for run in [base, *horizons]} == {1}
    assert {run.base_run for run in horizons} == {base.name}
    latent = plan_ablation("latent", settings(tmp_path))[2:]
    assert [run.hyperparameters["latent_dim"] for run in latent] == [64, 0]


@pytest.mark.parametrize("size", ["published", "small"])
@pytest.mark.parametrize("kind", ["state", "pixels", "pointcloud"])
@pytest.mark.parametrize("name", list(METHODS["imitation"]))
def test_presets_are_accepted_by_the_learners(name, kind, size):
    method = METHODS["imitation"][name]
    keywords = method.hyperparameters("metaworld/reach", obs=kind, size=size)
    assert json.loads(json.dumps(keywords)) == keywords  # they are stored so
    space = {
        "state": spaces.Box(-1, 1, (39,), np.float32),
        "pixels": spaces.Box(0, 255, (9, 84, 84), np.uint8),
        "pointcloud": spaces.Dict(
            point_cloud=spaces.Box(-1, 1, (64, 3), np.float32), agent_pos=spaces.Box(-1, 1, (9,), np.float32)
        ),
    }[kind]
    observation = space.sample()
    stacked = {key: np.stack([value] * 13) for key, value in observation.items()} if kind == "pointcloud" else None
    episode = Episode(stacked or np.stack([observation] * 13), np.zeros((12, 4), np.float32), np.zeros(12), False, True)
    demonstrations = Demonstrations((episode,), space, spaces.Box(-1, 1, (4,), np.float32))
    unet = name in ("diffusion", "flow", "mip")
    if not (unet and size == "published" and kind != "pointcloud"):
        if name == "diffusion":
            pytest.importorskip("diffusers")
        base = None
        if method.needs_base:
            small = METHODS["imitation"]["bc"].hyperparameters("", {"policy_kwargs": {"net_arch": [8]}}, kind, "small")
            base = METHODS["imitation"]["bc"].build(
                demonstrations, base_policy=None, seed=0, device="cpu", hyperparameters=small
            )
        if unet and size == "published":
            keywords = {**keywords, "size": "small"}  # hundreds of millions of weights
        model = method.build(demonstrations, base_policy=base, seed=0, device="cpu", hyperparameters=keywords)
        assert (model.policy.image_shift is None) == (kind == "pixels")
        if "cosine_learning_rate" in keywords:
            assert isinstance(model.learning_rate, CosineSchedule)
            assert model.lr_schedule(1.0) == pytest.approx(keywords["cosine_learning_rate"])


def test_dictionaries_in_presets_are_merged():
    first = dict(a=1, policy_kwargs=dict(net_arch=[8], depth=2))
    assert merged(first, dict(policy_kwargs=dict(depth=3)), dict(a=2)) == dict(
        a=2, policy_kwargs=dict(net_arch=[8], depth=3)
    )
    assert first["policy_kwargs"]["depth"] == 2


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    # Newcombe (1998), Statistics in Medicine 17, table I: 81 of 263, 15 of 148, 0 of 20; and 29 of 29
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (29, 29, 0.8830, 1.0)],
)
def test_wilsons_interval(successes, trials, low, high):
    estimate = wilson(successes, trials)
    assert estimate.value == successes / trials
    assert estimate.low == pytest.approx(low, abs=5e-5)
    assert estimate.high == pytest.approx(high, abs=5e-5)


def test_published_rates_are_found():
    (dp3,) = published_successes("metaworld", "sweep-into")
    assert (dp3.method, dp3.success, dp3.std) == ("DP3", 0.15, 0.05)
    square = {row.method: row.success for row in published_successes("robosuite", "Square")}
    assert (square["DiffTORI+BC-RNN"], square["BC-RNN"]) == (0.9, 0.82)
    assert len(published_successes("pusht", "PushT")) == 8
    assert {row.method for row in published_successes("maniskill", "PickCube")} == {"BC", "Residual+BC", "DiffTORI+BC"}
    assert published_successes("metaworld", "reach") == []
    assert all(entry.split("+")[0] in METHODS["imitation"] for entry in OUR_ENTRY.values())


def test_rows_are_read_as_they_were_written(tmp_path):
    rows = [row("bc", 0, 7), row("difftori+bc", 1, None, variant="horizon=3", steps=50)]
    write_rows(tmp_path / "results.csv", rows)
    assert read_rows(tmp_path / "results.csv") == rows
    assert rows[1].label == "DiffTORI (+BC), horizon=3"
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="must have the columns suite,task"):
        read_rows(tmp_path / "other.csv")


def test_differences_are_paired_by_task_and_seed():
    rows = []
    for task, shift in (("reach", 0), ("push", 8)):
        for seed in (0, 1):
            rows.append(row("bc", seed, 2 + shift + seed, task))
            rows.append(row("residual+bc", seed, 3 + shift + seed, task))
            rows.append(row("difftori+bc", seed, 5 + shift + seed, task))
    rows.append(row("bc", 0, 0, steps=10))  # an earlier evaluation
    rows.append(row("bc", 2, 20))  # a seed that the others do not have
    groups = group_rows(rows)
    text = "\n".join([*_overall_section(groups), *_differences_table(differences(groups))])
    assert "| DiffTORI (+BC) | BC | 2 | 4 | 15.0 [15.0, 15.0] | points of success |" in text
    assert "| DiffTORI (+BC) | Residual (+BC) | 2 | 4 | 10.0 [10.0, 10.0] | points of success |" in text
    assert "| Residual (+BC) | BC | 2 | 4 | 5.0 [5.0, 5.0] | points of success |" in text
    assert "| BC | 2 | 5 | 46.0 [" in text
