"""
Which solver and backward mode gives the gradient of an imitation loss, measured against finite differences.

The loss is that of the cart-pole whose masses and length are unknown, at the first guess. Its true gradient is that of
the maximum of the objective: what central differences of a converged solver give.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from known_dynamics_cartpole import FIRST_GUESS, IdentifySettings, expert_plans, imitation_loss
from known_dynamics_learning import Demonstrations
from torch import Tensor

from difftori_gym.trajopt import TrajectoryOptimizer

CONVERGED = TrajectoryOptimizer(solver="newton", max_iterations=15, backward_mode="none")
DIFFERENCE = 1e-4
"""Of the logarithms, for central differences."""
SOLVERS: dict[str, TrajectoryOptimizer] = {
    "newton": TrajectoryOptimizer(solver="newton", max_iterations=8),
    "adam": TrajectoryOptimizer(solver="adam", max_iterations=200, num_starts=1),
    "lm": TrajectoryOptimizer(solver="lm", max_iterations=100, step_size=1e-3, damping=0.01),
}


@dataclass(frozen=True)
class ModeResult:
    """
    :param solver: key of ``SOLVERS``
    :param iterations: of the solver
    :param backward_mode: of the optimiser; ``"truncated"`` differentiates 5 iterations
    :param loss_error: loss over that of the converged solver, minus 1
    :param gradient_error: length of the difference from the true gradient, over the true gradient's
    :param cosine: of the angle between the two, nan for a gradient of zero
    :param seconds: processor time to plan and differentiate
    """

    solver: str
    iterations: int
    backward_mode: str
    loss_error: float
    gradient_error: float
    cosine: float
    seconds: float


def compare_modes(settings: IdentifySettings, solvers: dict[str, TrajectoryOptimizer] = SOLVERS) -> list[ModeResult]:
    """
    :param settings: number and length of the expert's plans
    :param solvers: by name
    :return: one line for each solver and backward mode
    """
    demonstrations = expert_plans(settings)
    loss, gradient = _reference(demonstrations)
    results = []
    for name, solver in solvers.items():
        for mode in ("implicit", "unroll", "truncated"):
            logarithms = _guess().requires_grad_()
            begin = time.process_time()
            found = imitation_loss("physics", logarithms, demonstrations, solver.replace(backward_mode=mode))
            (slope,) = torch.autograd.grad(found, logarithms)
            seconds = time.process_time() - begin
            error = ((slope - gradient).norm() / gradient.norm()).item()
            cosine = (slope @ gradient / (slope.norm() * gradient.norm())).item()
            excess = found.item() / loss - 1.0
            results.append(ModeResult(name, solver.max_iterations, mode, excess, error, cosine, seconds))
    return results


def _guess() -> Tensor:
    return torch.tensor(FIRST_GUESS["physics"], dtype=torch.float64).log()


def _reference(demonstrations: Demonstrations) -> tuple[float, Tensor]:
    """Loss of the converged solver and its gradient ``[3]``."""
    loss = imitation_loss("physics", _guess(), demonstrations, CONVERGED).item()
    slopes = []
    for change in DIFFERENCE * torch.eye(3, dtype=torch.float64):
        above = imitation_loss("physics", _guess() + change, demonstrations, CONVERGED)
        below = imitation_loss("physics", _guess() - change, demonstrations, CONVERGED)
        slopes.append((above - below) / (2.0 * DIFFERENCE))
    return loss, torch.stack(slopes)
