"""What happens to a run while it trains: evaluations, checkpoints, its clock; and how long plans and updates take."""

from __future__ import annotations

import contextlib
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit
from stable_baselines3.common.vec_env import VecEnv

from difftori_gym.checkpointing import save_checkpoint
from difftori_gym.checkpointing.signals import HeldSignals, TrainingInterrupted
from difftori_gym.comparison.engines import Progress
from difftori_gym.comparison.results import Row, read_rows, write_rows
from difftori_gym.comparison.run_record import Run
from difftori_gym.comparison.statistics import dead_starts
from difftori_gym.evaluation import evaluate
from difftori_gym.observations import map_obs

#: Checkpoints of an imitation run, evenly spread over its gradient steps.
_CHECKPOINTS = 10
# Updates per measurement: what is done at every fifth update, say, is in the mean of ten.
_UPDATES = 10

Report = Callable[[Progress], None]


@dataclass
class Clock:
    """Seconds of training so far."""

    steps: int = 0  # of the learner, that an earlier process has done
    wall_s: float = 0.0
    cpu_s: float = 0.0  # processor time of this process and those before it
    _started: tuple[float, float] | None = None

    def start(self) -> None:
        """Count from now on."""
        self._started = (time.perf_counter(), time.process_time())

    def stop(self) -> None:
        """Count no more; nothing if it does not count."""
        if self._started is not None:
            self.wall_s += time.perf_counter() - self._started[0]
            self.cpu_s += time.process_time() - self._started[1]
        self._started = None

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Count nothing inside a ``with`` block."""
        ran = self._started is not None
        self.stop()
        yield
        if ran:
            self.start()


class Training(BaseCallback):
    """
    Evaluate and save at regular amounts, and keep the clock. SIGTERM and SIGINT end training with a checkpoint.

    :param clock: what an earlier process took
    :param report: told about progress, at every step
    :param demos: number of demonstrations, 0 in reinforcement learning
    """

    model: Any

    def __init__(self, run: Run, folder: Path, eval_env: VecEnv, clock: Clock, report: Report, demos: int = 0) -> None:
        super().__init__()
        self.run, self.folder, self.eval_env, self.clock, self.report = run, folder, eval_env, clock, report
        self.demos, self._imitates = demos, run.kind == "imitation"
        # What was evaluated after the checkpoint will be trained, and evaluated, again.
        self.rows = [row for row in read_rows(folder / "results.csv") if row.steps <= clock.steps]
        self._ending = HeldSignals([signal.SIGTERM, signal.SIGINT])
        self._rollout_start = clock.steps
        self._unsaved, self._due, self._whole_step = False, False, True

    @property
    def amount(self) -> int:
        """How much of the run is done."""
        return int(self.model.num_timesteps) * self.run.action_repeat

    @property
    def evaluated(self) -> int:
        """How much was done at the newest evaluation, -1 before the first."""
        return self.rows[-1].amount if self.rows else -1

    @property
    def _overdue(self) -> bool:
        return self.amount // self.run.eval_freq > max(self.evaluated, 0) // self.run.eval_freq

    def _on_training_start(self) -> None:
        self._ending.hold(self.model)
        self.clock.start()
        if self._imitates and self._overdue:  # an earlier process was killed in that evaluation
            self.evaluate()

    def _on_rollout_start(self) -> None:
        self._rollout_start, self._whole_step = self.model.num_timesteps, True
        self._rest()

    def _rest(self) -> None:
        """
        Do what is due where a run can be continued as if it had never stopped: between two rollouts, after a gradient
        step in imitation.
        """
        if self._due:
            self.evaluate()
        ends = self._ending.received
        if self._unsaved or (ends is not None and self.model.num_timesteps > 0):
            self.save()
        if ends is not None:
            self._ending.release()
            raise TrainingInterrupted(f"{ends.name} ended {self.run.name} after {self.amount} {self.run.unit}.")

    def _on_rollout_end(self) -> None:
        self._whole_step = True

    def _on_step(self) -> bool:
        on_policy = isinstance(self.model, OnPolicyAlgorithm)
        self._whole_step = self._imitates
        if not self._imitates and self.model.num_timesteps >= self.run.steps:
            return self._rollout_is_whole()
        if self._overdue:
            # Off-policy learners after the update of this step, as at the end of a run; rollouts of others are long.
            if on_policy:
                self.evaluate()
            self._due = not on_policy
        else:
            self.tell("train")
        if self._imitates:
            self._unsaved = self.model.num_timesteps % max(self.run.amount // _CHECKPOINTS, 1) == 0
            self._rest()
        return True

    def _on_training_end(self) -> None:
        if self.amount > self.evaluated:
            self.evaluate()
        if self._unsaved:
            self.save()
        self._ending.release()

    def _rollout_is_whole(self) -> bool:
        """Whether the learner has just collected what it needs for its last update."""
        collected = self.model.num_timesteps - self._rollout_start
        if isinstance(self.model, OnPolicyAlgorithm):
            return collected >= self.model.n_steps * self.model.n_envs
        frequency = getattr(self.model, "train_freq", None)
        if not isinstance(frequency, TrainFreq) or frequency.unit is not TrainFrequencyUnit.STEP:
            return False
        return collected >= frequency.frequency * self.model.n_envs

    def evaluate(self) -> None:
        """Stop the clock, evaluate, write the table. In reinforcement learning a checkpoint is due."""
        run, imitates, steps = self.run, self._imitates, self.model.num_timesteps
        self.clock.stop()
        self._due = False
        if imitates:  # which leaves the learner as it is, and can take long
            self.save()
        self.tell("evaluate")
        how: dict[str, Any] = dict(n_episodes=run.eval_episodes, seed=run.evaluation_seed, deterministic=not run.sample)
        with torch.random.fork_rng() if imitates else contextlib.nullcontext():
            if imitates:  # some draw from the global generator
                torch.manual_seed(run.evaluation_seed)
            evaluation = evaluate(self.model, self.eval_env, **how)
        row = Row(
            **{name: getattr(run, name) for name in ("suite", "task", "obs", "method", "base", "variant", "seed")},
            demos=self.demos,
            frames=0 if imitates else self.amount,
            steps=steps,
            wall_s=self.clock.wall_s,
            cpu_s=self.clock.cpu_s,
            episodes=run.eval_episodes,
            episode_return=evaluation.mean_return,
            successes=None if evaluation.successes is None else int(evaluation.successes.sum()),
            dead_starts=None if imitates else dead_starts(evaluation.returns),
            plan_ms=plan_ms(self.model, self.eval_env, carry=False, repeats=20) if imitates else None,
            n_action_steps=self.model.policy.n_action_steps if imitates else 1,
        )
        self.rows = [other for other in self.rows if other.steps < steps] + [row]
        write_rows(self.folder / "results.csv", self.rows)
        self._unsaved = steps > 0 and not imitates  # a run that did not get further starts anew
        self.tell("train")
        self.clock.start()

    def save(self) -> None:
        """Write a checkpoint beside the clock."""
        with self.clock.stopped():
            wall_s, cpu_s, whole = self.clock.wall_s, self.clock.cpu_s, self._whole_step
            save_checkpoint(self.folder, self.model, wall_s=wall_s, cpu_s=cpu_s, whole_step=whole)
        self._unsaved = False

    def tell(self, stage: str) -> None:
        """Report what the run does now."""
        self.report(Progress(stage, self.amount, len(self.rows), self.rows[-1].score if self.rows else None))


def plan_ms(model: BaseAlgorithm, env: VecEnv, *, carry: bool, repeats: int = 50) -> float:
    """
    Median milliseconds of ``predict`` for one observation, one that ``env`` begins with.

    :param carry: whether the policy's state is carried from call to call; else every call is a new plan
    """
    observation: Any = map_obs(lambda array: array[:1], env.reset())
    state, start = None, np.ones(1, dtype=np.bool_)

    def predict() -> None:  # the answer is an array, so that a GPU has been waited for
        nonlocal state, start
        _, after = model.predict(observation, state=state, episode_start=start, deterministic=True)
        if carry:
            state, start = after, np.zeros(1, dtype=np.bool_)

    return _median_ms(model, predict, repeats, warm_ups=2)


def update_ms(model: BaseAlgorithm) -> float | None:
    """
    Median milliseconds of a gradient update; None for on-policy and imitation learners and an empty replay.

    Updates change the model: save it first.
    """
    if not isinstance(model, OffPolicyAlgorithm) or model.replay_buffer is None or model.replay_buffer.size() == 0:
        return None
    batch_size = int(model.batch_size)
    model.set_logger(Logger(folder=None, output_formats=[]))
    return _median_ms(model, lambda: model.train(_UPDATES, batch_size), repeats=5, warm_ups=1) / _UPDATES


def _median_ms(model: BaseAlgorithm, action: Callable[[], Any], repeats: int, warm_ups: int) -> float:
    """By processor time, and wall-clock where a GPU has to be waited for."""
    clock = time.process_time if model.device.type == "cpu" else time.perf_counter
    times = []
    for _ in range(warm_ups + repeats):
        start = clock()
        action()
        times.append(clock() - start)
    return 1000.0 * statistics.median(times[warm_ups:])
