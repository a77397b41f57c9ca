"""
Film a saved model.

    python examples/record_video.py --model results/demo/runs/difftori-cartpole-swingup-seed0 \
        --env dm_control/cartpole-swingup --out film.mp4 --n-envs 4 --overlay plan

--model is a file that a learner's ``save`` wrote, or the folder of a run of examples/compare.py, whose newest
checkpoint is taken. Exit code: 0 when the film is there, 2 when the request cannot be carried out.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from difftori_gym import make_vec_env, record_video
from difftori_gym.baselines.methods import METHODS, get_method
from difftori_gym.comparison.settings import RunSettings, json_object


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """
    :param arguments: command line without the program
    :return: its values
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--model", type=Path, required=True, help="saved model, or folder of a run of compare.py")
    add("--method", default=None, help=f"what the model is, needed for a file: one of {', '.join(METHODS)}")
    add("--env", required=True, help="suite/task, or any Gymnasium id")
    add("--out", type=Path, required=True, help="file to write, .mp4 or .gif")
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
    return parser.parse_args(arguments)


def complete(args: argparse.Namespace) -> None:
    """
    Fill in from the folder of a run what was not given.

    :param args: values of the command line, changed in place
    :raises ValueError: if the folder holds something else
    """
    settings = args.model / "args.json"
    if settings.exists():
        run = RunSettings.read(settings)
        args.method = args.method or run.method
        if args.obs in (None, run.obs) and args.obs_kwargs is None:
            args.obs_kwargs = run.obs_kwargs
        args.obs = args.obs or run.obs
        args.action_repeat = args.action_repeat or run.action_repeat
    args.obs = args.obs or "state"


def load_model(path: Path, method: str | None, obs: str, device: str) -> BaseAlgorithm:
    """
    :param path: saved model, or folder of a run
    :param method: what the model is
    :param obs: kind of observation it sees
    :param device: torch device
    :return: the model
    :raises ValueError: if there is no model, or it is not told what it is
    """
    if path.is_dir():
        checkpoints = [state.parent for state in sorted(path.glob("checkpoint-*/state.json"))]
        if not checkpoints:
            raise ValueError(f"--model: expected the folder of a run with a checkpoint in it, got {path}.")
        path = checkpoints[-1] / "model.zip"
    if not path.exists():
        raise ValueError(f"--model: expected a saved model, got {path}, which is not there.")
    if method is None:
        raise ValueError(f"--method is needed to load {path}: one of {', '.join(METHODS)}.")
    return get_method(method, obs).learner().load(path, device=device)


def build(args: argparse.Namespace) -> VecEnv:
    """
    :param args: values of the command line
    :return: the environments
    :raises ValueError: on an unknown environment, or settings of the picture that it does not have
    :raises ImportError: if the suite is not installed
    """
    given = {"--width": ("width", args.width), "--height": ("height", args.height)}
    given["--pretty"] = ("fast_render", False if args.pretty else None)
    picture = {flag: setting for flag, setting in given.items() if setting[1] is not None}
    try:
        return make_vec_env(
            args.env,
            args.n_envs,
            obs=args.obs,
            obs_kwargs=args.obs_kwargs,
            action_repeat=args.action_repeat,
            render_mode="rgb_array",
            **dict(picture.values()),
        )
    except TypeError as error:
        if not picture:
            raise
        raise ValueError(f"{args.env} does not take {' or '.join(picture)}: {error}") from error


def main(arguments: list[str]) -> int:
    """
    :param arguments: command line without the program
    :return: exit code
    """
    args = parse_arguments(arguments)
    try:
        complete(args)
        model = load_model(args.model, args.method, args.obs, args.device)
        env = build(args)
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
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
