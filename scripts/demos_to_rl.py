"""
Reinforcement on success alone, from demonstrations, from scratch, and by SAC with the demonstrations in its memory.

    python scripts/demos_to_rl.py --tasks metaworld/drawer-open --methods difftori scratch sac --frames 100000

Runs are made one after the other; one that is finished is passed over, one that was ended goes on from its checkpoint,
to the same numbers. Demonstrations are the scripted expert's, collected once into OUT/demos. Each run writes
OUT/TASK/METHOD/SEED/rows.csv: success and return (steps at which the task is solved) of held-out episodes. Episodes
have 200 frames, as those of DP3 and MoDem, an action is repeated once, and the reward is 1 where the task is solved.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from stable_baselines3 import SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from difftori_gym import DiffTORI, ResumeCallback, make_vec_env
from difftori_gym.baselines import TDMPC
from difftori_gym.collection import CollectionSettings, collect, make_expert
from difftori_gym.envs import parse_task
from difftori_gym.evaluation import evaluate
from difftori_gym.il import Demonstrations, read_minari
from difftori_gym.rl.demonstrations import check_demonstrations, fill, rewards_of

REPEAT = 2
ENV: dict[str, Any] = dict(action_repeat=REPEAT, max_episode_steps=200)
METHODS = ("difftori", "tdmpc", "scratch", "sac", "sac_scratch")
HELD_OUT = 10_000  # seed of the first evaluation episode
SIZES = [128, 128]
PLANNER: dict[str, Any] = dict(
    learning_starts=500,
    batch_size=128,
    horizon=3,
    schedule_steps=10_000,
    policy_delay=2,
    policy_kwargs=dict(net_arch=dict(pi=SIZES, qf=SIZES, dynamics=SIZES, reward=SIZES), norm_obs=True),
)
OFF_POLICY: dict[str, Any] = dict(learning_starts=500, batch_size=256, learning_rate=1e-3, ent_coef="auto_0.1")


@dataclass(frozen=True)
class Row:
    """
    An evaluation.

    :param frames: environment frames trained for
    :param success: share of held-out episodes that were solved at any step
    :param earned: agent steps per episode at which the task was solved
    :param share: of demonstrations in a batch, nan where there is no such thing
    :param cpu_s: seconds of processor time of training and pretraining
    """

    task: str
    method: str
    seed: int
    frames: int
    success: float
    earned: float
    share: float
    cpu_s: float


def demonstrations_of(task: str, count: int, out: Path) -> Demonstrations:
    """Those of the suite's own expert, collected once and kept."""
    folder = out / "demos" / task.replace("/", "_")
    settings = CollectionSettings(
        task, folder, count, append=True, max_steps=200 // REPEAT, env_kwargs={**ENV, "reward": "success"}
    )
    if not (folder / "data").is_dir() or len(read_minari(folder)) < count:
        collect(settings, make_expert(parse_task(task)))
    return read_minari(folder).take(count)


def make_learner(method: str, env: VecEnv, seed: int, demonstrations: Demonstrations, steps: int) -> BaseAlgorithm:
    """A learner that has learned from the demonstrations what it does before its first step."""
    own: dict[str, Any] = dict(seed=seed, device="cpu")
    if method.startswith("sac"):
        sac = SAC("MlpPolicy", env, policy_kwargs=dict(net_arch=SIZES), **OFF_POLICY, **own)
        if method == "sac":
            check_demonstrations(demonstrations, sac.observation_space, sac.action_space, env)
            actions = [sac.policy.scale_action(episode.actions) for episode in demonstrations.episodes]
            fill(sac.replay_buffer, demonstrations, actions, rewards_of(demonstrations, None, env))
        return sac
    # Demonstrations show where the reward is: noise need not find it.
    noise = dict(initial_std=0.5 if method == "scratch" else 0.2, final_std=0.1)
    if method == "tdmpc":
        learner: DiffTORI = TDMPC("MlpPolicy", env, exploration_kwargs=noise, **PLANNER, **own)
    else:
        solver = dict(backward_num_iterations=1)
        learner = DiffTORI("MlpPolicy", env, exploration_kwargs=noise, planner_kwargs=solver, **PLANNER, **own)
    return learner if method == "scratch" else learner.learn_from(demonstrations, steps)


def run(task: str, method: str, seed: int, args: argparse.Namespace) -> list[Row]:
    """Train and evaluate, or go on with it; the rows are written as they come."""
    folder = args.out / task.replace("/", "_") / method / str(seed)
    file = folder / "rows.csv"
    rows = read_rows(file)
    if rows and rows[-1].frames >= args.frames:
        return rows
    demonstrations = demonstrations_of(task, args.demos, args.out)
    env = make_vec_env(task, seed=seed, reward="success", **ENV)
    held_out = make_vec_env(task, min(args.eval_episodes, 10), reward="success", **ENV)
    resume = ResumeCallback(folder / "checkpoints")
    kind = {"tdmpc": TDMPC, "sac": SAC, "sac_scratch": SAC}.get(method, DiffTORI)
    began = time.process_time()
    model = resume.restore(kind, env, device="cpu")
    if model is None:
        model = make_learner(method, env, seed, demonstrations, args.pretrain_steps)
    rows = [row for row in rows if row.frames <= REPEAT * model.num_timesteps]
    spent = rows[-1].cpu_s if rows else 0.0
    for frames in range(0, args.frames + 1, args.eval_freq):
        if frames <= (rows[-1].frames if rows else -1):
            continue
        steps = frames // REPEAT - model.num_timesteps
        if steps > 0:
            model.learn(steps, callback=resume, log_interval=None, reset_num_timesteps=False)
        spent += time.process_time() - began
        found = evaluate(model, held_out, n_episodes=args.eval_episodes, seed=HELD_OUT)
        share = getattr(model, "present_share", float("nan"))
        success = found.success_rate or 0.0
        rows.append(Row(task, method, seed, frames, success, found.mean_return, share, round(spent, 1)))
        write_rows(file, rows)
        print(json.dumps(asdict(rows[-1])), flush=True)
        began = time.process_time()
    env.close()
    held_out.close()
    return rows


def read_rows(file: Path) -> list[Row]:
    """Those that were written, none without a file."""
    if not file.is_file():
        return []
    kinds = {field.name: {"str": str, "int": int, "float": float}[str(field.type)] for field in fields(Row)}
    with file.open(newline="", encoding="utf-8") as opened:
        return [Row(**{name: kinds[name](value) for name, value in row.items()}) for row in csv.DictReader(opened)]


def write_rows(file: Path, rows: list[Row]) -> None:
    """Replace the file in one step."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_suffix(".new")
    with new.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.DictWriter(opened, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(map(asdict, rows))
    new.replace(file)


def main(arguments: list[str] | None = None) -> None:
    """
    Make all runs that are not made yet.

    :param arguments: command line without the program, None: the process's own
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--tasks", nargs="+", default=["metaworld/drawer-open"], help="tasks of a suite with scripted experts")
    add("--methods", nargs="+", default=list(METHODS[:1]), choices=METHODS, help="default: difftori")
    add("--seeds", nargs="+", type=int, default=[0])
    add("--frames", type=int, default=100_000, help="environment frames to train for")
    add("--demos", type=int, default=10, help="demonstrations")
    add("--pretrain-steps", type=int, default=5000, help="updates from demonstrations alone")
    add("--eval-freq", type=int, default=5000, help="frames between evaluations")
    add("--eval-episodes", type=int, default=20)
    add("--out", type=Path, default=Path("results/demos_to_rl"), help="folder to write to")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    for task in args.tasks:
        for method in args.methods:
            for seed in args.seeds:
                run(task, method, seed, args)


if __name__ == "__main__":
    main()
