"""
Environment frames per second of DiffTORI and Stable-Baselines3's SAC and TD3 on batched environments.

    python benchmarks/batched_environments.py --n-envs 1 64 --out results/benchmarks
    python benchmarks/batched_environments.py --device cuda --n-envs 1024 --steps 200 --out results/benchmarks

DiffTORI learns on the tensor path: observations, actions, rewards and replay buffer stay on the device. SAC and TD3
learn on the same environments through the ``VecEnv``. All collect one step of every environment, then make
``--gradient-steps`` updates, so that the updates per frame fall as the environments become more. Compilation,
environment construction and the first steps are not counted. For a GPU install JAX's CUDA build beside torch's:
pip install "jax[cuda12]==0.7.1".
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from stable_baselines3 import SAC, TD3
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from tables import save_table

from difftori_gym import DiffTORI, make_vec_env
from difftori_gym.wrappers import TensorVecEnv

METHODS = ("tensors", "vec_env", "difftori", "difftori_numpy", "sac", "td3")
OFF_POLICY = {"sac": SAC, "td3": TD3}
NAMES = {
    "tensors": "environments alone, tensors",
    "vec_env": "environments alone, through the VecEnv",
    "difftori": "DiffTORI",
    "difftori_numpy": "DiffTORI, through the VecEnv",
    "sac": "SAC, through the VecEnv",
    "td3": "TD3, through the VecEnv",
}


def env_job(env: TensorVecEnv, method: str) -> Callable[[int], None]:
    """Random actions, on the device or from the host."""

    def run(steps: int) -> None:
        space = env.action_space
        for _ in range(steps):
            actions = 2.0 * torch.rand(env.num_envs, *space.shape, device=env.device) - 1.0
            if method == "tensors":
                env.step_tensor(actions)
            else:
                env.step(actions.cpu().numpy())

    env.reset()
    return run


def learner_job(env: TensorVecEnv, method: str, args: argparse.Namespace) -> Callable[[int], None]:
    """One step of every environment, then the updates; nothing random is collected in the measured time."""
    model = learner(env, method, args)
    model.learn(0)

    def run(steps: int) -> None:
        model.learn(steps * env.num_envs, reset_num_timesteps=False)

    return run


def learner(env: TensorVecEnv, method: str, args: argparse.Namespace) -> OffPolicyAlgorithm:
    """A learner of the measured settings."""
    settings = dict(
        learning_starts=args.warmup * env.num_envs // 2,
        batch_size=args.batch_size,
        buffer_size=200_000,
        train_freq=1,
        gradient_steps=args.gradient_steps,
        seed=0,
        device=args.device,
    )
    if method in OFF_POLICY:
        return OFF_POLICY[method]("MlpPolicy", env, **settings)
    if method == "difftori_numpy":
        from difftori_gym.rl.sequence_buffer import SequenceReplayBuffer

        settings["replay_buffer_class"] = SequenceReplayBuffer
    return DiffTORI("MlpPolicy", env, schedule_steps=0, **settings)


def synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def measure(method: str, n_envs: int, args: argparse.Namespace) -> dict[str, object]:
    env = make_vec_env(args.task, n_envs=n_envs, seed=0)
    assert isinstance(env, TensorVecEnv), f"{args.task} does not step in tensors"
    frames_per_step = n_envs * env.batch.action_repeat
    job = env_job(env, method) if method in ("tensors", "vec_env") else learner_job(env, method, args)
    job(args.warmup)
    synchronize(args.device)
    wall, processor = time.perf_counter(), time.process_time()
    job(args.steps)
    synchronize(args.device)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    env.close()
    frames = args.steps * frames_per_step
    row: dict[str, object] = {
        "method": NAMES[method],
        "n_envs": n_envs,
        "fps": round(frames / wall, 1),
        "fps_processor": round(frames / processor, 1),
        "ms": 1000.0 * processor / args.steps,
        "updates": "" if method in ("tensors", "vec_env") else f"{args.gradient_steps / n_envs:.4f}",
    }
    print(
        f"measured {NAMES[method]}, {n_envs}: {row['fps']} frames/s, {row['fps_processor']} per processor second",
        flush=True,
    )
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="playground/cartpole-swingup", help="a task that steps in tensors")
    parser.add_argument("--n-envs", type=int, nargs="+", default=[1, 64], help="numbers of environments")
    parser.add_argument("--device", default="cpu", help="cpu or cuda, of the learners; JAX takes a GPU if it can")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--gradient-steps", type=int, default=1, help="updates per step of all environments")
    parser.add_argument("--batch-size", type=int, default=256, help="windows or transitions per update")
    parser.add_argument("--steps", type=int, default=40, help="measured steps of all environments")
    parser.add_argument("--warmup", type=int, default=10, help="steps before that, half of them random")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"), help="folder of the tables")
    args = parser.parse_args()

    if args.device == "cpu":
        torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = [measure(method, n_envs, args) for n_envs in args.n_envs for method in args.methods]
    headings = {
        "method": "method",
        "n_envs": "environments",
        "fps": "frames/s",
        "fps_processor": "frames per second of processor time",
        "ms": "processor time of a step of all, ms",
        "updates": "updates per agent step",
    }
    device = torch.cuda.get_device_name() if args.device.startswith("cuda") else "one CPU thread"
    notes = [
        f"{args.task}, {device}: {args.steps} steps of all environments after {args.warmup} that are not counted; "
        f"{args.gradient_steps} update(s) of {args.batch_size} per step of all.",
        f"torch {torch.__version__}.",
    ]
    print(save_table(rows, headings, notes, args.out, "batched_environments"))


if __name__ == "__main__":
    main()
