"""A callback that makes training survive whatever ends it."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback

from difftori_gym.checkpointing.checkpoint import (
    DamagedCheckpointError,
    Restored,
    list_checkpoints,
    load_checkpoint,
    newest_checkpoint,
    read_checkpoint,
    save_checkpoint,
    steps_of,
)
from difftori_gym.checkpointing.files import discard_unfinished
from difftori_gym.checkpointing.signals import HeldSignals, TrainingInterrupted

AnyLearner = TypeVar("AnyLearner", bound=BaseAlgorithm)

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class ResumeCallback(BaseCallback):
    """
    Write checkpoints, and go on from the newest one as if training had never stopped.

        resume = ResumeCallback("runs/walker")
        model = resume.restore(DiffTORI, env) or DiffTORI("MlpPolicy", env, seed=0)
        model.learn(1_000_000 - model.num_timesteps, callback=resume, reset_num_timesteps=False)

    The same three lines begin a run and continue it. A checkpoint is written between two rollouts, or between two
    gradient steps of an imitation learner, and appears in one step: a process that is killed loses at most what came
    after its newest checkpoint, and never leaves one that cannot be read. The first SIGINT (Ctrl-C) or SIGTERM ends
    training with a checkpoint and :class:`~difftori_gym.checkpointing.TrainingInterrupted`; a second one at once.

    Works with every Stable-Baselines3 algorithm. What cannot be saved (episodes of some suites) begins anew, and
    ``state.json`` of the checkpoint says why, see docs/reliability.md.

    :param directory: folder of this run's checkpoints, made when missing
    :param every_steps: agent steps between two checkpoints, at least 1; None: only by time
    :param every_seconds: seconds between two checkpoints, more than 0; None: only by steps
    :param keep: how many of the newest checkpoints stay, at least 1
    :param signals: what ends training with a checkpoint; none to leave signals alone
    :param verbose: 1 tells the logger of each checkpoint
    :raises ValueError: for a number outside its range, or if neither interval is given
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        every_steps: int | None = None,
        every_seconds: float | None = 600.0,
        keep: int = 2,
        signals: Iterable[int] = SIGNALS,
        verbose: int = 0,
    ) -> None:
        super().__init__(verbose)
        if every_steps is None and every_seconds is None:
            raise ValueError("ResumeCallback needs every_steps or every_seconds, got neither.")
        for name, value in (("every_steps", every_steps), ("keep", keep)):
            if value is not None and value < 1:
                raise ValueError(f"ResumeCallback needs {name} to be at least 1, got {value!r}.")
        if every_seconds is not None and not every_seconds > 0:
            raise ValueError(f"ResumeCallback needs every_seconds > 0, got {every_seconds!r}.")
        self.directory = Path(directory)
        self.every_steps, self.every_seconds, self.keep = every_steps, every_seconds, keep
        self.restored: Restored | None = None
        self.wall_s = 0.0
        self._held = HeldSignals(signals)
        self._saved_at: int | None = None
        self._clock = self._saved_when = time.perf_counter()
        self._collects, self._whole_step = False, True

    def restore(
        self,
        learner: type[AnyLearner],
        env: Any = None,
        *,
        demonstrations: Any = None,
        device: torch.device | str = "auto",
    ) -> AnyLearner | None:
        """
        Load the newest checkpoint that can be read; damaged ones are passed over with a warning.

        :param learner: class of the model
        :param env: environments built like the ones it was trained with; of an imitation learner also None
        :param demonstrations: of an imitation learner: they are not in the file
        :param device: torch device
        :return: the learner, None if there is no checkpoint
        :raises ValueError: if the environments do not fit, or another learner wrote it
        """
        path = newest_checkpoint(self.directory)
        if path is None:
            return None
        self.restored = load_checkpoint(path, learner, env, demonstrations=demonstrations, device=device)
        self.wall_s = self.restored.record.wall_s
        return self.restored.model

    def _init_callback(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        discard_unfinished(self.directory)
        for path in list_checkpoints(self.directory):
            if steps_of(path) > self.model.num_timesteps and _is_whole(path):
                raise ValueError(
                    f"{self.directory} holds a checkpoint of {steps_of(path)} steps, got a model of "
                    f"{self.model.num_timesteps}: restore it with ResumeCallback.restore and "
                    "reset_num_timesteps=False, or use another folder."
                )

    def _on_training_start(self) -> None:
        restored = self.restored
        if restored is not None and restored.model is self.model:
            if restored.record.agent_steps == self.model.num_timesteps:
                restored.state.restore_noise(self.model)
                restored.state.generators.restore()  # something may have drawn from them since
                self._saved_at = self.model.num_timesteps
            self.restored = None  # its arrays are not needed any more
        self._clock = self._saved_when = time.perf_counter()
        self._collects, self._whole_step = False, True
        self._held.hold(self.model)

    def _on_rollout_start(self) -> None:
        self._collects, self._whole_step = True, True
        self._between_steps()

    def _on_step(self) -> bool:
        if self._collects:
            self._whole_step = False  # what was done now is stored after this call
        else:
            self._between_steps()
        return True

    def _on_rollout_end(self) -> None:
        self._whole_step = True

    def _on_training_end(self) -> None:
        if self._saved_at != self.model.num_timesteps:
            self.save()
        self._held.release()

    def _between_steps(self) -> None:
        """Everything is stored and learned from: write what is due, and give way to a signal."""
        received = self._held.received
        if received is not None or self._is_due():
            self.save()
        if received is not None:
            self._held.release()
            raise TrainingInterrupted(
                f"Training was ended by {received.name} after {self.model.num_timesteps} steps. "
                f"{list_checkpoints(self.directory)[-1]} holds all of it; the same program goes on from there."
            )

    def _is_due(self) -> bool:
        steps = self.model.num_timesteps
        if self._saved_at is None:
            self._saved_at = steps  # what was there before training is not worth a file
        if steps == self._saved_at:
            return False
        by_time = self.every_seconds is not None and time.perf_counter() - self._saved_when >= self.every_seconds
        by_steps = self.every_steps is not None and steps // self.every_steps > self._saved_at // self.every_steps
        return by_time or by_steps

    def save(self) -> Path:
        """
        Write a checkpoint now.

        :raises OSError: if it cannot be written, naming cause and remedy; older checkpoints are then as they were
        """
        now = time.perf_counter()
        self.wall_s, self._clock = self.wall_s + now - self._clock, now
        path = save_checkpoint(
            self.directory, self.model, wall_s=self.wall_s, keep=self.keep, whole_step=self._whole_step
        )
        self._saved_at, self._saved_when = self.model.num_timesteps, time.perf_counter()
        return path


def _is_whole(path: Path) -> bool:
    try:
        read_checkpoint(path)
    except DamagedCheckpointError:
        return False
    return True
