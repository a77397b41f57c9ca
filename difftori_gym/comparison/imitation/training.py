"""Train, evaluate and film one imitation run in the current process."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import time
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import median
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import VecEnv

from difftori_gym.baselines.methods import get_method
from difftori_gym.checkpointing import load_checkpoint, newest_checkpoint, save_checkpoint
from difftori_gym.checkpointing.files import discard_unfinished
from difftori_gym.checkpointing.signals import HeldSignals, TrainingInterrupted
from difftori_gym.comparison.files import read_json, write_text
from difftori_gym.comparison.imitation.demonstrations import collect_demonstrations, num_collected, read_demonstrations
from difftori_gym.comparison.imitation.results import ImitationRow, collect_rows, read_rows, write_rows
from difftori_gym.comparison.imitation.settings import CollectionRun, ImitationRun, repeating_command
from difftori_gym.comparison.provenance import Session, note_session
from difftori_gym.comparison.training import evaluation_seed
from difftori_gym.comparison.workload import Begun, Progress, Report, Stopwatch, Workload
from difftori_gym.envs import make_vec_env
from difftori_gym.evaluation import evaluate
from difftori_gym.il import Demonstrations, ImitationAlgorithm
from difftori_gym.il.validation import check_same_spaces
from difftori_gym.video import record_video

_MODEL = "model.zip"
_FINISHED = "finished.json"
_SECONDS_BETWEEN_REPORTS = 0.5
#: Checkpoints of a run, evenly spread over its gradient steps.
_CHECKPOINTS = 10
#: Each environment that draws images or clouds has a drawing context of its own.
_EVAL_ENVS = {"state": 10, "pixels": 5, "pointcloud": 5}
_TIMED_PLANS = 20


def execute(
    run: CollectionRun | ImitationRun, directory: Path, report: Report, one_at_a_time: AbstractContextManager[object]
) -> None:
    """
    Do what is left of a run.

    :param run: the run
    :param directory: its folder, ``OUT/runs/NAME``
    :param report: told about progress
    :param one_at_a_time: held while a film is made: some graphics drivers hang with several processes
    """
    if isinstance(run, CollectionRun):
        collect_demonstrations(run, directory.parent.parent, report)
    else:
        train_imitation(run, directory, report, one_at_a_time)


def is_finished(run: CollectionRun | ImitationRun, out: Path) -> bool:
    """
    :param run: a run
    :param out: folder of the results
    :return: whether nothing is left of it
    """
    if isinstance(run, CollectionRun):
        return num_collected(run.folder(out)) >= run.demos
    directory = out / "runs" / run.name
    if not (directory / _FINISHED).exists():
        return False
    return not run.video or film_path(out, run).exists() or film_error(out, run) is not None


#: Runs of imitation, and the collection of what they imitate.
IMITATION = Workload(execute=execute, is_finished=is_finished, collect=collect_rows)


def film_path(out: Path, run: ImitationRun) -> Path:
    """
    :param out: folder of the results
    :param run: a run
    :return: its film
    """
    return out / "videos" / f"{run.name}.mp4"


def film_error(out: Path, run: ImitationRun) -> str | None:
    """
    :param out: folder of the results
    :param run: a run
    :return: why it has no film, None when that was not tried or went well
    """
    path = out / "runs" / run.name / _FINISHED
    error = read_json(path).get("film_error") if path.exists() else None
    return None if error is None else str(error)


def train_imitation(
    run: ImitationRun, directory: Path, report: Report, one_at_a_time: AbstractContextManager[object]
) -> None:
    """
    Do what is left of a run: training from its newest checkpoint, evaluations, film.

    :param run: the run
    :param directory: its folder, ``OUT/runs/NAME``
    :param report: told about progress
    :param one_at_a_time: held while the film is made
    :raises ValueError: if the demonstrations are of another task, or hold a seed of the evaluation
    """
    directory.mkdir(parents=True, exist_ok=True)
    discard_unfinished(directory)
    write_text(directory / "args.json", run.to_json())
    out = directory.parent.parent
    env = make_vec_env(
        str(run.task_id),
        min(run.eval_episodes, _EVAL_ENVS[run.obs]),
        obs=run.obs,  # type: ignore[arg-type]
        **run.env_kwargs,
    )
    assert isinstance(env.action_space, spaces.Box)  # the plan was checked
    demonstrations = read_demonstrations(run, out, env.action_space)
    check_held_out(run, demonstrations)
    model, state = _model(run, directory, demonstrations)
    what = f"{run.demonstrations_path(out)}"
    check_same_spaces(env.observation_space, env.action_space, model.policy, what=what, whose=str(run.task_id))
    callback = _Run(run, directory, len(demonstrations), env, state, report)
    callback.init_callback(model)
    left = run.steps - model.num_timesteps
    if left > 0:
        logger = configure(str(directory / f"log-{model.num_timesteps:09d}"), ["csv"])
        with contextlib.closing(logger):
            model.set_logger(logger)
            model.learn(left, callback=callback, reset_num_timesteps=False)
    if not callback.rows or callback.rows[-1].steps < run.steps:
        callback.evaluate()
    save_whole(model, directory / _MODEL)
    for checkpoint in directory.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    env.close()
    callback.tell("film")
    with one_at_a_time:
        error = _film(run, out, model) if run.video else None
    write_text(directory / _FINISHED, json.dumps(dict(film_error=error)))


def save_whole(model: ImitationAlgorithm, path: Path) -> None:
    """
    Save a model so that a killed process leaves no half of it.

    :param model: the learner
    :param path: file ending in ``.zip``
    """
    unfinished = path.with_name(f"unfinished-{path.name}")
    model.save(unfinished)
    unfinished.replace(path)


def check_held_out(run: ImitationRun, demonstrations: Demonstrations) -> None:
    """
    :param run: a run
    :param demonstrations: what it learns from
    :raises ValueError: if one of them began where an evaluation episode begins
    """
    first = evaluation_seed(run.seed)
    shared = [seed for seed in demonstrations.seeds if seed is not None and first <= seed < first + run.eval_episodes]
    if shared:
        raise ValueError(
            f"{demonstrations.source}: expected demonstrations from other seeds than those of the evaluation, "
            f"{first} to {first + run.eval_episodes - 1}, got {shared}. Collect them with another --seed."
        )


class _Run(BaseCallback):
    """
    Evaluate, save, and keep the clock of training. SIGTERM ends training with a checkpoint.

    :param run: the run
    :param directory: its folder
    :param demos: number of demonstrations
    :param env: environments of the evaluation
    :param state: how far an earlier process came
    :param report: told about progress
    """

    model: ImitationAlgorithm

    def __init__(
        self, run: ImitationRun, directory: Path, demos: int, env: VecEnv, state: Begun, report: Report
    ) -> None:
        super().__init__()
        self.run, self.directory, self.demos, self.env = run, directory, demos, env
        self.clock, self.report = Stopwatch(state), report
        self.rows = [row for row in read_rows(directory / "results.csv") if row.steps <= state.agent_steps]
        self.save_freq = max(run.steps // _CHECKPOINTS, 1)
        self._ending = HeldSignals([signal.SIGTERM])
        self._reported = 0.0

    def _on_training_start(self) -> None:
        self._ending.hold(self.model)
        self.clock.start()

    def _on_training_end(self) -> None:
        self._ending.release()

    def _on_step(self) -> bool:
        done, ends = self.model.num_timesteps, self._ending.received
        if done % self.run.eval_freq == 0 or done == self.run.steps:
            self.evaluate()
        elif done % self.save_freq == 0 or ends is not None:
            self.clock.stop()
            self._save()
            self.clock.start()
        if ends is not None:
            self._ending.release()
            raise TrainingInterrupted(f"{ends.name} ended {self.run.name} after {done} steps.")
        if time.perf_counter() - self._reported > _SECONDS_BETWEEN_REPORTS:
            self.tell("train")
        return True

    def _save(self) -> None:
        save_checkpoint(self.directory, self.model, wall_s=self.clock.wall_s, cpu_s=self.clock.cpu_s)

    def evaluate(self) -> None:
        """Stop the clock, evaluate, write the table and a checkpoint."""
        self.clock.stop()
        self._save()
        self.tell("evaluate")
        run, first = self.run, evaluation_seed(self.run.seed)
        with torch.random.fork_rng():
            torch.manual_seed(first)
            evaluation = evaluate(
                self.model, self.env, n_episodes=run.eval_episodes, seed=first, deterministic=not run.sample
            )
        row = ImitationRow(
            suite=run.suite,
            task=run.task,
            obs=run.obs,
            demos=self.demos,
            method=run.method,
            base=run.base or "",
            variant=run.variant,
            seed=run.seed,
            steps=self.model.num_timesteps,
            wall_s=self.clock.wall_s,
            cpu_s=self.clock.cpu_s,
            episodes=run.eval_episodes,
            successes=None if evaluation.successes is None else int(evaluation.successes.sum()),
            mean_return=evaluation.mean_return,
            plan_ms=median_plan_ms(self.model, self.env),
            n_action_steps=self.model.policy.n_action_steps,
        )
        self.rows = [other for other in self.rows if other.steps < row.steps] + [row]
        write_rows(self.directory / "results.csv", self.rows)
        self.tell("train")
        self.clock.start()

    def tell(self, stage: str) -> None:
        """
        :param stage: what the run does now
        """
        self._reported = time.perf_counter()
        score = None
        if self.rows:
            row = self.rows[-1]
            score = row.mean_return if row.successes is None else 100.0 * row.successes / row.episodes
        self.report(Progress(stage, self.model.num_timesteps, len(self.rows), score))


def median_plan_ms(model: ImitationAlgorithm, env: VecEnv, repeats: int = _TIMED_PLANS) -> float:
    """
    Time new plans for one observation at a time.

    :param model: the learner
    :param env: an environment to draw an observation from
    :param repeats: number of plans
    :return: median milliseconds; of processor time on a CPU
    """
    observation: Any = env.reset()
    one = {key: value[:1] for key, value in observation.items()} if isinstance(observation, dict) else observation[:1]
    on_gpu = model.device.type != "cpu"
    clock = time.perf_counter if on_gpu else time.process_time
    times = []
    for _ in range(repeats + 2):
        start = clock()
        model.predict(one, deterministic=True)  # the answer is an array, so that a GPU has been waited for
        times.append(clock() - start)
    return 1000.0 * median(times[2:])


def _model(run: ImitationRun, directory: Path, demonstrations: Demonstrations) -> tuple[ImitationAlgorithm, Begun]:
    """
    :param run: the run
    :param directory: its folder
    :param demonstrations: what it learns from
    :return: the learner, new or from the newest checkpoint, and how far it is
    """
    method = get_method(run.method, kind="imitation")
    if (directory / _MODEL).exists():
        rows = read_rows(directory / "results.csv")
        trained = method.learner().load(directory / _MODEL, device=run.device)
        assert isinstance(trained, ImitationAlgorithm)
        return trained, Begun(trained.num_timesteps, *((rows[-1].wall_s, rows[-1].cpu_s) if rows else ()))
    checkpoint = newest_checkpoint(directory)
    if checkpoint is not None:
        restored = load_checkpoint(checkpoint, method.learner(), demonstrations=demonstrations, device=run.device)
        assert isinstance(restored.model, ImitationAlgorithm)
        _note(run, directory, restored.record.agent_steps)
        return restored.model, Begun(restored.record.agent_steps, restored.record.wall_s, restored.record.cpu_s)
    _note(run, directory, 0)
    base = None
    if run.base is not None:
        assert run.base_run is not None
        learner = get_method(run.base, kind="imitation").learner()
        base = learner.load(directory.parent / run.base_run / _MODEL, device=run.device)
    model = method.build(
        demonstrations, base_policy=base, seed=run.seed, device=run.device, hyperparameters=run.hyperparameters
    )
    assert isinstance(model, ImitationAlgorithm)
    return model, Begun()


def _note(run: ImitationRun, directory: Path, from_step: int) -> None:
    note_session(directory, run.to_json(), repeating_command(run), Session.now(from_step))


def _film(run: ImitationRun, out: Path, model: ImitationAlgorithm) -> str | None:
    """
    Film one episode, the first of the evaluation.

    :param run: the run
    :param out: folder of the results
    :param model: the trained learner
    :return: None, or why there is no film: without OpenGL the run is still whole
    """
    try:
        env = make_vec_env(
            str(run.task_id),
            obs=run.obs,  # type: ignore[arg-type]
            render_mode="rgb_array",
            **run.env_kwargs,
        )
        record_video(model, env, film_path(out, run), seed=evaluation_seed(run.seed), deterministic=not run.sample)
        env.close()
    except (ValueError, ImportError, OSError) as error:
        return f"{error}"
    return None
