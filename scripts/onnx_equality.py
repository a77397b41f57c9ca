"""
How far the actions of an ONNX file are from torch's, on a rollout of a trained model.

    python scripts/onnx_equality.py results/demo/runs/difftori-cartpole-swingup-state-seed0 --steps 1000 --episodes 3

Beside it stands how far torch's actions for an observation in a batch of three are from those for it alone: both differ
by rounding only. Then the same episodes are run with torch and with the file.
"""

from __future__ import annotations

import argparse
import runpy
import tempfile
from pathlib import Path

import numpy as np

from difftori_gym.card.trained import find_trained
from difftori_gym.envs import make_vec_env
from difftori_gym.exports import export_onnx

DEPLOY = Path(__file__).resolve().parents[1] / "examples" / "deploy.py"
TOLERANCE = 1e-4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a model, or the folder of a run of compare.py, with vectors to see")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--episodes", type=int, default=3)
    parser.add_argument("--env", help="environment, where the model does not tell")
    args = parser.parse_args()

    trained = find_trained(args.run)
    model = trained.load("cpu")
    env = make_vec_env(args.env or trained.env, 1, **trained.environment)
    with tempfile.TemporaryDirectory() as folder:
        file = runpy.run_path(str(DEPLOY))["OnnxPolicy"](export_onnx(model, Path(folder) / "policy.onnx"))

    env.seed(5)
    observation, off = env.reset(), np.zeros((2, args.steps))
    for step in range(args.steps):
        action, _ = model.predict(observation, deterministic=True)
        three = np.concatenate([observation, observation + 0.1, observation - 0.1])
        in_three, _ = model.predict(three, deterministic=True)
        off[0, step] = np.abs(file.predict(observation[0]) - action[0]).max()
        off[1, step] = np.abs(in_three[0] - action[0]).max()
        observation, *_ = env.step(action)
    for name, each in zip(("file", "torch in a batch of three"), off, strict=True):
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
