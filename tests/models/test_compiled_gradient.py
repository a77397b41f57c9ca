"""The compiled gradient: same numbers, few graphs, and a silent way back where nothing can be compiled."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
import torch

from difftori_gym.models import LatentModel, LatentObjective, compiled_gradient

Z, A = 4, 2


@pytest.fixture(autouse=True)
def as_if_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_gradient, "_refused", set())


def make(batch: int, model: LatentModel | None = None, **settings: Any) -> tuple[LatentObjective, torch.Tensor]:
    torch.manual_seed(batch)
    arch = dict.fromkeys(("dynamics_arch", "reward_arch", "qf_arch", "pi_arch"), (8,))
    model = model or LatentModel(Z, A, **arch)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    objective = LatentObjective(model, torch.randn(batch, Z), discount=0.9, **settings)
    return objective, 2 * torch.rand(batch, 1, A) - 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, while it compiles
@pytest.mark.skipif(shutil.which("g++") is None and shutil.which("c++") is None, reason="no C++ compiler")
def test_same_numbers_and_one_graph_for_all_batches() -> None:
    first, _ = make(1)
    torch._dynamo.utils.counters.clear()
    for batch in (2, 3, 5, 4):
        objective, actions = make(batch, first.model, compile=True)
        value, gradient = objective.value_and_gradient(actions)
        assert not compiled_gradient._refused, "this machine is meant to compile"
        expected = LatentObjective(objective.model, objective.z0, discount=0.9).value_and_gradient(actions)
        torch.testing.assert_close((value, gradient), expected)
        assert not value.requires_grad
        assert not gradient.requires_grad
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_without_a_compiler_it_goes_on_without(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = []

    def compile_nothing(function: Any, **settings: Any) -> Any:
        attempts.append(function)

        def fail(*inputs: torch.Tensor) -> None:
            raise RuntimeError("no compiler")

        return fail

    monkeypatch.setattr(torch, "compile", compile_nothing)
    objective, actions = make(3, compile=True)
    plain = LatentObjective(objective.model, objective.z0, discount=0.9)
    for _ in range(2):
        assert all(map(torch.equal, objective.value_and_gradient(actions), plain.value_and_gradient(actions)))
    assert len(attempts) == 1, "found out once"


def test_nothing_is_compiled_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda *_, **__: pytest.fail("compiled"))
    objective, actions = make(3)
    objective.value_and_gradient(actions)
    compiled, _ = make(3, compile=True)  # the constructor does not
    assert compiled.repeat(2).compile
