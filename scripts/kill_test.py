"""
Kill a training run with ``kill -9`` again and again, and look at what is left each time.

    python scripts/kill_test.py --kills 50 --out results/kill-test

DiffTORI learns Pendulum-v1 with small networks in a process of its own, with a checkpoint every ``--every`` agent
steps. Every second kill comes at a random moment of training; the others come while a checkpoint is written, a few
milliseconds after its first file has appeared. After each kill every checkpoint is read and compared with its
checksums, and the loss is counted: agent steps trained beyond the newest checkpoint. Then the same command continues.
When all kills are done the run is finished, and its weights are compared with those of a run that nobody killed.
Exit code 0 if nothing was lost but at most one interval each time, no file was unreadable, and the weights are equal.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import mmap
import multiprocessing
import os
import random
import signal
import struct
import sys
import time
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from stable_baselines3.common.callbacks import BaseCallback

from difftori_gym import DiffTORI, ResumeCallback, make_vec_env
from difftori_gym.checkpointing import DamagedCheckpointError, list_checkpoints, read_checkpoint
from difftori_gym.checkpointing.checkpoint import steps_of

# Agent steps, and whether training goes on: written by the run into memory that outlives it.
_COUNTER = struct.Struct("qq")
SETTINGS: dict[str, Any] = dict(
    learning_starts=20,
    batch_size=16,
    horizon=2,
    schedule_steps=1000,
    planner_kwargs=dict(max_iterations=2),
    pg_batch_size=8,
    buffer_size=20_000,
    policy_kwargs=dict(net_arch=[16], latent_dim=8),
    seed=0,
    device="cpu",
)


@dataclass(frozen=True)
class Kill:
    """What was found after a kill. ``start`` is -1 if the process did not begin to train."""

    number: int
    moment: str
    start: int
    reached: int
    checkpoint: int
    unreadable: int
    unfinished: int

    @property
    def lost(self) -> int:
        """Agent steps that have to be trained again."""
        return self.reached - self.checkpoint


def counter(folder: Path) -> mmap.mmap:
    """:return: memory shared with the run"""
    path = folder / "counter"
    if not path.exists():
        path.write_bytes(_COUNTER.pack(-1, -1))
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), _COUNTER.size)


def train(folder: Path, every: int, total: int) -> None:
    """The run that is killed: begins, or goes on."""
    torch.set_num_threads(1)
    shared = counter(folder)

    class Count(BaseCallback):
        def _on_training_start(self) -> None:
            shared[:] = _COUNTER.pack(self.model.num_timesteps, self.model.num_timesteps)
            self.start = self.model.num_timesteps

        def _on_step(self) -> bool:
            shared[:] = _COUNTER.pack(self.start, self.num_timesteps)
            return True

    env = make_vec_env("Pendulum-v1", 2, seed=0)
    resume = ResumeCallback(folder / "checkpoints", every_steps=every, every_seconds=None, keep=2)
    model = resume.restore(DiffTORI, env, device="cpu") or DiffTORI("MlpPolicy", env, **SETTINGS)
    model.learn(total - model.num_timesteps, callback=[resume, Count()], reset_num_timesteps=False)
    torch.save(model.policy.state_dict(), folder / "weights.pt")


def _logged(folder: Path, every: int, total: int) -> None:
    with (folder / "output.txt").open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    train(folder, every, total)


def start(folder: Path, every: int, total: int, method: str) -> BaseProcess:
    """:return: the run as a process"""
    process = multiprocessing.get_context(method).Process(target=_logged, args=(folder, every, total))  # type: ignore[attr-defined]
    process.start()
    return process


def kill_once(number: int, folder: Path, every: int, total: int, method: str, draw: random.Random) -> Kill:
    """Start the run, kill it, and look at what is left."""
    shared = counter(folder)
    shared[:] = _COUNTER.pack(-1, -1)
    checkpoints = folder / "checkpoints"
    process = start(folder, every, total, method)
    while _COUNTER.unpack(shared[:])[0] < 0:
        _must_run(process, folder)
        time.sleep(0.01)
    within_writing = number % 2 == 1
    if within_writing:
        while not any(checkpoints.glob(".unfinished-*")):
            _must_run(process, folder)
            time.sleep(0.002)
        time.sleep(draw.uniform(0.0, 0.03))
    else:
        begun = _COUNTER.unpack(shared[:])[0]
        # Between no step at all and two intervals and a half.
        target = begun + draw.uniform(0.0, 2.5) * every
        while _COUNTER.unpack(shared[:])[1] < target:
            _must_run(process, folder)
            time.sleep(0.002)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    begun, reached = _COUNTER.unpack(shared[:])
    newest, unreadable = 0, 0
    for path in list_checkpoints(checkpoints):
        try:
            read_checkpoint(path)
            newest = max(newest, steps_of(path))
        except DamagedCheckpointError:
            unreadable += 1
    unfinished = len(list(checkpoints.glob(".unfinished-*")))
    moment = "in a checkpoint" if within_writing else "at random"
    return Kill(number, moment, begun, reached, newest, unreadable, unfinished)


def _must_run(process: BaseProcess, folder: Path) -> None:
    if process.exitcode is not None:
        raise SystemExit(f"The run ended by itself with exit code {process.exitcode}: see {folder / 'output.txt'}")


def table(kills: list[Kill], every: int) -> str:
    """:return: Markdown"""
    lines = [
        "| kills | how | continued from the newest checkpoint | greatest loss, agent steps | mean loss | "
        "unreadable checkpoints | unfinished folders left, removed by the next start |",
        "|---|---|---|---|---|---|---|",
    ]
    for moment in ("at random", "in a checkpoint"):
        group = [kill for kill in kills if kill.moment == moment]
        if not group:
            continue
        follow = [kills[kill.number] for kill in group if kill.number < len(kills)]
        went_on = sum(after.start == kills[after.number - 2].checkpoint for after in follow)
        lines.append(
            f"| {len(group)} | {moment} | {went_on} of {len(follow)} | {max(kill.lost for kill in group)} | "
            f"{sum(kill.lost for kill in group) / len(group):.0f} | {sum(kill.unreadable for kill in group)} | "
            f"{sum(kill.unfinished > 0 for kill in group)} |"
        )
    return "\n".join([*lines, "", f"A checkpoint every {every} agent steps of two environments."])


def main() -> int:
    """:return: exit code"""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--every", type=int, default=30, help="agent steps between two checkpoints")
    parser.add_argument("--total", type=int, default=1_000_000, help="agent steps that no killed run reaches")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--out", type=Path, default=Path("results/kill-test"))
    parser.add_argument(
        "--start-method",
        choices=("fork", "spawn"),
        default="fork",
        help="of the killed processes: fork leaves out the seconds that importing torch takes, default: fork",
    )
    values = parser.parse_args()
    torch.set_num_threads(1)
    # Seconds, which every forked process would spend at its first optimiser.
    importlib.import_module("torch._dynamo")
    killed, straight = values.out / "killed", values.out / "straight"
    for folder in (killed, straight):
        folder.mkdir(parents=True)  # an old result is not to be mixed with
    draw, kills = random.Random(values.seed), []
    for number in range(1, values.kills + 1):
        kills.append(kill_once(number, killed, values.every, values.total, values.start_method, draw))
        print(kills[-1], f"lost {kills[-1].lost}", flush=True)
    total = kills[-1].checkpoint + 2 * values.every
    for folder in (killed, straight):
        process = start(folder, values.every, total, "spawn")  # a process that knows nothing of this one
        process.join()
        assert process.exitcode == 0, folder / "output.txt"
    finished = kills[-1].checkpoint
    first, second = (torch.load(folder / "weights.pt") for folder in (killed, straight))
    equal = all(torch.equal(value, second[name]) for name, value in first.items())
    print(table(kills, values.every))
    print(f"After {len(kills)} kills at up to {finished} steps and {total} steps in all, the weights are "
          f"{'equal to' if equal else 'DIFFERENT from'} those of a run that was never killed.")  # fmt: skip
    whole = all(kill.lost <= values.every + 2 and kill.unreadable == 0 for kill in kills)
    followed = all(after.start == before.checkpoint for before, after in itertools.pairwise(kills))
    return 0 if whole and followed and equal else 1


if __name__ == "__main__":
    sys.exit(main())
