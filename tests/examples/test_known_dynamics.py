"""``examples/known_dynamics.py``: what it shows is true on the small setting, and its files are written."""

import csv
import importlib
import math
import sys
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="module", autouse=True)
def examples_on_path():
    """The modules of the example import each other by their bare names, as a program that is started does."""
    sys.path.insert(0, str(EXAMPLES))
    yield
    sys.path.remove(str(EXAMPLES))
    for name in [name for name in sys.modules if name.startswith("known_dynamics")]:
        del sys.modules[name]


def load(name):
    return importlib.import_module(name)


def test_the_cart_pole_swings_up_and_stays():
    cartpole = load("known_dynamics_cartpole")
    driven = cartpole.swing_up(cartpole.SwingUpSettings(angles=(math.pi,), steps=80))
    assert driven.states[0, 0, 1] == pytest.approx(math.pi)
    assert driven.seconds_to_upright()[0] < 2.5
    assert driven.greatest_angle_of_last_second()[0] < 0.05
    assert driven.actions.abs().max() <= 1.0


def test_a_pole_that_falls_again_does_not_count_as_upright():
    cartpole = load("known_dynamics_cartpole")
    states = torch.zeros(1, 41, 4)
    states[0, 40, 1] = 0.5
    driven = cartpole.SwingUp(states, torch.zeros(1, 40, 1), ())
    assert driven.seconds_to_upright()[0] == math.inf
    assert driven.greatest_angle_of_last_second()[0] == pytest.approx(0.5)


@pytest.mark.parametrize("pole_mass", [0.1, 0.4])
def test_a_free_cart_pole_keeps_its_energy(pole_mass):
    systems = load("known_dynamics_systems")
    cart_mass, half_length = 1.0, 0.5
    dynamics = systems.CartPole(torch.tensor([cart_mass, pole_mass, half_length], dtype=torch.float64))
    state = torch.tensor([[0.0, 1.0, 0.3, 0.0]], dtype=torch.float64)

    def energy(state):
        _, theta, dx, dtheta = state.unbind(dim=1)
        moving = 0.5 * (cart_mass + pole_mass) * dx**2 + pole_mass * half_length * dx * dtheta * theta.cos()
        turning = 2.0 / 3.0 * pole_mass * half_length**2 * dtheta**2
        return moving + turning + pole_mass * 9.81 * half_length * theta.cos()

    # An Euler step errs in proportion to its length: a hundredth of the usual one is nearly exact.
    step, systems.TIME_STEP = systems.TIME_STEP, systems.TIME_STEP / 100.0
    try:
        states = systems.rollout(dynamics, state, torch.zeros(1, 1000, 1, dtype=torch.float64))
    finally:
        systems.TIME_STEP = step
    energies = energy(states[0])
    assert (energies - energies[0]).abs().max() < 0.01 * pole_mass * 9.81
    assert states[0, :, 1].max() - states[0, :, 1].min() > 1.0


def test_masses_and_length_are_recovered_from_actions():
    cartpole = load("known_dynamics_cartpole")
    settings = cartpole.IdentifySettings(demonstrations=6, horizon=12, evaluations=25)
    found = cartpole.identify("physics", settings)
    assert min(found.losses) < 1e-4 * found.losses[0]
    assert found.learned == pytest.approx(found.true, rel=0.02)
    assert found.history[0] == pytest.approx(cartpole.FIRST_GUESS["physics"])


@pytest.mark.parametrize(("name", "cost"), [("undamped", 12.20801), ("damped", 10.08868)])
def test_the_expert_is_that_of_the_released_code(name, cost):
    """Costs of the plans that mpc.pytorch 0.0.6 finds (50 iterations) on the ten test states of Amos et al."""
    pendulum = load("known_dynamics_pendulum")
    study = pendulum.PendulumImitation(name, pendulum.ImitationSettings(held_out=1))
    assert study.expert[:10].mean().item() == pytest.approx(cost, abs=2e-3)


def test_imitation_improves_the_plans_and_finds_the_true_structure():
    learning, pendulum = load("known_dynamics_learning"), load("known_dynamics_pendulum")
    few = learning.LearningSettings(steps=150, learning_rate=0.1)
    study = pendulum.PendulumImitation("undamped", pendulum.ImitationSettings(physics=few, held_out=1))
    before = study._learned("guess", lambda: (pendulum.Pendulum(study._guess()), pendulum.pendulum_cost), [], 0.0)
    after = study._physics("true structure", study._guess())
    assert before.test_ratio > 1.1
    assert after.test_ratio < 1.02
    assert after.losses[-1] < 0.1 * after.losses[0]


def test_the_command_writes_tables(tmp_path, capsys):
    known_dynamics = load("known_dynamics")
    assert known_dynamics.main(["--experiment", "modes", "--quick", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "modes.md").read_text().startswith("| solver |")
    with open(tmp_path / "modes.csv", encoding="utf-8") as file:
        errors = {row["backward mode"]: float(row["gradient error"]) for row in csv.DictReader(file)}
    assert errors["implicit"] < 1e-4
    assert errors["unroll"] < 1e-2
    assert "modes" in capsys.readouterr().out
