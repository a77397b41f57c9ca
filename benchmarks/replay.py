"""
Memory and sampling time of the replay of images, stored frame by frame and as whole stacks.

    python benchmarks/replay.py --out results/benchmarks

Random images of 84 x 84 in colour, three stacked, in episodes of 250 steps whose first frame is repeated. Memory is
what the process holds more after filling, so it is measured: at ``--transitions`` for both ways of storing, and, with
``--full``, at all of 500,000 for single frames. The rest of the 500,000 is arithmetic on the bytes per transition.
Times are medians of processor time of one batch, read in turns.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from tables import medians, save_table

from difftori_gym.rl.sequence_buffer import SequenceReplayBuffer, _SequenceSampling

FRAME = (3, 84, 84)
STACK = 3
EPISODE = 250
CAPACITY = 500_000
ACTIONS = spaces.Box(-1, 1, (1,))
BATCHES = ((64, 3), (128, 5), (256, 5))


class WholeStacks(_SequenceSampling, ReplayBuffer):
    """Observations and next observations as they come."""


def fill(buffer: Any, transitions: int) -> None:
    """Random frames, drawn from a pool: drawing new ones would take most of the time."""
    pool = np.random.default_rng(0).integers(0, 256, (4096, *FRAME), dtype=np.uint8)
    for t in range(transitions):
        step = t % EPISODE
        shown = np.maximum(np.arange(step - STACK + 1, step + 2), 0) + t - step  # frames of this and the next stack
        frames = pool[(shown * 7) % len(pool)]
        observation, following = (frames[i : i + STACK].reshape(1, -1, *FRAME[1:]) for i in (0, 1))
        done = np.array([step + 1 == EPISODE])
        info = {"TimeLimit.truncated": bool(done[0])}
        buffer.add(observation, following, np.zeros((1, 1)), np.zeros(1), done, [info])


def measured(kind: Any, capacity: int, transitions: int) -> tuple[Any, float]:
    """:return: a filled buffer, and the GB that the process holds more with it than without"""
    space = spaces.Box(0, 255, (STACK * FRAME[0], *FRAME[1:]), np.uint8)
    process = psutil.Process()
    before = process.memory_info().rss
    buffer = kind(capacity, space, ACTIONS, device="cpu")
    fill(buffer, transitions)
    return buffer, (process.memory_info().rss - before) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"), help="folder of the tables")
    parser.add_argument("--transitions", type=int, default=10_000, help="to fill both buffers with")
    parser.add_argument("--full", action="store_true", help="also fill all 500,000 (needs 11 GB)")
    parser.add_argument("--seconds", type=float, default=5.0, help="measuring time per row, about")
    args = parser.parse_args()

    frames, frames_gb = measured(SequenceReplayBuffer, CAPACITY, args.transitions)
    stacks, stacks_gb = measured(WholeStacks, args.transitions, args.transitions)
    rows: list[dict[str, object]] = []
    for what, scale in ((f"GB of {args.transitions:,}", 1.0), (f"GB of {CAPACITY:,}", CAPACITY / args.transitions)):
        rows.append({"what": what, "frames": frames_gb * scale, "stacks": stacks_gb * scale})
    for batch, horizon in BATCHES:
        jobs = {
            "frames": partial(frames.sample_sequences, batch, horizon),
            "stacks": partial(stacks.sample_sequences, batch, horizon),
        }
        times, _ = medians(jobs, args.seconds, 50)
        rows.append({"what": f"ms to sample {batch} windows of {horizon}", **times})
    if args.full:
        del frames, stacks, jobs
        _, full_gb = measured(SequenceReplayBuffer, CAPACITY, CAPACITY)
        rows.append({"what": f"GB of {CAPACITY:,}, filled", "frames": full_gb, "stacks": None})
    headings = {"what": "what", "frames": "single frames", "stacks": "whole stacks"}
    notes = [
        f"Images {FRAME}, {STACK} stacked, episodes of {EPISODE} steps. GB are 1e9 bytes.",
        f"GB of {args.transitions:,}: growth of the process. GB of {CAPACITY:,}: that, times {CAPACITY} / "
        f"{args.transitions}; the row that ends in 'filled' was measured.",
    ]
    print(save_table(rows, headings, notes, args.out, "replay"))


if __name__ == "__main__":
    main()
