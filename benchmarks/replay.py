"""
Memory and sampling time of the replay of images, stored frame by frame and as whole stacks.

    python benchmarks/replay.py --out results/benchmarks

Random images of 84 x 84 in colour, three stacked, in episodes of 250 steps whose first frame is repeated. Memory is
what the process grows by per transition while the second half of ``--transitions`` is stored; for 500,000 transitions
that number is multiplied. With ``--full``, all of 500,000 are stored as single frames instead (11 GB). Times are
medians of processor time of one batch, read in turns.
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

from difftori_gym.rl.sequence_buffer import SequenceReplayBuffer, SequenceSampling

FRAME = (3, 84, 84)
STACK = 3
EPISODE = 250
CAPACITY = 500_000
ACTIONS = spaces.Box(-1, 1, (1,))
BATCHES = ((64, 3), (128, 5), (256, 5))


class WholeStacks(SequenceSampling, ReplayBuffer):
    """Observations and next observations as they come."""


def fill(buffer: Any, start: int, stop: int, pool: np.ndarray) -> None:
    """Transitions of these numbers, of frames from a pool: drawing new ones would take most of the time."""
    for t in range(start, stop):
        step = t % EPISODE
        shown = np.maximum(np.arange(step - STACK + 1, step + 2), 0) + t - step  # frames of this and the next stack
        frames = pool[(shown * 7) % len(pool)]
        observation, following = (frames[i : i + STACK].reshape(1, -1, *FRAME[1:]) for i in (0, 1))
        done = np.array([step + 1 == EPISODE])
        info = {"TimeLimit.truncated": bool(done[0])}
        buffer.add(observation, following, np.zeros((1, 1)), np.zeros(1), done, [info])


def filled(kind: Any, capacity: int, transitions: int) -> tuple[Any, float]:
    """:return: a filled buffer, and the bytes that the process grew by per transition of the second half"""
    pool = np.random.default_rng(0).integers(0, 256, (4096, *FRAME), dtype=np.uint8)
    space = spaces.Box(0, 255, (STACK * FRAME[0], *FRAME[1:]), np.uint8)
    buffer = kind(capacity, space, ACTIONS, device="cpu")
    half = transitions // 2
    fill(buffer, 0, half, pool)
    before = psutil.Process().memory_info().rss
    fill(buffer, half, transitions, pool)
    return buffer, (psutil.Process().memory_info().rss - before) / (transitions - half)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"), help="folder of the tables")
    parser.add_argument("--transitions", type=int, default=20_000, help="to store in both buffers")
    parser.add_argument("--full", action="store_true", help="store 500,000 single frames (needs 11 GB)")
    parser.add_argument("--seconds", type=float, default=5.0, help="measuring time per row, about")
    args = parser.parse_args()

    frames, frame_bytes = filled(SequenceReplayBuffer, CAPACITY, CAPACITY if args.full else args.transitions)
    stacks, stack_bytes = filled(WholeStacks, args.transitions, args.transitions)
    rows: list[dict[str, object]] = [
        {"what": "bytes per transition", "frames": round(frame_bytes), "stacks": round(stack_bytes)},
        {
            "what": f"GB of {CAPACITY:,} transitions",
            "frames": frame_bytes * CAPACITY / 1e9,
            "stacks": stack_bytes * CAPACITY / 1e9,
        },
    ]
    for batch, horizon in BATCHES:
        jobs = {
            "frames": partial(frames.sample_sequences, batch, horizon),
            "stacks": partial(stacks.sample_sequences, batch, horizon),
        }
        times, _ = medians(jobs, args.seconds, 50)
        rows.append({"what": f"ms to sample {batch} windows of {horizon}", **times})
    headings = {"what": "what", "frames": "single frames", "stacks": "whole stacks"}
    notes = [
        f"Images {FRAME}, {STACK} stacked, episodes of {EPISODE} steps. GB are 1e9 bytes.",
        f"Measured while transitions {args.transitions // 2:,} to {args.transitions:,} were stored"
        f"{' (single frames: 250,000 to 500,000)' if args.full else ''}.",
    ]
    print(save_table(rows, headings, notes, args.out, "replay"))


if __name__ == "__main__":
    main()
