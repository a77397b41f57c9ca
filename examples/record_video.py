"""
Film a saved model.

    python examples/record_video.py --model results/demo/runs/difftori-cartpole-swingup-state-seed0 \
        --env dm_control/cartpole-swingup --out film.mp4 --n-envs 4 --overlay plan
    python examples/record_video.py --policy walker-walk

--policy is one of those in examples/policies. --model is a file that a learner's ``save`` or ``export`` wrote, or the
folder of a run of examples/compare.py, of reinforcement learning or imitation, which also tells environment,
observations and action repeat. Exit code: 0 when the film is there, 2 when the request cannot be carried out.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

from difftori_gym import make_vec_env, record_video
from difftori_gym.card.trained import NAMES, Trained, check_seen, environment_of, find_trained
from difftori_gym.comparison.settings import json_object

POLICIES = Path(__file__).resolve().parent / "policies"


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """
    :param arguments: command line without the program
    :return: its values
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--model", type=Path, help="saved model, or folder of a run of compare.py")
    which.add_argument("--policy", metavar="NAME", help="a trained policy of examples/policies")
    add(
        "--method",
        default=None,
        metavar="NAME",
        help=f"what a file is that does not tell: {', '.join(NAMES)}",
    )
    add("--env", help="suite/task, or any Gymnasium id, default: the run's")
    add("--out", type=Path, help="file to write, .mp4 or .gif; of --policy NAME, NAME.mp4")
    add("--obs", choices=["state", "pixels", "pointcloud"], help="what the model sees, default: the run's, or state")
    add("--obs-kwargs", type=json_object, help="settings of the observation as json, default: the run's")
    add(
        "--action-repeat",
        type=int,
        default=None,
        help="frames per agent step, default: the run's or the preset",
    )
    add("--n-envs", type=int, default=1, help="environments tiled in the picture, default: 1")
    add("--episodes", type=int, default=1, help="episodes one after the other, default: 1")
    add("--max-steps", type=int, default=None, help="agent steps after which an episode is cut")
    add("--seed", type=int, default=0, help="seed of the first episode, default: 0")
    add("--fps", type=float, default=None, help="images per second, default: real time")
    add("--width", type=int, default=None, help="pixels of one environment's picture, where the suite lets choose")
    add("--height", type=int, default=None, help="pixels of one environment's picture, where the suite lets choose")
    add("--overlay", choices=["none", "plan"], default="none", help="plan: draw where the planned actions lead")
    add("--captions", action=argparse.BooleanOptionalAction, default=True, help="write on the pictures")
    add("--pretty", action="store_true", help="antialiasing, shadows and reflections, slow without a graphics card")
    add("--device", default="auto", help="auto, cpu or cuda, default: auto")
    args = parser.parse_args(arguments)
    if args.out is None and args.policy is None:
        parser.error("the following arguments are required: --out")
    args.out = args.out or Path(f"{args.policy}.mp4")
    return args


def policy_named(name: str) -> Trained:
    """
    :param name: of a policy in examples/policies
    :return: what its table says of it
    :raises ValueError: if there is none of that name
    """
    table = json.loads((POLICIES / "policies.json").read_text(encoding="utf-8"))
    if name not in table:
        raise ValueError(f"--policy: there is no {name!r}. Policies: {', '.join(table)}.")
    about = table[name]
    environment = dict(obs="state", action_repeat=about["action_repeat"])
    return Trained(POLICIES / f"{name}.safetensors", None, about["env"], environment)


def build(args: argparse.Namespace, trained: Trained, space: spaces.Space[Any]) -> tuple[VecEnv, str]:
    """
    :param args: values of the command line
    :param trained: the model, whose run tells what is not given
    :param space: observations that it takes
    :return: the environments, and what had to be guessed of them
    :raises ValueError: on no or an unknown environment, or settings of the picture that it does not have
    :raises ImportError: if the suite is not installed
    """
    env = args.env or trained.env
    if env is None:
        raise ValueError(f"--env is needed: {trained.path} does not lie in the folder of a run.")
    given = {name: getattr(args, name) for name in ("obs", "obs_kwargs", "action_repeat")}
    seen, guessed = environment_of(trained, given, space, env)
    taken = ", ".join(f"--{name.replace('_', '-')} {seen[name]}" for name in guessed)
    flags = {"--width": ("width", args.width), "--height": ("height", args.height)}
    flags["--pretty"] = ("fast_render", False if args.pretty else None)
    picture = {flag: setting for flag, setting in flags.items() if setting[1] is not None}
    try:
        return make_vec_env(env, args.n_envs, render_mode="rgb_array", **{**seen, **dict(picture.values())}), taken
    except TypeError as error:
        if not picture:
            raise
        raise ValueError(f"{env} does not take {' or '.join(picture)}: {error}") from error


def main(arguments: list[str]) -> int:
    """
    :param arguments: command line without the program
    :return: exit code
    """
    args = parse_arguments(arguments)
    try:
        trained = find_trained(args.model, args.method) if args.policy is None else policy_named(args.policy)
        model = trained.load(args.device)
        env, taken = build(args, trained, model.observation_space)
        check_seen(model.observation_space, env.observation_space, args.env or str(trained.env))
        path = record_video(
            model,
            env,
            args.out,
            n_episodes=args.episodes,
            max_steps=args.max_steps,
            fps=args.fps,
            seed=args.seed,
            captions=args.captions,
            overlay=args.overlay,
        )
        env.close()
    except (ValueError, ImportError, RuntimeError) as error:
        print(f"record_video: {error}", file=sys.stderr)
        return 2
    print(path)
    if taken:
        print(f"record_video: {trained.path} does not tell how it saw and acted; taken: {taken}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
