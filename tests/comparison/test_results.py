"""Tables, statistics and published curves."""

from dataclasses import replace

import numpy as np
import pytest

from difftori_gym.comparison.results import Row, collect_rows, group_rows, read_rows, write_rows
from difftori_gym.comparison.statistics import area_under_curve, bootstrap, dead_starts, interquartile_mean
from difftori_gym.data.published import published_curves, published_means

TASK = dict(suite="dm_control", task="cup-catch", obs="state", demos=0, method="sac", base="", variant="", seed=0)
ROW = Row(
    **TASK,
    **dict(frames=4000, steps=2000, wall_s=12.5, cpu_s=11.5, episodes=4, episode_return=345.25),
    **dict(successes=None, dead_starts=1, plan_ms=None, n_action_steps=1),
)


def test_the_columns_are_those_of_the_contract(tmp_path):
    rows = [ROW, replace(ROW, successes=2), replace(ROW, demos=10, method="difftori", base="bc", plan_ms=4.5)]
    write_rows(tmp_path / "results.csv", rows)
    first, *lines = (tmp_path / "results.csv").read_text().splitlines()
    assert first == (
        "suite,task,obs,demos,method,base,variant,seed,frames,steps,wall_s,cpu_s,episodes,episode_return,successes,"
        "dead_starts,plan_ms,n_action_steps"
    )
    assert lines == [
        "dm_control,cup-catch,state,0,sac,,,0,4000,2000,12.50,11.50,4,345.2500,,1,,1",
        "dm_control,cup-catch,state,0,sac,,,0,4000,2000,12.50,11.50,4,345.2500,2,1,,1",
        "dm_control,cup-catch,state,10,difftori,bc,,0,4000,2000,12.50,11.50,4,345.2500,,1,4.500,1",
    ]
    assert read_rows(tmp_path / "results.csv") == rows
    assert [row.label for row in rows[1:]] == ["SAC", "DiffTORI (+BC)"]
    assert [(row.kind, row.amount, row.success) for row in rows[1:]] == [
        ("rl", 4000, 0.5),
        ("imitation", 2000, None),
    ]


def test_a_table_with_other_columns_is_refused(tmp_path):
    (tmp_path / "results.csv").write_text("suite,task\na,b\n")
    with pytest.raises(ValueError, match="must have the columns suite,task,obs"):
        read_rows(tmp_path / "results.csv")


def test_a_table_that_a_spreadsheet_saved(tmp_path):
    path = tmp_path / "results.csv"
    write_rows(path, [ROW, ROW])
    path.write_bytes(("\ufeff" + path.read_text().replace("\n", "\r\n")).encode())
    assert read_rows(path) == [ROW, ROW]


@pytest.mark.parametrize("change", [("sac", "sac,sac"), (",12.50,", ",,"), (",12.50,", ",12.5O,"), (",11.50,4", "")])
def test_a_damaged_line_is_named(tmp_path, change):
    path = tmp_path / "results.csv"
    write_rows(path, [ROW, ROW])
    path.write_text(path.read_text().replace(*change, 1))
    with pytest.raises(ValueError, match=r"results.csv, line 2: expected suite,task,.*Correct or remove that line"):
        read_rows(path)


def test_a_missing_table_is_empty(tmp_path):
    assert read_rows(tmp_path / "results.csv") == []


def test_runs_are_merged_in_order(tmp_path):
    rows = [replace(ROW, seed=seed, frames=frames) for seed in (1, 0) for frames in (0, 400)]
    for seed in (1, 0):
        directory = tmp_path / "runs" / f"run{seed}"
        directory.mkdir(parents=True)
        write_rows(directory / "results.csv", [row for row in rows if row.seed == seed])
    merged = collect_rows(tmp_path)
    assert [(row.seed, row.frames) for row in merged] == [(0, 0), (0, 400), (1, 0), (1, 400)]
    assert read_rows(tmp_path / "results.csv") == merged
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.csv", "runs"]


def test_methods_are_grouped_in_the_order_of_the_registry():
    rows = [replace(ROW, method=method, seed=seed) for method in ("sac", "difftori") for seed in (1, 0)]
    (methods,) = group_rows(rows).values()
    assert list(methods) == ["difftori", "sac"]
    assert list(methods["sac"]) == [0, 1]


def test_the_interquartile_mean_leaves_out_a_quarter_at_each_end():
    assert interquartile_mean(np.array([1000.0, 2, 3, -1000])) == 2.5
    assert interquartile_mean(np.array([1.0, 2, 3])) == 2
    np.testing.assert_array_equal(interquartile_mean(np.array([[0.0, 1, 2, 9], [9, 4, 6, 0]])), [1.5, 5])


def test_the_bootstrap_covers_the_true_mean_as_often_as_it_says():
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        estimate = bootstrap(rng.normal(5.0, 1.0, size=30))
        hits += estimate.low <= 5.0 <= estimate.high
    assert 0.88 <= hits / 200 <= 0.99


def test_the_bootstrap_repeats_and_knows_its_limits():
    assert bootstrap([1.0, 2.0, 4.0]) == bootstrap([1.0, 2.0, 4.0])
    assert (bootstrap([3.0]).value, bootstrap([3.0]).low, bootstrap([3.0]).high) == (3.0, None, None)
    estimate = bootstrap([2.0, 2.0])
    assert (estimate.low, estimate.value, estimate.high) == (2.0, 2.0, 2.0)


def test_the_area_is_the_mean_height_over_uneven_frames():
    rows = [replace(ROW, frames=frames, episode_return=value) for frames, value in ((0, 0.0), (100, 10.0), (400, 10.0))]
    assert area_under_curve(rows) == pytest.approx((0.5 * 10 * 100 + 10 * 300) / 400)
    assert area_under_curve(rows[:1]) == 0.0


def test_published_returns_are_those_of_the_sources():
    curves = {curve.method: curve for curve in published_curves("dm_control", "cartpole-swingup", "state")}
    assert set(curves) == {"TD-MPC", "TD-MPC2", "TD-MPC (TD-MPC2 paper)", "SAC", "DreamerV3"}
    tdmpc = curves["TD-MPC"]
    assert tdmpc.num_seeds == 5
    assert tdmpc.mean[list(tdmpc.frames).index(40000)] == pytest.approx((667 + 513 + 397 + 589 + 703) / 5)
    (twice,) = [
        curve
        for curve in published_curves("dm_control", "pendulum-swingup", "state")
        if curve.method.startswith("TD-MPC (")
    ]
    assert twice.num_seeds == 4  # two different runs are called seed 3
    assert twice.mean[1] == pytest.approx((280.0 + 800.1 + 349.0 + 100.0) / 4)
    assert "nicklashansen/tdmpc " in tdmpc.source
    assert "nicklashansen/tdmpc2 " in curves["SAC"].source
    assert all((np.diff(curve.frames) > 0).all() for curve in curves.values())


def test_a_published_line_is_drawn_where_it_was_measured_only():
    curves = {curve.method: curve for curve in published_curves("dm_control", "cartpole-swingup", "state")}
    assert curves["TD-MPC"].within(40000)
    assert not curves["SAC"].within(40000)  # every 100k frames
    assert curves["SAC"].within(100000)


def test_other_suites_and_observations_have_their_own_curves():
    assert published_curves("gymnasium", "Pendulum-v1", "state") == []
    assert [curve.method for curve in published_curves("dm_control", "walker-walk", "pixels")] == ["TD-MPC2"]


@pytest.mark.parametrize(
    ("returns", "count"), [([900, 850, 3, 910, 0], 2), ([900, 90.1, 800], 0), ([0, 0, 500], 0), ([-900, -90, -9], 0)]
)
def test_dead_starts_are_below_a_tenth_of_the_median(returns, count):
    assert dead_starts(np.array(returns, dtype=np.float64)) == count


def test_published_means_are_those_of_the_sources():
    means = {curve.method: curve for curve in published_means("dm_control", "cheetah-run", "state")}
    bro = means["BRO (10 updates per frame)"]
    assert list(bro.frames) == [100_000, 200_000, 500_000, 1_000_000]
    assert list(bro.mean[:2]) == [530.9, 679.7]
    assert (bro.num_seeds, "Apache-2.0" in bro.source) == (5, True)
    assert published_means("metaworld", "push", "state") == []
