"""
How far the actions of an ONNX file are from torch's, on a rollout of a trained model.

    python scripts/onnx_equality.py results/demo/runs/difftori-cartpole-swingup-state-seed0 --steps 1000 --episodes 3
    python scripts/onnx_equality.py examples/policies/cartpole-swingup.safetensors

Beside it stands how far torch's actions for an observation in a batch of three are from those for it alone, and how far
file and torch are from torch with float64: all differ by rounding only. Then the same episodes are run with torch and
with the file.
"""

from __future__ import annotations

import argparse
import copy
import json
import runpy
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from difftori_gym.card.trained import find_trained
from difftori_gym.envs import make_vec_env
from difftori_gym.exports import export_onnx, load_export
from difftori_gym.rl import DiffTORIPolicy

DEPLOY = Path(__file__).resolve().parents[1] / "examples" / "deploy.py"
TOLERANCE = 1e-4


def in_float64(policy: DiffTORIPolicy) -> Callable[[np.ndarray], np.ndarray]:
    """:return: observations of a vector to the first actions of plans, as predict would with float64"""
    exact = copy.deepcopy(policy)
    exact.encoder.double()
    exact.model.double()
    norm = exact.observation_norm
    low, high = policy.action_space.low, policy.action_space.high

    @torch.no_grad()
    def act(observation: np.ndarray) -> np.ndarray:
        x: Any = torch.as_tensor(observation, dtype=torch.float64)
        z = exact.encoder(x if norm is None else norm.double()(x))
        solution = exact.planner.for_acting().plan(exact.model, z, exact.horizon)
        action: np.ndarray = solution.best_actions[:, 0].numpy()
        return low + (action + 1.0) * 0.5 * (high - low)

    return act


def model_and_env(run: Path, env: str | None) -> tuple[Any, Any]:
    """:return: what acts, and its environment"""
    if run.suffix == ".safetensors":
        known = json.loads((run.parent / "policies.json").read_text())[run.stem]
        return load_export(run, "cpu"), make_vec_env(known["env"], 1, action_repeat=known["action_repeat"])
    trained = find_trained(run)
    return trained.load("cpu"), make_vec_env(env or trained.env, 1, **trained.environment)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a model, a run of compare.py, or one of examples/policies, of vectors")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--episodes", type=int, default=3)
    parser.add_argument("--env", help="environment, where the model does not tell")
    args = parser.parse_args()

    model, env = model_and_env(args.run, args.env)
    policy = getattr(model, "policy", model)
    exact = in_float64(policy) if type(policy) is DiffTORIPolicy and policy.planner.init != "warm" else None
    with tempfile.TemporaryDirectory() as folder:
        file = runpy.run_path(str(DEPLOY))["OnnxPolicy"](export_onnx(model, Path(folder) / "policy.onnx"))

    env.seed(5)
    observation, off = env.reset(), np.full((4, args.steps), np.nan)
    for step in range(args.steps):
        action, _ = model.predict(observation, deterministic=True)
        three = np.concatenate([observation, observation + 0.1, observation - 0.1])
        in_three, _ = model.predict(three, deterministic=True)
        own = file.predict(observation[0])
        off[0, step] = np.abs(own - action[0]).max()
        off[1, step] = np.abs(in_three[0] - action[0]).max()
        if exact is not None:
            true = exact(observation)[0]
            off[2:, step] = np.abs(own - true).max(), np.abs(action[0] - true).max()
        observation, *_ = env.step(action)
    names = "file", "torch in a batch of three", "file and float64", "torch and float64"
    for name, each in zip(names, off, strict=True):
        if np.isnan(each).any():
            continue
        above = int((each > TOLERANCE).sum())
        print(f"{name}: median {np.median(each):.1e}, largest {each.max():.1e}, above {TOLERANCE:g}: {above}")

    for name in ("torch", "file"):
        env.seed(100)
        observation, returns = env.reset(), [0.0]
        file.reset()
        while len(returns) <= args.episodes:
            acts = model.predict(observation, deterministic=True)[0] if name == "torch" else None
            action = file.predict(observation[0])[None] if acts is None else acts
            observation, rewards, dones, _ = env.step(action)
            returns[-1] += float(rewards[0])
            if dones[0]:
                file.reset()
                returns.append(0.0)
        print(f"{name}: mean return {np.mean(returns[:-1]):.2f} of {args.episodes} episodes")
    env.close()


if __name__ == "__main__":
    main()
