"""Train, evaluate and film one run in the current process."""

from __future__ import annotations

import contextlib
import signal
import time
from contextlib import AbstractContextManager
from pathlib import Path

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit
from stable_baselines3.common.vec_env import VecEnv

from difftori_gym.baselines.methods import get_method
from difftori_gym.checkpointing import load_checkpoint, newest_checkpoint, save_checkpoint
from difftori_gym.checkpointing.files import discard_unfinished
from difftori_gym.checkpointing.signals import HeldSignals, TrainingInterrupted
from difftori_gym.comparison.files import write_text
from difftori_gym.comparison.old_results import ResultRow, collect_results, read_results, write_results
from difftori_gym.comparison.provenance import Session, note_session, repeating_command
from difftori_gym.comparison.settings import RunSettings
from difftori_gym.comparison.statistics import dead_starts
from difftori_gym.comparison.summary import (
    RunSummary,
    measure_plan_ms,
    measure_update_ms,
    read_summary,
    write_summary,
)
from difftori_gym.comparison.workload import Begun, Progress, Report, Stopwatch, Workload
from difftori_gym.envs import make_vec_env
from difftori_gym.evaluation import evaluate
from difftori_gym.video import record_video

# Far from the seeds of training: run seeds are small numbers, and the i-th environment adds i.
_EVALUATION_SEED = 1_000_000

# The display needs no more; a message per step would slow a fast learner down.
_SECONDS_BETWEEN_REPORTS = 0.5


def evaluation_seed(seed: int) -> int:
    """
    :param seed: seed of a run
    :return: seed of the first episode of each of its evaluations, the same for every method
    """
    return _EVALUATION_SEED + 1000 * seed


class _Run(BaseCallback):
    """
    Evaluate and save at regular frames, and keep the clock of training. SIGTERM ends training with a checkpoint.

    :param settings: the run
    :param directory: its folder
    :param eval_env: environments of the evaluation
    :param state: how far an earlier process came
    :param report: told about progress
    """

    def __init__(self, settings: RunSettings, directory: Path, eval_env: VecEnv, state: Begun, report: Report) -> None:
        super().__init__()
        self.settings = settings
        self.directory = directory
        self.eval_env = eval_env
        self.clock = Stopwatch(state)
        self.report = report
        frames = state.agent_steps * settings.action_repeat
        # What was evaluated after the checkpoint will be trained, and evaluated, again.
        self.rows = [row for row in read_results(directory / "results.csv") if row.frames <= frames]
        self._ending = HeldSignals([signal.SIGTERM])
        self._reported = 0.0
        self._rollout_start = state.agent_steps
        self._unsaved, self._due, self._whole_step = False, False, True

    @property
    def frames(self) -> int:
        """Environment frames trained so far."""
        return self.model.num_timesteps * self.settings.action_repeat

    def _on_training_start(self) -> None:
        self._ending.hold(self.model)
        self.clock.start()

    def _on_rollout_start(self) -> None:
        self._rollout_start, self._whole_step = self.model.num_timesteps, True
        if self._due:
            self.evaluate()
        ends = self._ending.received
        # Not at the evaluation: only between two rollouts a run can be continued as if it had never stopped.
        if self._unsaved or (ends is not None and self.model.num_timesteps > 0):
            self.clock.stop()
            self.save()
            self.clock.start()
        if ends is not None:
            self._ending.release()
            raise TrainingInterrupted(f"{ends.name} ended {self.settings.name} after {self.frames} frames.")

    def _on_rollout_end(self) -> None:
        self._whole_step = True

    def _on_step(self) -> bool:
        self._whole_step = False
        if self.model.num_timesteps >= self.settings.agent_steps:
            return self._rollout_is_whole()
        if self.frames // self.settings.eval_freq > self.rows[-1].frames // self.settings.eval_freq:
            # Off-policy learners after the update of this step, as at the end of a run; rollouts of others are long.
            if isinstance(self.model, OnPolicyAlgorithm):
                self.evaluate()
            self._due = not isinstance(self.model, OnPolicyAlgorithm)
        elif time.perf_counter() - self._reported > _SECONDS_BETWEEN_REPORTS:
            self.tell("train")
        return True

    def _on_training_end(self) -> None:
        if self.frames > self.rows[-1].frames:
            self.evaluate()
        if self._unsaved:
            self.save()
        self._ending.release()

    def _rollout_is_whole(self) -> bool:
        """:return: whether the learner has just collected what it needs for its last update"""
        collected = self.model.num_timesteps - self._rollout_start
        if isinstance(self.model, OnPolicyAlgorithm):
            return collected >= self.model.n_steps * self.model.n_envs
        frequency = getattr(self.model, "train_freq", None)
        if not isinstance(frequency, TrainFreq) or frequency.unit is not TrainFrequencyUnit.STEP:
            return False
        return collected >= frequency.frequency * self.model.n_envs

    def evaluate(self) -> None:
        """Stop the clock, evaluate, write the table; a checkpoint is due."""
        self.clock.stop()
        self._due = False
        self.tell("evaluate")
        settings = self.settings
        evaluation = evaluate(
            self.model, self.eval_env, n_episodes=settings.eval_episodes, seed=evaluation_seed(settings.seed)
        )
        row = ResultRow(
            suite=settings.suite,
            task=settings.task,
            obs=settings.obs,
            method=settings.method,
            seed=settings.seed,
            frames=self.frames,
            agent_steps=self.model.num_timesteps,
            wall_s=self.clock.wall_s,
            episode_return=evaluation.mean_return,
            success=evaluation.success_rate,
            cpu_s=self.clock.cpu_s,
            dead_starts=dead_starts(evaluation.returns),
        )
        self.rows = [other for other in self.rows if other.frames < row.frames] + [row]
        write_results(self.directory / "results.csv", self.rows)
        self._unsaved = self.model.num_timesteps > 0  # a run that did not get further starts anew
        self.tell("train")
        self.clock.start()

    def save(self) -> None:
        """Write the checkpoint."""
        clock = self.clock
        save_checkpoint(self.directory, self.model, wall_s=clock.wall_s, cpu_s=clock.cpu_s, whole_step=self._whole_step)
        self._unsaved = False

    def tell(self, stage: str) -> None:
        """
        :param stage: what the run does now
        """
        self._reported = time.perf_counter()
        episode_return = self.rows[-1].episode_return if self.rows else None
        self.report(Progress(stage, self.frames, len(self.rows), episode_return))


def train_run(
    settings: RunSettings, directory: Path, report: Report, one_at_a_time: AbstractContextManager[object]
) -> None:
    """
    Do what is left of a run: training from its newest checkpoint, evaluations, film, measurements.

    :param settings: the run
    :param directory: its folder, made when missing
    :param report: told about progress
    :param one_at_a_time: held while the film is made: some graphics drivers hang with several processes
    """
    directory.mkdir(parents=True, exist_ok=True)
    discard_unfinished(directory)
    write_text(directory / "args.json", settings.to_json())
    task = str(settings.task_id)
    keywords = settings.environment()
    env = make_vec_env(task, settings.n_envs, seed=settings.seed, **keywords)
    eval_env = make_vec_env(task, min(settings.eval_episodes, 10), **keywords)
    model, state = _model(settings, directory, env)
    run = _Run(settings, directory, eval_env, state, report)
    run.init_callback(model)
    if not run.rows:
        run.evaluate()
    left = settings.agent_steps - model.num_timesteps
    if left > 0:
        with contextlib.closing(configure(str(directory / f"log-{model.num_timesteps:09d}"), ["csv"])) as logger:
            model.set_logger(logger)
            model.learn(left, callback=run, reset_num_timesteps=False)
    run.tell("film")
    with one_at_a_time:
        film_error = _film(settings, directory, model) if settings.video else None
    run.tell("measure")
    summary = RunSummary(
        frames=run.frames,
        plan_ms=measure_plan_ms(model, env),
        update_ms=measure_update_ms(model),
        film_error=film_error,
    )
    write_summary(directory, summary)
    env.close()
    eval_env.close()


def _model(settings: RunSettings, directory: Path, env: VecEnv) -> tuple[BaseAlgorithm, Begun]:
    """
    :param settings: the run
    :param directory: its folder
    :param env: training environments
    :return: the learner, new or from the newest checkpoint, and how far it is
    """
    method = get_method(settings.method, settings.obs)
    checkpoint = newest_checkpoint(directory)
    if checkpoint is None:
        note_session(directory, settings.to_json(), repeating_command(settings), Session.now())
        model = method.build(env, seed=settings.seed, device=settings.device, hyperparameters=settings.hyperparameters)
        return model, Begun()
    restored = load_checkpoint(checkpoint, method.learner(), env, device=settings.device)
    begun = Begun(restored.record.agent_steps, restored.record.wall_s, restored.record.cpu_s)
    note_session(
        directory, settings.to_json(), repeating_command(settings), Session.now(begun.agent_steps, restored.begins_anew)
    )
    return restored.model, begun


def is_finished(run: RunSettings, out: Path) -> bool:
    """
    :param run: a run
    :param out: folder of the results
    :return: whether it is trained for long enough, and filmed if it shall and can be
    """
    directory = out / "runs" / run.name
    summary = read_summary(directory)
    if summary is None or summary.frames < run.frames:
        return False
    return not run.video or summary.film_error is not None or film_path(directory, run).exists()


#: Runs of reinforcement learning.
TRAINING = Workload(execute=train_run, is_finished=is_finished, collect=collect_results)


def film_path(directory: Path, settings: RunSettings) -> Path:
    """
    :param directory: folder of the run, ``OUT/runs/NAME``
    :param settings: the run
    :return: its film, ``OUT/videos/NAME.mp4``
    """
    return directory.parent.parent / "videos" / f"{settings.name}.mp4"


def _film(settings: RunSettings, directory: Path, model: BaseAlgorithm) -> str | None:
    """
    Film one episode, the first of the evaluation.

    :param settings: the run
    :param directory: its folder
    :param model: the trained learner
    :return: None, or why there is no film: without OpenGL the run is still whole
    """
    try:
        env = make_vec_env(str(settings.task_id), render_mode="rgb_array", **settings.environment())
        record_video(model, env, film_path(directory, settings), seed=evaluation_seed(settings.seed))
        env.close()
    except (ValueError, ImportError, OSError) as error:
        return f"{error}"
    return None
