"""
Levenberg-Marquardt by Theseus (Pineda et al. 2022, arXiv 2207.09442), the library DiffTORI's authors used.

What is added is one cost function: Theseus's own ``AutoDiffCostFunction`` wants every tensor that differs between
samples registered by name, and here the objective is a closure over such tensors, called on the whole batch. This
module is imported at the first solve with ``solver="theseus"``.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from difftori_gym.trajopt.iterates import IterateRecord, finite, finite_start
from difftori_gym.trajopt.linearization import linearize, value_of, value_only
from difftori_gym.trajopt.objective import FastObjective
from difftori_gym.trajopt.settings import Settings
from difftori_gym.trajopt.solution import Solution

try:
    with warnings.catch_warnings():
        # scikit-sparse serves only the sparse CHOLMOD solver, which is not used here.
        warnings.filterwarnings("ignore", message="Couldn't import skparse.cholmod", category=UserWarning)
        import theseus
except ImportError as error:
    raise ImportError(
        "solver='theseus' needs theseus-ai, which is not installed:\n"
        '    pip install torch numpy setuptools wheel && pip install --no-build-isolation "difftori-gym[theseus]"\n'
        "Its set-up imports torch. It requires scikit-sparse, which needs a compiler; docs/install.md does without."
    ) from error


def solve(objective: FastObjective, actions: Tensor, settings: Settings) -> Solution:
    """The iteration of ``solver="lm"`` by Theseus, not in closed form; ``bounds`` is not ``"project"``."""
    start, failed = finite_start(actions, settings.bounds)
    record = IterateRecord(failed)
    differentiable = settings.backward_mode != "none"
    cost = ScalarResidual(objective, start, settings, record)
    layer = _layer(cost, settings, record)
    with torch.set_grad_enabled(differentiable):
        found, _ = layer.forward(
            {cost.plan.name: start.flatten(1)},
            optimizer_kwargs={
                "damping": settings.damping,
                "adaptive_damping": False,
                "ellipsoidal_damping": False,
                "backward_mode": settings.backward_mode if differentiable else "unroll",
                "backward_num_iterations": min(settings.backward_num_iterations, settings.max_iterations),
            },
        )
        last = found[cost.plan.name].unflatten(1, start.shape[1:])
    # Theseus's objective is a reference cycle: it would keep the graph, and what the closure holds, until collected.
    layer.objective.erase(cost.name)
    usable = finite(last.detach()).all(dim=(1, 2))
    record.add_step(usable)
    last = torch.where(usable[:, None, None], last, start.detach())
    record.add(last, value_only(objective, last, settings))
    return record.solution(objective, last, settings.bounds)


def _layer(cost: ScalarResidual, settings: Settings, record: IterateRecord) -> Any:
    problem = theseus.Objective(dtype=cost.plan.dtype)
    problem.add(cost)
    problem.to(device=cost.plan.device)
    optimizer = theseus.LevenbergMarquardt(
        problem,
        linear_solver_cls=SampleWiseCholesky,
        linear_solver_kwargs={"record": record},
        # No early stop: every problem gets the iterations that were asked for.
        abs_err_tolerance=0.0,
        rel_err_tolerance=0.0,
        max_iterations=settings.max_iterations,
        step_size=settings.step_size,
    )
    return theseus.TheseusLayer(optimizer, vectorize=False)


class ScalarResidual(theseus.CostFunction):
    """The one residual of DiffTORI's problem, residual_offset - objective, for a whole batch at once."""

    def __init__(
        self,
        objective: FastObjective,
        start: Tensor,
        settings: Settings,
        record: IterateRecord,
        name: str | None = None,
    ) -> None:
        super().__init__(theseus.ScaleCostWeight(start.new_ones(1, 1)), name=name)
        self._objective, self._settings, self._record = objective, settings, record
        self._start = start
        self.plan = theseus.Vector(tensor=start.detach().flatten(1), name="plan")
        self.register_optim_vars(["plan"])

    def _actions(self) -> Tensor:
        flat: Tensor = self.plan.tensor
        return flat.unflatten(1, self._start.shape[1:])

    def dim(self) -> int:
        return 1

    def error(self) -> Tensor:
        """Residuals ``[B, 1]``."""
        return (self._settings.residual_offset - value_of(self._objective, self._actions(), self._settings))[:, None]

    def jacobians(self) -> tuple[list[Tensor], Tensor]:
        """Derivative of the residuals by the plan ``[B, 1, H * A]``, and residuals ``[B, 1]``."""
        differentiate = torch.is_grad_enabled()
        with torch.enable_grad():
            point, value, gradient = linearize(self._objective, self._actions(), self._settings, differentiate)
        self._record.add(point, value)
        # A sample whose numbers are broken shows Theseus a residual of zero, so that it takes no step.
        usable = finite(value.detach()) & finite(gradient.detach().square().sum(dim=(1, 2)))
        self._record.add_step(usable)
        value = torch.where(usable, value, self._settings.residual_offset)
        gradient = torch.where(usable[:, None, None], gradient, 0.0).flatten(1)
        if not differentiate:
            value = value.detach()
        return [-gradient[:, None, :]], (self._settings.residual_offset - value)[:, None]

    def _copy_impl(self, new_name: str | None = None) -> ScalarResidual:
        return ScalarResidual(self._objective, self._start, self._settings, self._record, name=new_name)


class SampleWiseCholesky(theseus.CholeskyDenseSolver):
    """
    Theseus's dense Cholesky solver, in which one matrix that cannot be factorised does not stop the whole batch.

    With one residual the matrix is a rank-one product plus damping; in float32 rounding makes it indefinite when the
    gradient is large. Theseus then raises for all samples, which is how DiffTORI's released code crashes.
    """

    def __init__(self, objective: Any, record: IterateRecord, **kwargs: Any) -> None:
        super().__init__(objective, **kwargs)
        self._record = record

    def solve(self, damping: float | Tensor | None = None, **kwargs: Any) -> Tensor:
        """Steps ``[B, H * A]``."""
        try:
            step: Tensor = super().solve(damping=damping, **kwargs)
        except torch.linalg.LinAlgError:
            step = self._solve_what_can_be(damping)
        return step

    def _solve_what_can_be(self, damping: float | Tensor | None) -> Tensor:
        identity = torch.eye(self.linearization.AtA.shape[-1]).to(self.linearization.AtA)
        matrix = self.linearization.AtA + (0.0 if damping is None else damping) * identity
        usable = torch.linalg.cholesky_ex(matrix.detach()).info == 0  # [B]
        self._record.add_step(usable)
        keep = usable[:, None, None]
        factor = torch.linalg.cholesky(torch.where(keep, matrix, identity))
        return torch.cholesky_solve(torch.where(keep, self.linearization.Atb, 0.0), factor).squeeze(2)
