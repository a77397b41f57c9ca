"""
DiffTORI on an environment, from the first step to the last evaluation: a file to copy and to change.

    python examples/train_rl.py --env dm_control/cartpole-swingup --steps 10000 --out results/cartpole

The same command goes on where it was stopped. In --out are the model, checkpoints, evaluations and films. The settings
are those of the task in docs/results.md; compare.py in this folder compares methods and seeds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from stable_baselines3.common.callbacks import EvalCallback

from difftori_gym import DiffTORI, ResumeCallback, VideoCallback, make_env, make_vec_env
from difftori_gym.evaluation import evaluate


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """
    :param arguments: command line without the program, None: the process's own
    :return: its values
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="dm_control/cartpole-swingup", help="suite/task, or any Gymnasium id")
    parser.add_argument("--steps", type=int, default=10_000, help="agent steps over all environments, default: 10000")
    parser.add_argument("--n-envs", type=int, default=1, help="environments whose actions are planned together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--eval-freq", type=int, default=2000, help="agent steps between evaluations and films")
    parser.add_argument("--video", action=argparse.BooleanOptionalAction, default=True, help="film the policy")
    parser.add_argument("--out", type=Path, default=Path("results/train_rl"), help="folder to write to")
    return parser.parse_args(arguments)


def make_learner(env, seed: int) -> DiffTORI:
    """Images need "CnnPolicy", dictionaries "MultiInputPolicy". docs/choosing.md goes through the settings."""
    return DiffTORI(
        "MlpPolicy",
        env,
        learning_starts=1000,  # agent steps of noise alone, before the first update
        batch_size=128,
        gradient_steps=-1,  # an update per agent step, however many environments there are
        horizon=3,
        schedule_steps=6000,  # until when the horizon grows and the noise falls
        policy_kwargs=dict(net_arch=dict(pi=[128, 128], qf=[128, 128], dynamics=[128, 128], reward=[128, 128])),
        seed=seed,
        verbose=1,
    )


def main(arguments: list[str] | None = None) -> None:
    """
    Train, film, save, evaluate.

    :param arguments: command line without the program, None: the process's own
    """
    args = parse_arguments(arguments)
    env = make_vec_env(args.env, args.n_envs, seed=args.seed)
    eval_env = make_vec_env(args.env, seed=args.seed + 1000)

    resume = ResumeCallback(args.out / "checkpoints")
    model = resume.restore(DiffTORI, env) or make_learner(env, args.seed)
    evaluations = str(args.out / f"evaluations-from-{model.num_timesteps}")
    callbacks = [EvalCallback(eval_env, eval_freq=max(args.eval_freq // args.n_envs, 1), log_path=evaluations), resume]
    if args.video:
        film_env = make_env(args.env, render_mode="rgb_array")
        callbacks.append(VideoCallback(film_env, args.out / "videos", render_freq=args.eval_freq, seed=args.seed))
    model.learn(max(args.steps - model.num_timesteps, 0), callback=callbacks, reset_num_timesteps=False)

    model.save(args.out / "model.zip")
    result = evaluate(model, eval_env, n_episodes=10, seed=args.seed + 1000)
    print(f"{args.out / 'model.zip'}: return {result.mean_return:.1f} over {len(result.returns)} episodes")


if __name__ == "__main__":
    main()
