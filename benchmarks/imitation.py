"""
Training step and inference of DiffTORI's imitation against the released coupled formulation and Diffusion Policy.

    python benchmarks/imitation.py --out results/benchmarks

The released MetaWorld code gives Theseus a whole batch as one problem: 128 samples x 16 actions are 2048 variables of
one scalar residual, the mean of 1000 - score, so that each of 100 iterations factorises a 2048 x 2048 matrix. It is
rebuilt here with the same networks (score 336-256-256-1 with ELU), step 3e-5, damping 0.01 and 5 differentiated
iterations. What is timed is the solution and the gradient of its squared error in the score's parameters; encoder and
posterior are the same on both sides and left out. "training step" is a whole step of the learner, encoder, posterior
and Adam included. --plans-only leaves out everything but plans for one observation, state and point cloud.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import theseus
import torch
from gymnasium import spaces
from tables import Job, medians, save_table
from torch import Tensor

from difftori_gym.baselines import BC, DiffusionPolicy
from difftori_gym.il import Demonstrations, DiffTORIImitation, Episode, ImitationAlgorithm
from difftori_gym.models import ChunkObjective, ChunkScore
from difftori_gym.trajopt import TrajectoryOptimizer

BATCH, HORIZON, ACTION_DIM, CONDITION_DIM = 128, 4, 4, 320
STATE_DIM, AGENT_DIM, POINTS = 39, 9, 512
SOLVED_ONLY = "lm per sample, 100 iterations, not differentiated"
PRODUCTS = "the matrix products of its iterations alone"
HEADINGS = {"what": "What", "median_ms": "median ms", "ratio": "released / this", "rounds": "rounds"}


def coupled_solution(score: ChunkScore, condition: Tensor, start: Tensor, iterations: int) -> Tensor:
    """The released code's problem: all samples in one vector, one residual."""
    batch = len(condition)
    variable = theseus.Vector(tensor=start.reshape(1, -1), name="actions")
    z = theseus.Variable(tensor=condition.reshape(1, -1), name="z")

    def residual(optim_vars: tuple[theseus.Vector], aux_vars: tuple[theseus.Variable]) -> Tensor:
        actions = optim_vars[0].tensor.reshape(batch, HORIZON, ACTION_DIM).clamp(-1.0, 1.0)
        return (1000.0 - score(aux_vars[0].tensor.reshape(batch, -1), actions)).mean().reshape(1, 1)

    objective = theseus.Objective()
    objective.add(theseus.AutoDiffCostFunction([variable], residual, 1, aux_vars=[z]))
    layer = theseus.TheseusLayer(
        theseus.LevenbergMarquardt(
            objective,
            theseus.CholeskyDenseSolver,
            max_iterations=iterations,
            step_size=3e-5,
            abs_err_tolerance=0.0,  # else it stops where the objective of a network that has learned nothing is flat
            rel_err_tolerance=0.0,
        )
    )
    found, _ = layer.forward(
        {"actions": start.reshape(1, -1), "z": condition.reshape(1, -1)},
        optimizer_kwargs=dict(
            track_best_solution=True, damping=0.01, backward_mode="truncated", backward_num_iterations=5
        ),
    )
    actions: Tensor = found["actions"].reshape(batch, HORIZON, ACTION_DIM)
    return actions


def own_solution(score: ChunkScore, condition: Tensor, start: Tensor, optimizer: TrajectoryOptimizer) -> Tensor:
    """The same networks, sample by sample."""
    return optimizer(ChunkObjective(score, condition), start).actions


def differentiate(solve: Callable[[], Tensor], score: ChunkScore, target: Tensor) -> None:
    loss = (solve() - target).square().mean()
    torch.autograd.grad(loss, list(score.parameters()), allow_unused=True)


def solver_jobs(batch: int, released_iterations: int) -> dict[str, Callable[[], object]]:
    """One solution with its derivative, by method."""
    torch.manual_seed(0)
    score = ChunkScore(CONDITION_DIM, HORIZON, ACTION_DIM)
    condition, start = torch.randn(batch, CONDITION_DIM), torch.rand(batch, HORIZON, ACTION_DIM) - 0.5
    target = torch.rand(batch, HORIZON, ACTION_DIM) - 0.5
    released = TrajectoryOptimizer(solver="lm", max_iterations=100, step_size=3e-5, damping=0.01)
    ours = default_optimizer()
    solutions = {
        "released: coupled Theseus, 100 iterations": partial(
            coupled_solution, score, condition, start, released_iterations
        ),
        "lm per sample, 100 iterations": partial(own_solution, score, condition, start, released),
        f"default per sample ({ours.solver}, {ours.max_iterations} iterations)": partial(
            own_solution, score, condition, start, ours
        ),
    }
    return {
        **{name: partial(differentiate, solve, score, target) for name, solve in solutions.items()},
        SOLVED_ONLY: partial(own_solution, score, condition, start, released.replace(backward_mode="none")),
        PRODUCTS: partial(multiply, score, batch, released.max_iterations),
    }


def multiply(score: ChunkScore, batch: int, iterations: int) -> None:
    """The products of value and gradient alone; that of the condition is the same in all iterations, and left out."""
    factors = []
    for layer in score.network.modules():
        if isinstance(layer, torch.nn.Linear):
            weight = layer.weight.detach()
            if layer.in_features > CONDITION_DIM:
                weight = weight[:, CONDITION_DIM:].contiguous()
            factors += [(torch.randn(batch, side.shape[0]), side) for side in (weight.t(), weight)]
    outputs = [torch.empty(batch, right.shape[1]) for _, right in factors]
    with torch.inference_mode():
        for _ in range(iterations):
            for (left, right), out in zip(factors, outputs, strict=True):
                torch.mm(left, right, out=out)


def job_name(name: str) -> str:
    """Name of a row."""
    return f"solve 128: {name}" if name in (SOLVED_ONLY, PRODUCTS) else f"solve and differentiate 128: {name}"


def default_optimizer() -> TrajectoryOptimizer:
    return make_models(state_demonstrations())["difftori"].trajectory_optimizer  # type: ignore[attr-defined]


def state_demonstrations() -> Demonstrations:
    """Numbers of MetaWorld's sizes; for times alone, nothing is learned from them."""
    rng = np.random.default_rng(0)
    space, actions = spaces.Box(-1.0, 1.0, (STATE_DIM,), np.float32), spaces.Box(-1.0, 1.0, (ACTION_DIM,), np.float32)
    episodes = [
        Episode(
            rng.uniform(-1, 1, (201, STATE_DIM)).astype(np.float32),
            rng.uniform(-1, 1, (200, ACTION_DIM)).astype(np.float32),
            np.zeros(200),
            False,
            True,
        )
        for _ in range(10)
    ]
    return Demonstrations(tuple(episodes), space, actions)


def cloud_demonstrations() -> Demonstrations:
    """The same for MetaWorld's point clouds, a few steps of them."""
    rng = np.random.default_rng(0)
    space = spaces.Dict(
        point_cloud=spaces.Box(-1.0, 1.0, (POINTS, 3), np.float32), agent_pos=spaces.Box(-1.0, 1.0, (AGENT_DIM,))
    )
    observations = {
        key: rng.uniform(-1, 1, (21, *entry.shape)).astype(np.float32)  # type: ignore[misc]
        for key, entry in space.spaces.items()
    }
    actions = spaces.Box(-1.0, 1.0, (ACTION_DIM,), np.float32)
    taken = rng.uniform(-1, 1, (20, ACTION_DIM)).astype(np.float32)
    return Demonstrations((Episode(observations, taken, np.zeros(20), False, True),), space, actions)


def make_models(demonstrations: Demonstrations) -> dict[str, ImitationAlgorithm]:
    """DiffTORI on behaviour cloning with published sizes, and diffusion with the same window."""
    policy = "MultiInputPolicy" if isinstance(demonstrations.observation_space, spaces.Dict) else "MlpPolicy"
    window = dict(n_obs_steps=2, horizon=HORIZON, n_action_steps=3)
    base = BC(policy, None, demonstrations, seed=0, device="cpu", **window)
    common = dict(seed=0, device="cpu", batch_size=BATCH, **window)
    return {
        "bc": base,
        "difftori": DiffTORIImitation(policy, None, demonstrations, base_policy=base, **common),
        "difftori, latent objective": DiffTORIImitation(
            policy, None, demonstrations, base_policy=base, objective="latent", **common
        ),
        "diffusion, 10 DDIM steps": DiffusionPolicy(policy, None, demonstrations, **common),
        "diffusion (simple_dp3), 10 DDIM steps": DiffusionPolicy(
            policy, None, demonstrations, size="simple_dp3", **common
        ),
    }


def plan_jobs(models: dict[str, ImitationAlgorithm], kind: str) -> dict[str, Callable[[], object]]:
    """A new plan for one observation, by model."""
    space = next(iter(models.values())).observation_space
    space.seed(0)
    return {f"plan for one {kind}: {name}": partial(plan, model, space.sample()) for name, model in models.items()}


def plan(model: ImitationAlgorithm, observation: Any) -> None:
    """One observation in, a new plan made."""
    model.predict(observation, deterministic=True)


def timed_rounds(jobs: dict[str, Job], rounds: int) -> dict[str, float]:
    """Median milliseconds over a number of rounds that is given."""
    return medians(jobs, seconds=0.0, max_rounds=rounds, min_rounds=rounds)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"), help="folder for imitation.md and .csv")
    parser.add_argument("--rounds", type=int, default=30, help="of everything but the released formulation")
    parser.add_argument("--released-rounds", type=int, default=3)
    parser.add_argument("--released-iterations", type=int, default=100, help="fewer for a quick look")
    parser.add_argument("--plans-only", action="store_true", help="time nothing but plans for one observation")
    args = parser.parse_args()
    torch.set_num_threads(1)

    models, clouds = make_models(state_demonstrations()), make_models(cloud_demonstrations())
    groups: list[dict[str, Job]] = [{**plan_jobs(models, "state"), **plan_jobs(clouds, "point cloud")}]
    rows: list[dict[str, object]] = []
    released_ms = None
    if not args.plans_only:
        jobs = solver_jobs(BATCH, args.released_iterations)
        released = next(iter(jobs))
        name = job_name(released)
        released_ms = timed_rounds({released: jobs.pop(released)}, args.released_rounds)[released]
        rows.append({"what": name, "median_ms": released_ms, "rounds": args.released_rounds})
        for model in models.values():
            model.learn(1)
        groups = [
            {job_name(name): job for name, job in jobs.items()},
            {f"training step of 128: {name}": partial(model.train, 1, BATCH) for name, model in models.items()},
            *groups,
        ]
    times = {name: ms for group in groups for name, ms in timed_rounds(group, args.rounds).items()}
    for name, ms in times.items():
        compared = released_ms and not name.startswith("plan") and ("difftori" in name or "per sample" in name)
        ratio = released_ms / ms if compared and released_ms else None
        rows.append({"what": name, "median_ms": ms, "ratio": ratio, "rounds": args.rounds})
    notes = [
        __doc__.strip().splitlines()[0],
        f"One process, one thread, processor time. State of {STATE_DIM} numbers, or {POINTS} points and "
        f"{AGENT_DIM} numbers; 2 observations, horizon 4, 4 actions.",
        f"{'Plans only' if args.plans_only else f'Released formulation with {args.released_iterations} iterations'}. "
        f"torch {torch.__version__}, {platform.machine()}.",
    ]
    print(save_table(rows, HEADINGS, notes, args.out, "imitation"))


if __name__ == "__main__":
    main()
