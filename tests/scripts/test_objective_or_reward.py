"""``scripts/objective_or_reward.py``: its measures on what is known, and its stages at tiny sizes."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PROGRAM = EXAMPLES.parent / "scripts" / "objective_or_reward.py"
FLOAT = torch.float64


@pytest.fixture(scope="module")
def questions():
    """The modules; what they import from examples/ is forgotten afterwards."""
    from reward_questions import drawing, known, metaworld, objectives, reinforcement, systems, table

    yield {
        module.__name__.rpartition(".")[2]: module
        for module in (drawing, known, metaworld, objectives, reinforcement, systems, table)
    }
    sys.path[:] = [place for place in sys.path if place != str(EXAMPLES)]
    for name in [name for name in sys.modules if name.startswith(("known_dynamics", "reward_questions"))]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def demonstrated(questions):
    systems = questions["systems"]
    return {name: systems.demonstrations_of(system, 2, 8, 0) for name, system in systems.SYSTEMS.items()}


def test_rank_correlation_sees_order_only(questions):
    values = torch.tensor([[3.0, 1.0, 2.0, 7.0], [1.0, 1.0, 2.0, 3.0]], dtype=FLOAT)
    spearman = questions["known"].spearman
    assert spearman(values, 5.0 * values.exp() - 3.0).tolist() == pytest.approx([1.0, 1.0])
    assert spearman(values, -values).tolist() == pytest.approx([-1.0, -1.0])
    assert spearman(values[:1], torch.tensor([[1.0, 2.0, 3.0, 4.0]])).item() == pytest.approx(0.4)
    assert spearman(values, torch.ones_like(values)).isnan().all()


@pytest.mark.parametrize("name", ["pendulum", "cart-pole"])
def test_the_true_cost_agrees_with_itself_and_an_offset_of_the_state_changes_nothing(name, questions, demonstrated):
    known, systems, objectives = (questions[module] for module in ("known", "systems", "objectives"))
    system, tested = systems.SYSTEMS[name], demonstrated[name]
    true = objectives.from_cost(system, system.cost)
    moved = objectives.Learned(lambda state, actions: 7.0 * true.values(state, actions) + 100.0 * state.sum(dim=1))
    for learned in (true, moved):
        rows = list(known.correlations(learned, system, tested, 8))[:3]
        assert [row["spearman"] for row in rows] == pytest.approx([1.0, 1.0, 1.0])
        assert min(row["expert_first"] for row in rows) > 0.95
    worst = objectives.Learned(lambda state, actions: -true.values(state, actions))
    rows = list(known.correlations(worst, system, tested, 8))[:3]
    assert [row["spearman"] for row in rows] == pytest.approx([-1.0, -1.0, -1.0])
    assert max(row["expert_first"] for row in rows) < 0.05


@pytest.mark.parametrize("name", ["pendulum", "cart-pole"])
def test_the_true_cost_has_no_regret_and_idleness_all_of_it(name, questions, demonstrated):
    known, systems, objectives = (questions[module] for module in ("known", "systems", "objectives"))
    system, start = systems.SYSTEMS[name], demonstrated[name].start
    true = objectives.from_cost(system, system.cost)
    idle = objectives.Learned(
        true.values, true.transferred, lambda state, rest: torch.zeros(len(state), 12, 1).double()
    )
    rows = {row["way"]: row["regret"] for row in known.regrets(idle, system, start, (0.5,))}
    assert rows == {"planned": pytest.approx(0.0), "policy": pytest.approx(1.0)}
    mistaken = objectives.from_cost(system, lambda state, action: -system.cost(state, action))
    assert next(known.regrets(mistaken, system, start, (1.0,)))["regret"] > 1.0


@pytest.mark.parametrize("name", ["pendulum", "cart-pole"])
def test_the_weights_of_the_cost_are_identified(name, questions, demonstrated):
    system = questions["systems"].SYSTEMS[name]
    found = questions["objectives"].identified_weights(system, demonstrated[name], 40)
    assert found == pytest.approx(system.true_weights, rel=0.02)


def test_the_weighted_cost_with_true_weights_orders_as_the_true_cost(questions, demonstrated):
    systems, known = questions["systems"], questions["known"]
    for name, system in systems.SYSTEMS.items():
        weighted = system.weighted(torch.tensor(system.true_weights, dtype=FLOAT))
        learned = questions["objectives"].from_cost(system, weighted)
        rows = list(known.correlations(learned, system, demonstrated[name], 8))[:3]
        assert [row["spearman"] for row in rows] == pytest.approx([1.0, 1.0, 1.0])


def test_a_known_quadratic_ranks_the_expert_first(questions):
    metaworld = questions["metaworld"]
    expert = torch.rand(50, 4, 2) - 0.5

    def quadratic(actions):
        return -(actions - expert).square().flatten(1).sum(dim=1)

    worse = metaworld.perturbed(expert, 0.02, torch.Generator().manual_seed(0))
    assert metaworld.accuracy(quadratic(expert), quadratic(worse)) == 1.0
    assert metaworld.accuracy(quadratic(worse), quadratic(expert)) == 0.0
    assert metaworld.accuracy(quadratic(expert), quadratic(expert)) == 0.5


def test_a_discriminator_prefers_the_expert(questions, demonstrated):
    systems, objectives = questions["systems"], questions["objectives"]
    system = systems.SYSTEMS["cart-pole"]
    recorded = objectives.recorded(system, demonstrated["cart-pole"])
    judge = questions["reinforcement"].Discriminator(recorded, torch.nn.Identity(), 0, every=10_000)
    pairs = [(each.observations[0], each.actions[0]) for each in recorded.episodes]
    for observation, action in pairs:
        judge(observation + 2.0, action)
    losses = [judge.update() for _ in range(60)]
    assert losses[-1] < losses[0]
    gain = [judge(observation, action) - judge(observation + 2.0, action) for observation, action in pairs]
    assert min(gain) > 0.0


def test_rows_that_are_there_are_not_measured_again(questions, tmp_path):
    table = questions["table"].Table(tmp_path / "some.csv", ("a", "b"), ("c",))
    table.replace([{"b": 1, "c": 0.123456789}, {"b": 2, "c": 1.0}], a="x")
    table.replace([{"b": 3, "c": 2.0}], a="y")
    table.replace([{"b": 4, "c": 5.0}], a="x")
    again = questions["table"].Table(tmp_path / "some.csv", ("a", "b"), ("c",))
    assert again.rows == [{"a": "y", "b": "3", "c": "2"}, {"a": "x", "b": "4", "c": "5"}]
    assert again.of(a="y")
    assert not again.of(a="y", b=4)
    with pytest.raises(ValueError, match="move it away"):
        questions["table"].Table(tmp_path / "some.csv", ("a",), ("c",))


def test_a_system_is_learned_from_and_drawn(questions, tmp_path):
    known, objectives = questions["known"], questions["objectives"]
    few = objectives.LearningSettings(steps=2, reward_steps=2, evaluations=2, identify_on=4)
    settings = known.KnownSettings(
        ("cart-pole",), seeds=(0,), starts=1, steps=8, tested=1, plans=8, factors=(0.5,), learning=few
    )
    tables = known.correlation_table(tmp_path), known.transfer_table(tmp_path)
    known.run(*tables, settings)
    measured = [list(table.rows) for table in tables]
    known.run(*tables, settings)
    assert [table.rows for table in tables] == measured
    with (tmp_path / "reward_transfer.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["learner"] for row in rows} == set(known.LEARNERS)
    assert {row["way"] for row in rows if row["learner"] == "f, latent dynamics"} == {"planned", "policy"}
    questions["drawing"].draw(tmp_path, tmp_path)
    assert {path.name for path in tmp_path.glob("*.png")} == {"reward_correlation.png", "reward_transfer.png"}


def test_demonstrations_are_ranked_and_reinforced(tmp_path):
    pytest.importorskip("metaworld")
    program = [sys.executable, PROGRAM, "--quick", "--seeds", "0", "--questions", "ranking", "reward"]
    refused = subprocess.run(program, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "expected --data of its own" in refused.stderr
    folders = [word for name in ("data", "figures", "demos") for word in (f"--{name}", tmp_path / name)]
    subprocess.run([*program, *folders], check=True)
    with (tmp_path / "data" / "reward_ranking.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["objective"] for row in rows} == {"chunk", "latent"}
    assert all(0.0 <= float(row["accuracy"]) <= 1.0 for row in rows)
    clone = [float(row["accuracy"]) for row in rows if row["score"] == "distance to clone"]
    assert max(clone) > min(clone)
    with (tmp_path / "data" / "reward_reinforcement.csv").open(newline="") as file:
        rewards = {row["reward"]: float(row["earned"]) for row in csv.DictReader(file)}
    assert rewards.keys() == {"clone", "objective", "discriminator"}
    assert rewards["discriminator"] > 0.0  # -log(1 - D)
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"reward_ranking.png", "reward_reward.png"}
