"""
Train for a long time and look at whether anything grows: memory, open files, threads, or the time of a step.

    python scripts/soak.py --minutes 60 --out results/soak

DiffTORI learns cartpole-swingup in 8 environments, with a checkpoint and an evaluation of one episode every minute.
After each evaluation ``soak.csv`` gets a line. What is flat is judged on the lines after a warm-up of a fifth of the
time, in which buffers and caches fill; the replay buffer is small enough to be full by then. Exit code 0 if all is
flat.
"""

from __future__ import annotations

import argparse
import csv
import gc
import os
import sys
import threading
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv

from difftori_gym import DiffTORI, ResumeCallback, make_vec_env
from difftori_gym.evaluation import evaluate

# What is called flat: how much a quantity may grow from the first to the last third of the lines after warm-up.
MEMORY_GROWTH = 0.02
SPEED_LOSS = 0.10


@dataclass(frozen=True)
class Sample:
    """
    :param minute: since the start
    :param agent_steps: trained
    :param steps_per_s: since the line before, evaluation and checkpoint excluded
    :param cpu_steps_per_s: the same per second of this process's processor time: other programs do not slow it down
    :param memory_mb: resident
    :param open_files: of this process
    :param threads: of this process, those of native libraries included
    :param objects: that Python's garbage collector follows
    :param episode_return: of the evaluation
    """

    minute: float
    agent_steps: int
    steps_per_s: float
    cpu_steps_per_s: float
    memory_mb: float
    open_files: int
    threads: int
    objects: int
    episode_return: float


class Watch(BaseCallback):
    """Evaluates and notes a sample every so many seconds."""

    def __init__(self, eval_env: VecEnv, out: Path, minutes: float, every_s: float) -> None:
        super().__init__()
        self.eval_env, self.out, self.minutes, self.every_s = eval_env, out, minutes, every_s
        self.samples: list[Sample] = []

    def _on_training_start(self) -> None:
        self.begin = time.perf_counter()
        self._mark()

    def _mark(self) -> None:
        self.since, self.cpu, self.steps = time.perf_counter(), time.process_time(), self.model.num_timesteps

    def _on_step(self) -> bool:
        if time.perf_counter() - self.since >= self.every_s:
            self._sample()
        return time.perf_counter() - self.begin < 60 * self.minutes

    def _sample(self) -> None:
        steps = self.model.num_timesteps - self.steps
        wall, cpu = time.perf_counter() - self.since, time.process_time() - self.cpu
        episode_return = evaluate(self.model, self.eval_env, n_episodes=1, seed=1_000_000).mean_return
        sample = Sample(
            minute=round((time.perf_counter() - self.begin) / 60, 2),
            agent_steps=self.model.num_timesteps,
            steps_per_s=round(steps / wall, 2),
            cpu_steps_per_s=round(steps / cpu, 2),
            memory_mb=round(_status("VmRSS") / 1024, 1),
            open_files=len(os.listdir("/proc/self/fd")),
            threads=_status("Threads"),
            objects=len(gc.get_objects()),
            episode_return=round(float(episode_return), 2),
        )
        self.samples.append(sample)
        with (self.out / "soak.csv").open("a", newline="") as file:
            csv.writer(file).writerow(asdict(sample).values())
        print(sample, flush=True)
        self._mark()


def _status(name: str) -> int:
    """:return: a number from this process's entry in /proc, kilobytes for memory"""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise ValueError(f"/proc/self/status has no {name}.")


def verdict(samples: list[Sample]) -> list[tuple[str, float, float, bool]]:
    """
    :param samples: at least six lines
    :return: per quantity: its median in the first and in the last third after warm-up, and whether it is flat
    """
    samples = samples[len(samples) // 5 :]
    third = max(len(samples) // 3, 1)

    def medians(name: str) -> tuple[float, float]:
        values = [float(getattr(sample, name)) for sample in samples]
        return float(np.median(values[:third])), float(np.median(values[-third:]))

    rows = []
    for name, flat in (
        ("memory_mb", lambda first, last: last <= first * (1 + MEMORY_GROWTH)),
        ("open_files", lambda first, last: last <= first),
        ("threads", lambda first, last: last <= first),
        ("objects", lambda first, last: last <= first * (1 + MEMORY_GROWTH)),
        ("cpu_steps_per_s", lambda first, last: last >= first * (1 - SPEED_LOSS)),
    ):
        first, last = medians(name)
        rows.append((name, first, last, bool(flat(first, last))))
    return rows


def main() -> int:
    """:return: exit code"""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--every", type=float, default=60.0, help="seconds between two evaluations")
    parser.add_argument("--task", default="dm_control/cartpole-swingup")
    parser.add_argument("--n-envs", type=int, default=8)
    parser.add_argument("--buffer-size", type=int, default=8000, help="transitions kept, full within the warm-up")
    parser.add_argument("--out", type=Path, default=Path("results/soak"))
    values = parser.parse_args()
    values.out.mkdir(parents=True)  # an old result is not to be mixed with
    with (values.out / "soak.csv").open("w", newline="") as file:
        csv.writer(file).writerow(field.name for field in fields(Sample))
    env = make_vec_env(values.task, values.n_envs, seed=0)
    eval_env = make_vec_env(values.task)
    model = DiffTORI(
        "MlpPolicy",
        env,
        learning_starts=1000,
        batch_size=128,
        horizon=3,
        schedule_steps=6000,
        gradient_steps=-1,
        buffer_size=values.buffer_size,
        policy_kwargs=dict(net_arch=[128, 128]),
        seed=0,
    )
    watch = Watch(eval_env, values.out, values.minutes, values.every)
    resume = ResumeCallback(values.out / "checkpoints", every_seconds=values.every)
    model.learn(10**9, callback=[resume, watch])
    rows = verdict(watch.samples)
    print(f"{len(watch.samples)} evaluations, {watch.samples[-1].agent_steps} agent steps, "
          f"{threading.active_count()} Python threads at the end")  # fmt: skip
    print("| quantity | first third after warm-up | last third | flat |\n|---|---|---|---|")
    for name, first, last, flat in rows:
        print(f"| {name} | {first:g} | {last:g} | {'yes' if flat else 'NO'} |")
    return 0 if all(flat for *_, flat in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
