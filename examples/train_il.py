"""
DiffTORI from demonstrations, on top of behaviour cloning: a file to copy and to change.

    python examples/train_il.py --env metaworld/push --episodes 10 --out results/push

Demonstrations are collected from the task's scripted expert, or read from --demos: a data set in Minari's layout
(docs/demonstrations.md has other formats). The same command goes on where it was stopped. In --out are both models,
checkpoints and a film. compare.py in this folder compares methods and seeds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from difftori_gym import DiffTORIImitation, ResumeCallback, make_env, record_video
from difftori_gym.baselines import BC
from difftori_gym.collection import CollectionSettings, collect, make_expert
from difftori_gym.envs import parse_task
from difftori_gym.evaluation import evaluate
from difftori_gym.il import CosineSchedule, Demonstrations, ImitationAlgorithm, read_minari

#: Two observations are seen, four actions planned, three of them executed.
WINDOW = dict(n_obs_steps=2, horizon=4, n_action_steps=3)
#: Noise on the start leaves something to learn. Without latent_dim=0 there is a latent, for several modes.
DIFFTORI = dict(start_noise=0.2, latent_dim=0)
PLANNER = dict(step_size=1e-2, max_iterations=3, backward_num_iterations=3)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The values of a command line without the program; None: the process's own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="metaworld/push", help="suite/task")
    parser.add_argument("--demos", type=Path, default=None, help="data set to read, default: collected into --out")
    parser.add_argument("--episodes", type=int, default=10, help="demonstrations to collect, default: 10")
    parser.add_argument("--steps", type=int, default=5000, help="gradient steps of each of the two, default: 5000")
    parser.add_argument("--eval-episodes", type=int, default=50, help="of 200 steps at most, default: 50")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--video", action=argparse.BooleanOptionalAction, default=True, help="film the policy")
    parser.add_argument("--out", type=Path, default=Path("results/train_il"), help="folder to write to")
    return parser.parse_args(arguments)


def train(learner: type[ImitationAlgorithm], demos: Demonstrations, args: argparse.Namespace, **settings):
    """Train one learner, or go on with it; ``args.steps`` counts gradient steps."""
    resume = ResumeCallback(args.out / "checkpoints" / learner.__name__)
    model = resume.restore(learner, demonstrations=demos) or learner(
        "MlpPolicy", None, demos, learning_rate=CosineSchedule(1e-3, final=1e-5), seed=args.seed, **WINDOW, **settings
    )
    model.learn(max(args.steps - model.num_timesteps, 0), callback=resume, reset_num_timesteps=False)
    model.save(args.out / f"{learner.__name__}.zip")
    return model


def main(arguments: list[str] | None = None) -> None:
    """
    Collect, train, save, evaluate, film.

    :param arguments: command line without the program, None: the process's own
    """
    args = parse_arguments(arguments)
    folder = args.demos or args.out / "demos"
    if not folder.exists():
        collect(CollectionSettings(args.env, folder, episodes=args.episodes), make_expert(parse_task(args.env)))
    demonstrations = read_minari(folder)

    base = train(BC, demonstrations, args, policy_kwargs=dict(net_arch=[256, 256]))
    model = train(DiffTORIImitation, demonstrations, args, base_policy=base, planner_kwargs=PLANNER, **DIFFTORI)

    env = make_env(args.env, seed=args.seed, max_episode_steps=200, render_mode="rgb_array")
    for each in (base, model):
        result = evaluate(each, env, n_episodes=args.eval_episodes, seed=args.seed + 1000)
        print(f"{type(each).__name__}: return {result.mean_return:.1f}, success {result.success_rate}")
    if args.video:
        record_video(model, env, args.out / "film.mp4", seed=args.seed + 1000)


if __name__ == "__main__":
    main()
