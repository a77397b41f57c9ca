"""What every stage is given, and problems that need no simulator."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces

from difftori_gym import DiffTORI
from difftori_gym.learning.captured import EagerRecorder, recorded_by
from gpu_stages.tables import Budget, Table

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

WALKER = (24, 6)
"""Numbers in an observation of walker-walk, and in an action."""


class CannotRunError(Exception):
    """A stage, or a part of one, that this machine does not allow, in one line."""


@dataclass
class Stage:
    """
    :param device: where networks lie
    :param smoke: whether all sizes are tiny
    :param budget: time that is left
    :param work: folder of the tables, where a later call goes on
    :param out: folder that the tables are copied to
    """

    device: torch.device
    smoke: bool
    budget: Budget
    work: Path
    out: Path

    @property
    def name_of_device(self) -> str:
        """For the tables: rows of different cards are different rows."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"

    def table(self, name: str, keys: Sequence[str], values: Sequence[str]) -> Table:
        """:return: the table of that name, with a column for the device"""
        copies = () if self.out == self.work else (self.out,)
        return Table(self.work, name, ("device", *keys), values, copies)

    def choose(self, full: Any, smoke: Any) -> Any:
        """:return: one or the other"""
        return smoke if self.smoke else full

    def row(self, table: Table, measure: Callable[[], dict[str, Any]], seconds: float, **key: Any) -> bool:
        """
        Measure a row that is not there yet, if the time allows it. What fails is said in a row, and the next one goes
        on.

        :param table: where it goes
        :param measure: gives its values
        :param seconds: that it takes, about
        :param key: what tells it from other rows
        :return: whether it is there now
        """
        key = {"device": self.name_of_device, **key}
        if table.has(**key):
            return True
        if not self.budget.allows(0.0 if self.smoke else seconds):
            print(f"{table.path.stem}: no time for {key}", flush=True)
            return False
        try:
            table.add(**key, **measure())
        except (RuntimeError, ValueError, ImportError, CannotRunError) as error:
            if "CUDA error" in str(error):  # nothing goes on in this process
                raise
            print(f"{table.path.stem}: {key} cannot run: {str(error).strip().splitlines()[0][:200]}", flush=True)
        return True

    def wait(self) -> None:
        """Until the device has done everything."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


@contextmanager
def way(name: str, device: torch.device) -> Iterator[None]:
    """
    :param name: ``eager`` operation by operation, or ``graph``; on a CPU a stand-in for graphs is timed, so that the
        same code runs
    """
    if name == "eager":
        with recorded_by(lambda device: None):
            yield
    elif device.type == "cuda":
        yield
    else:
        with recorded_by(EagerRecorder):
            yield


class Noise(gym.Env[np.ndarray, np.ndarray]):
    """Observations, rewards and ends at random: what is learned from it does not matter for times."""

    def __init__(self, size: int, action_size: int, image: tuple[int, ...] | None = None) -> None:
        low, high = -np.ones(action_size, np.float32), np.ones(action_size, np.float32)
        self.action_space = spaces.Box(low, high)
        self.observation_space = (
            spaces.Box(-10.0, 10.0, (size,), np.float32) if image is None else spaces.Box(0, 255, image, np.uint8)
        )
        self.t = 0

    def _look(self) -> np.ndarray:
        space = self.observation_space
        if space.dtype == np.uint8:
            return self.np_random.integers(0, 256, space.shape, np.uint8)
        return self.np_random.standard_normal(space.shape).astype(np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.t = 0
        return self._look(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.t += 1
        return self._look(), float(self.np_random.random()), False, self.t >= 500, {}


def heads(width: int) -> dict[str, list[int]]:
    """:return: ``net_arch`` with hidden layers of this width"""
    return {name: [width, width] for name in ("pi", "qf", "dynamics", "reward")}


def filled(
    cls: type[DiffTORI], env: gym.Env, stage: Stage, steps: int, policy: str = "MlpPolicy", **settings: Any
) -> DiffTORI:
    """:return: a learner at full horizon with so many random transitions in its replay, not trained"""
    model = cls(
        policy,
        env,
        learning_starts=steps,
        schedule_steps=0,
        seed=0,
        device=stage.device,
        **{"buffer_size": steps, **settings},
    )
    model.learn(steps)
    model.policy.horizon = model.horizon
    return model
