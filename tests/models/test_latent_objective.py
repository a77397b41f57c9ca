"""The fast gradient of the imagined return, against autograd's."""

from __future__ import annotations

import copy
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import nn

from difftori_gym.models import EnsembleCritic, LatentModel, LatentObjective, latent_return
from difftori_gym.models.call_lists.scan import MOST_ROWS, MOST_SHAPES
from difftori_gym.trajopt import TrajectoryOptimizer

Z, A = 6, 2


def make_model(arch: tuple[int, ...] = (8,), dtype: torch.dtype = torch.float64, **settings: Any) -> LatentModel:
    torch.manual_seed(0)
    archs = {f"{name}_arch": arch for name in ("dynamics", "reward", "qf", "pi")}
    model = LatentModel(Z, A, **{**archs, **settings}).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():  # the last layers start at zero, where a gradient could hide
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def make_objective(model: LatentModel, batch: int) -> LatentObjective:
    dtype = next(model.parameters()).dtype
    return LatentObjective(model, torch.randn(batch, Z, dtype=dtype), discount=0.97)


def make_actions(objective: LatentObjective, horizon: int) -> torch.Tensor:
    return 2 * torch.rand(len(objective.z0), horizon, A, dtype=objective.z0.dtype) - 1


def by_autograd(objective: LatentObjective, actions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.enable_grad():
        point = actions.clone().requires_grad_()
        value = objective(point)
        return value.detach(), torch.autograd.grad(value.sum(), point)[0]


def assert_equals_autograd(objective: LatentObjective, actions: torch.Tensor) -> None:
    value, gradient = objective.value_and_gradient(actions)
    expected_value, expected_gradient = by_autograd(objective, actions)
    assert gradient.abs().max() > 1e-3
    tolerance = 1e-10 if actions.dtype == torch.float64 else 1e-5
    for number, expected in ((value, expected_value), (gradient, expected_gradient)):
        torch.testing.assert_close(number, expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()))
        assert not number.requires_grad
        assert not number.is_inference()
        assert number.is_contiguous()
    alone = objective.value_only(actions)
    torch.testing.assert_close(alone, value, rtol=tolerance, atol=0)
    assert not alone.requires_grad
    assert not alone.is_inference()


@pytest.mark.parametrize("arch", [(), (8,), (8, 9), (8, 9, 7)])
@pytest.mark.parametrize("n_critics", [1, 2, 3])
@pytest.mark.parametrize("activation_fn", [nn.ELU, nn.ReLU, nn.Tanh])
@pytest.mark.parametrize(("batch", "horizon"), [(1, 1), (1, 3), (5, 4)])
@pytest.mark.parametrize("episodic", [False, True])
def test_equals_autograd(
    arch: tuple[int, ...], n_critics: int, activation_fn: type[nn.Module], batch: int, horizon: int, episodic: bool
) -> None:
    model = make_model(arch, n_critics=n_critics, activation_fn=activation_fn)
    model.episodic = episodic
    objective = make_objective(model, batch)
    assert objective._scans is not None, "this model is meant to be evaluated as lists of calls"
    assert_equals_autograd(objective, make_actions(objective, horizon))


@pytest.mark.parametrize("batch", [1, 70])
@pytest.mark.parametrize("arch", [(), (32,), (64, 64)])
@pytest.mark.parametrize("episodic", [False, True])
def test_equals_autograd_in_single_precision(arch: tuple[int, ...], batch: int, episodic: bool) -> None:
    model = make_model(arch, torch.float32)
    model.episodic = episodic
    objective = make_objective(model, batch)
    assert_equals_autograd(objective, make_actions(objective, 4))


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize(
    "archs",
    [
        {"dynamics_arch": (7, 9)},
        {"reward_arch": ()},
        {"reward_arch": (5, 6, 7), "pi_arch": ()},
        {"dynamics_arch": (), "qf_arch": (9,)},
    ],
)
def test_networks_may_differ(archs: dict[str, tuple[int, ...]], batch: int) -> None:
    objective = make_objective(make_model((8, 8), **archs), batch)
    assert objective._scans is not None
    assert_equals_autograd(objective, make_actions(objective, 3))


def test_samples_together_equal_each_alone() -> None:
    objective = make_objective(make_model(n_critics=3), 40)
    model, z, actions = objective.model, objective.z0, make_actions(objective, 1)
    with torch.no_grad():
        final, _ = model.next(z, actions[:, 0])
        values = model.Q(final, model.pi(final))  # [3, 40]
        for member, offset in zip(model.critic.members, values.median(dim=1).values, strict=True):
            member[-1].bias.sub_(offset)  # so that each is the least of some sample
        assert set(model.Q(final, model.pi(final)).argmin(dim=0).tolist()) == {0, 1, 2}
    together = objective.value_and_gradient(actions)
    alone = [
        LatentObjective(model, z[i : i + 1], discount=0.97).value_and_gradient(actions[i : i + 1]) for i in range(40)
    ]
    for number, parts in zip(together, zip(*alone, strict=True), strict=True):
        torch.testing.assert_close(number, torch.cat(parts), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("episodic", [False, True])
def test_a_broken_sample_stays_alone(episodic: bool) -> None:
    model = make_model()
    model.episodic = episodic
    objective = make_objective(model, 4)
    actions = make_actions(objective, 3)
    expected_value, expected_gradient = by_autograd(objective, actions)
    actions[2, 1] = torch.nan
    value, gradient = objective.value_and_gradient(actions)
    assert value[2].isnan()
    for number, expected in ((value, expected_value), (gradient, expected_gradient)):
        torch.testing.assert_close(number[[0, 1, 3]], expected[[0, 1, 3]])


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("n_critics", [1, 2, 3])
@pytest.mark.parametrize("broken", ["first", "last"])
def test_a_broken_critic_is_not_passed_over(batch: int, n_critics: int, broken: str) -> None:
    model = make_model((8,), n_critics=n_critics)
    with torch.no_grad():
        list(model.critic.members[0 if broken == "first" else -1].parameters())[-1].fill_(torch.nan)
    objective = make_objective(model, batch)
    value, _ = objective.value_and_gradient(make_actions(objective, 2))
    assert value.isnan().all()


def test_calls_do_not_disturb_each_other() -> None:
    objective = make_objective(make_model((8, 8)), 3)
    first, second, longer = (make_actions(objective, horizon) for horizon in (2, 2, 4))
    kept = first.clone()
    value, gradient = objective.value_and_gradient(first)
    results = value.clone(), gradient.clone()
    gradient.add_(1.0)  # the caller's own
    for actions in (second, longer, second):
        assert_equals_autograd(objective, actions)
    torch.testing.assert_close(objective.value_and_gradient(first), results, rtol=0, atol=0)
    torch.testing.assert_close(first, kept, rtol=0, atol=0)
    torch.testing.assert_close(value, results[0], rtol=0, atol=0)
    torch.testing.assert_close(gradient, results[1] + 1.0, rtol=0, atol=0)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_needs_no_graph_and_keeps_none(mode: Any) -> None:
    objective = make_objective(make_model((8, 8)), 1)
    objective.z0.requires_grad_()
    actions = make_actions(objective, 3).requires_grad_()
    expected = by_autograd(objective, actions.detach())
    with mode():
        value, gradient = objective.value_and_gradient(actions)
    torch.testing.assert_close((value, gradient), expected)
    assert not value.requires_grad
    assert not gradient.requires_grad
    assert all(parameter.grad is None for parameter in objective.model.parameters())
    if mode is not torch.inference_mode:  # may take part in what is differentiated
        (actions * gradient).sum().backward()
        torch.testing.assert_close(actions.grad, gradient)


class ResidualDynamics(LatentModel):
    def next(self, z: torch.Tensor, action: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        following, reward = super().next(z, action)
        return z + following, reward


class OptimistCritic(EnsembleCritic):
    def forward(self, state: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        return 1.0 + super().forward(state, action)


@pytest.mark.parametrize("case", ["unknown activation", "hooked", "hooked as a whole", "own next", "own critic"])
def test_falls_back_to_autograd(case: str) -> None:
    model = make_model(activation_fn=nn.SiLU if case == "unknown activation" else nn.ELU)
    if case.startswith("hooked"):
        module = model.dynamics[0] if case == "hooked" else model.dynamics
        module.register_forward_hook(lambda module, inputs, output: 2 * output)
    if case == "own next":
        model.__class__ = ResidualDynamics
    if case == "own critic":
        model.critic.__class__ = OptimistCritic
    objective = make_objective(model, 3)
    assert objective._scans is None
    actions = make_actions(objective, 2)
    with torch.no_grad():
        assert_equals_autograd(objective, actions)
        expected = latent_return(model, objective.z0, actions, discount=0.97)
        torch.testing.assert_close(objective(actions), expected)


@pytest.mark.parametrize("solver", ["lm", "adam"])
def test_a_model_that_has_seen_a_termination_plans_without_autograd(
    solver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model((8, 8))
    optimizer = TrajectoryOptimizer(solver=solver, max_iterations=5, num_starts=1, backward_mode="none")
    z, start = torch.randn(3, Z, dtype=torch.float64), torch.zeros(3, 4, A, dtype=torch.float64)
    before = optimizer(LatentObjective(model, z, discount=0.97), start)
    model.episodic = True
    expected = optimizer(lambda actions: latent_return(model, z, actions, discount=0.97), start)
    monkeypatch.setattr(torch.autograd, "grad", lambda *_, **__: pytest.fail("autograd was asked"))
    found = optimizer(LatentObjective(model, z, discount=0.97), start)
    torch.testing.assert_close(found.best_actions, expected.best_actions)
    torch.testing.assert_close(found.values, expected.values)
    assert not torch.allclose(found.values, before.values)


def test_autocast_is_autograd_s() -> None:
    objective = make_objective(make_model(dtype=torch.float32), 2)
    actions = make_actions(objective, 2)
    objective.value_and_gradient(actions)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(
            objective.value_and_gradient(actions), by_autograd(objective, actions), rtol=0, atol=0
        )


def test_states_and_actions_of_unequal_number_are_refused() -> None:
    objective = make_objective(make_model(), 1)
    with pytest.raises(RuntimeError, match=r"[Ss]izes"):
        objective.value_and_gradient(torch.zeros(3, 2, A, dtype=torch.float64))


def test_follows_the_weights() -> None:
    model = make_model()
    z, actions = torch.randn(2, Z, dtype=torch.float64), torch.zeros(2, 3, A, dtype=torch.float64)
    before = LatentObjective(model, z, discount=0.9).value_and_gradient(actions)[0]
    with torch.no_grad():
        model.reward[0].weight.mul_(2.0)
    objective = LatentObjective(model, z, discount=0.9)
    after = objective.value_and_gradient(actions)[0]
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, objective(actions).detach())


def change_in_place(model: LatentModel) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1).add_(0.05)


def change_behind_autograd(model: LatentModel) -> None:
    for parameter in model.parameters():  # as in Stable-Baselines3's polyak_update
        parameter.data.mul_(0.9)


def change_memory(model: LatentModel) -> None:
    for parameter in model.parameters():
        parameter.data = 1.2 * parameter.data


def change_dtype(model: LatentModel) -> None:
    model.float()


def change_layer(model: LatentModel) -> None:
    assert isinstance(model.reward[0], nn.Linear)
    model.reward[0] = nn.Linear(Z + A, 8, dtype=model.reward[0].weight.dtype)


def change_critic(model: LatentModel) -> None:
    model.critic.members[1] = copy.deepcopy(model.critic.members[0])


def see_a_termination(model: LatentModel) -> None:
    model.episodic = True


def add_hook(model: LatentModel) -> None:
    model.dynamics[0].register_forward_hook(lambda module, inputs, output: 2 * output)


@pytest.mark.parametrize("batch", [1, 6, 70])
@pytest.mark.parametrize(
    "change",
    [
        change_in_place,
        change_behind_autograd,
        change_memory,
        change_dtype,
        change_layer,
        change_critic,
        add_hook,
        see_a_termination,
    ],
)
def test_what_is_kept_from_plan_to_plan_follows_the_model(change: Any, batch: int) -> None:
    model = make_model((8, 8))
    for _ in range(2):
        objective = make_objective(model, batch)
        assert_equals_autograd(objective, make_actions(objective, 3))
        before = objective.value_and_gradient(torch.zeros(batch, 3, A, dtype=torch.float64))[0]
    change(model)
    after = LatentObjective(model, objective.z0.to(next(model.parameters()).dtype), discount=0.97)
    actions = make_actions(after, 3)
    assert_equals_autograd(after, actions)
    assert not torch.equal(after.value_and_gradient(torch.zeros_like(actions))[0].double(), before)


def test_objectives_of_one_model_take_turns() -> None:
    model = make_model((8, 8))
    objectives = [make_objective(model, batch) for batch in (3, 3, 1)]
    for horizon in (2, 4, 2):
        for objective in objectives * 2:
            assert_equals_autograd(objective, make_actions(objective, horizon))


def test_what_is_kept_is_bounded_and_goes_with_the_model() -> None:
    model = make_model((8, 8))
    for batch in (*range(1, 2 * MOST_SHAPES), MOST_ROWS + 1):
        objective = make_objective(model, batch)
        assert_equals_autograd(objective, make_actions(objective, 2))
        imagination = objective._scans
        assert imagination is not None
        assert len(imagination._by_shape) <= MOST_SHAPES
        assert all(len(scan._copies.due) < 50 for scan in imagination._by_shape.values())
    gone = weakref.ref(imagination)
    del imagination, objective, model
    assert gone() is None


def test_threads_keep_what_is_theirs() -> None:
    model = make_model((32, 32))
    objectives = [make_objective(model, 4) for _ in range(4)]
    actions = [make_actions(objective, 3) for objective in objectives]
    expected = [by_autograd(objective, plan) for objective, plan in zip(objectives, actions, strict=True)]

    def work(index: int) -> bool:
        for _ in range(100):
            objective = LatentObjective(model, objectives[index].z0, discount=0.97)
            value, gradient = objective.value_and_gradient(actions[index])
            if not (torch.allclose(value, expected[index][0]) and torch.allclose(gradient, expected[index][1])):
                return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


def test_copies_of_the_batch_have_the_same_values():
    objective = make_objective(make_model(), batch=3)
    actions = make_actions(objective, horizon=2)
    value, gradient = objective.value_and_gradient(actions)
    values, gradients = objective.repeat(4).value_and_gradient(actions.repeat(4, 1, 1))
    torch.testing.assert_close(values, value.repeat(4))
    torch.testing.assert_close(gradients, gradient.repeat(4, 1, 1))


@pytest.mark.parametrize("solver", ["mppi", "cem"])
def test_an_objective_serves_a_sampling_solver_after_another_one(solver):
    torch.manual_seed(0)
    arch = (16,)
    model = LatentModel(4, 2, dynamics_arch=arch, reward_arch=arch, qf_arch=arch, pi_arch=arch)
    objective, start = LatentObjective(model, torch.randn(3, 4), discount=0.9), torch.zeros(3, 2, 2)
    sampling = TrajectoryOptimizer(solver=solver, num_samples=8, num_elites=2, backward_mode="none")
    alone = sampling(objective, start, generator=torch.Generator().manual_seed(0))
    TrajectoryOptimizer(num_starts=1, backward_mode="none")(objective, start)
    after = sampling(objective, start, generator=torch.Generator().manual_seed(0))
    assert torch.equal(after.best_actions, alone.best_actions)
