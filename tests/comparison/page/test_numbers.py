"""The numbers behind the page; those over many tasks against rliable, whose definitions they follow."""

import numpy as np
import pytest

from difftori_gym.comparison.page import numbers
from difftori_gym.comparison.results import group_rows
from difftori_gym.comparison.statistics import aggregate, probability_of_improvement, share_above

LABELS = {"difftori": "DiffTORI", "tdmpc": "TD-MPC", "sac": "SAC"}
STREAM = np.random.default_rng(1)
ONE, OTHER = STREAM.random((5, 7)), STREAM.random((3, 7)).round(1)
ONE[:2] = ONE[:2].round(1)  # equal scores count half


def by_task(scores):
    return list(scores.T)


def test_values_are_those_of_rliable():
    metrics = pytest.importorskip("rliable.metrics")
    library = pytest.importorskip("rliable.library")
    assert aggregate(by_task(ONE)).value == pytest.approx(metrics.aggregate_iqm(ONE))
    expected = metrics.probability_of_improvement(ONE, OTHER)
    assert probability_of_improvement(by_task(ONE), by_task(OTHER)).value == pytest.approx(expected)
    thresholds = np.linspace(0, 1, 11)
    profiles, _ = library.create_performance_profile({"one": ONE}, thresholds, reps=10)
    assert [share_above(at, by_task(ONE)).value for at in thresholds] == pytest.approx(profiles["one"])


def test_intervals_are_those_of_rliable():
    metrics = pytest.importorskip("rliable.metrics")
    library = pytest.importorskip("rliable.library")
    _, intervals = library.get_interval_estimates(
        {"one": ONE}, lambda x: np.array([metrics.aggregate_iqm(x)]), reps=2000
    )
    estimate = aggregate(by_task(ONE))
    assert [estimate.low, estimate.high] == pytest.approx(intervals["one"][:, 0], abs=0.02)


def test_tasks_may_have_different_numbers_of_runs():
    ragged = [np.array([0.1, 0.2]), np.array([0.5, 0.6, 0.7])]
    assert aggregate(ragged).value == pytest.approx(np.mean([0.2, 0.5, 0.6]))
    assert aggregate([*ragged, np.array([0.9])]).low is None  # one run tells nothing of how runs differ


def test_only_tasks_that_all_methods_have_count(rows):
    rows = [row for row in rows if (row.task, row.method) != ("cheetah-run", "sac")]
    (overall,) = numbers.overall(group_rows(rows), ())
    assert len(overall["tasks"]) == 2
    assert {name: method["runs"] for name, method in overall["methods"].items()} == {
        "difftori": 4,
        "tdmpc": 4,
        "sac": 4,
    }
    rows = [row for row in rows if row.method != "sac" or row.task == "hopper-stand"]
    (overall,) = numbers.overall(group_rows(rows), ())  # with SAC one task would be left
    assert set(overall["methods"]) == {"difftori", "tdmpc"}
    assert len(overall["tasks"]) == 3


def test_returns_without_a_common_scale_are_not_pooled(evaluation):
    rows = [evaluation(task, suite="gymnasium", seed=seed) for task in ("Hopper-v5", "Ant-v5") for seed in (0, 1)]
    assert numbers.overall(group_rows(rows), ()) == []


def test_success_is_a_scale(evaluation):
    common = dict(suite="metaworld", demos=10, frames=0, steps=500)
    rows = [
        evaluation(task, method, seed, successes=successes, **common)
        for task in ("reach", "push")
        for method, successes in (("bc", 3), ("mip", 9))
        for seed in (0, 1)
    ]
    (overall,) = numbers.overall(group_rows(rows), ())
    assert overall["methods"]["mip"]["iqm"] == [0.9, 0.9, 0.9]
    assert overall["better"]["mip"]["bc"] == [1.0, 1.0, 1.0]


def test_score_against_processor_time_is_the_newest_until_then(rows):
    rows = [row for row in rows if row.method == "sac"]
    (overall,) = numbers.overall(group_rows(rows), ())
    reached = [score for score, _, _ in overall["methods"]["sac"]["reached"]]
    assert overall["seconds"][-1] == 10.0
    assert reached[-1] == overall["methods"]["sac"]["iqm"][0]
    assert reached[0] == reached[11] < reached[12]  # the second evaluation came after five seconds


def test_differences_are_paired_by_seed(evaluation):
    scores = {("sac", 0): 10.0, ("sac", 1): 30.0, ("tdmpc", 0): 15.0, ("tdmpc", 1): 36.0, ("tdmpc", 2): 99.0}
    rows = [evaluation(method=method, seed=seed, score=score) for (method, seed), score in scores.items()]
    (difference,) = numbers.differences(group_rows(rows), LABELS)
    assert difference["pairs"] == 2
    assert {difference["one"], difference["other"]} == {"sac", "tdmpc"}
    sign = 1 if difference["one"] == "tdmpc" else -1
    assert difference["gain"] == [sign * 5.5, *sorted((sign * 5.0, sign * 6.0))]


def test_differences_over_all_tasks(rows):
    found = numbers.differences(group_rows(rows), LABELS)
    assert [each["task"] for each in found].count(None) == 3
    assert {each["pairs"] for each in found} == {2, 6}


@pytest.mark.parametrize("axis", ["amount", "wall", "cpu"])
def test_curves_have_all_axes(rows, axis):
    (panel, *_) = numbers.panels(group_rows(rows), published=False)
    curve = panel["curves"]["sac"]
    assert curve[axis] == {"amount": [0, 1000, 2000], "wall": [0, 10, 20], "cpu": [0, 5, 10]}[axis]
    assert curve["seeds"] == [2, 2, 2]


def test_published_lines_name_their_source(evaluation):
    rows = [evaluation(frames=frames) for frames in (0, 500_000)]
    (panel,) = numbers.panels(group_rows(rows), published=True)
    assert panel["published"]
    assert all(each["source"] and max(each["x"]) <= 500_000 for each in panel["published"])
    assert numbers.panels(group_rows(rows), published=False)[0]["published"] == []
