"""Do one run in the current process: train it from its newest checkpoint, evaluate it, film it."""

from __future__ import annotations

import contextlib
import json
import shutil
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import VecEnv

from difftori_gym.baselines.methods import get_method
from difftori_gym.checkpointing import load_checkpoint, newest_checkpoint
from difftori_gym.checkpointing.files import discard_unfinished
from difftori_gym.comparison.callback import Clock, Report, Training
from difftori_gym.comparison.demonstrations import collect_demonstrations, num_collected, read_demonstrations
from difftori_gym.comparison.files import read_json, write_text
from difftori_gym.comparison.measurements import plan_ms, update_ms
from difftori_gym.comparison.provenance import note_session
from difftori_gym.comparison.results import read_rows
from difftori_gym.comparison.run_record import Run
from difftori_gym.envs import make_vec_env
from difftori_gym.il import Demonstrations, ImitationAlgorithm
from difftori_gym.il.validation import check_same_spaces
from difftori_gym.learning.spaces import check_action_space
from difftori_gym.video import record_video

_MODEL = "model.zip"
_FINISHED = "finished.json"
#: Each environment that draws images or clouds has a drawing context of its own.
_EVAL_ENVS = {"state": 10, "pixels": 5, "pointcloud": 5}


@dataclass(frozen=True)
class Finished:
    """
    What is left of a run that is over.

    :param amount: how much was trained
    :param plan_ms: median milliseconds of ``predict`` for one observation; in imitation the table has it
    :param update_ms: median milliseconds of a gradient update, None for on-policy and imitation learners
    :param film_error: why there is no film, None when there is one or none was asked for
    """

    amount: int
    plan_ms: float | None
    update_ms: float | None
    film_error: str | None


def read_finished(folder: Path) -> Finished | None:
    """
    :param folder: folder of the run
    :return: what is left of it, None when it is not over
    """
    path = folder / _FINISHED
    return Finished(**read_json(path)) if path.exists() else None


def is_finished(run: Run, out: Path) -> bool:
    """
    :param run: a run
    :param out: folder of the results
    :return: whether it is trained for long enough, and filmed if it shall and can be; of demonstrations, whether they
        are there
    """
    if run.kind == "collect":
        return num_collected(run.demonstrations_path(out)) >= run.amount
    finished = read_finished(out / "runs" / run.name)
    if finished is None or finished.amount < run.amount:
        return False
    return not run.video or finished.film_error is not None or film_path(out, run).exists()


def film_path(out: Path, run: Run) -> Path:
    """
    :param out: folder of the results
    :param run: a run
    :return: its film
    """
    return out / "videos" / f"{run.name}.mp4"


def do_run(run: Run, folder: Path, report: Report, film_turn: AbstractContextManager[object]) -> None:
    """
    Do what is left of a run.

    :param run: the run
    :param folder: its folder, ``OUT/runs/NAME``
    :param report: told about progress
    :param film_turn: held while a film is made: some graphics drivers hang with several processes
    :raises ValueError: if the demonstrations are of another task, or hold a seed of the evaluation
    """
    out = folder.parent.parent
    discard_unfinished(folder)
    run.write(folder)
    if run.kind == "collect":
        collect_demonstrations(run, out, report)
        return
    earlier = read_finished(folder)
    begun = _begin_rl(run, folder) if run.kind == "rl" else _begin_imitation(run, folder)
    model = begun.model
    training = Training(run, folder, begun.eval_env, begun.clock, report, begun.demos)
    training.init_callback(model)
    if run.kind == "rl" and not training.rows:
        training.evaluate()
    left = run.steps - model.num_timesteps
    if left > 0:
        with contextlib.closing(configure(str(folder / f"log-{model.num_timesteps:09d}"), ["csv"])) as logger:
            model.set_logger(logger)
            model.learn(left, callback=training, reset_num_timesteps=False)
    if training.amount > training.evaluated:  # all was trained, and the last evaluation did not come to its end
        training.evaluate()
    if run.kind == "imitation":
        _keep_model_alone(model, folder)
    training.tell("film")
    with film_turn:
        film_error = _film(run, out, model) if run.video else None
    if earlier is not None and earlier.amount == training.amount:
        times = (earlier.plan_ms, earlier.update_ms)
    else:
        training.tell("measure")
        times = (plan_ms(model, begun.env, carry=True), update_ms(model)) if begun.env else (None, None)
    write_text(folder / _FINISHED, json.dumps(asdict(Finished(training.amount, *times, film_error)), indent=2))
    for env in (begun.env, begun.eval_env):
        if env is not None:
            env.close()


@dataclass(frozen=True)
class _Begun:
    """
    What a run starts from.

    :param model: the learner, new or from the newest checkpoint
    :param clock: what earlier processes took
    :param eval_env: environments of the evaluation
    :param env: training environments, None in imitation
    :param demos: number of demonstrations, 0 in reinforcement learning
    """

    model: Any
    clock: Clock
    eval_env: VecEnv
    env: VecEnv | None = None
    demos: int = 0


def _make_env(run: Run, num_envs: int = 1, **keywords: Any) -> VecEnv:
    env = make_vec_env(str(run.task_id), num_envs, obs=run.obs, **run.env_kwargs, **keywords)  # type: ignore[arg-type]
    check_action_space(env.action_space, f"A comparison on {run.task_id}")
    return env


def _begin_rl(run: Run, folder: Path) -> _Begun:
    env = _make_env(run, run.n_envs, seed=run.seed)
    eval_env = _make_env(run, min(run.eval_episodes, 10))
    method = get_method(run.method, run.obs)
    checkpoint = newest_checkpoint(folder)
    if checkpoint is not None:
        model, clock = _restored(folder, checkpoint, method.learner(), device=run.device, env=env)
        return _Begun(model, clock, eval_env, env)
    note_session(folder)
    model = method.build(env, seed=run.seed, device=run.device, hyperparameters=run.hyperparameters)
    return _Begun(model, Clock(), eval_env, env)


def _begin_imitation(run: Run, folder: Path) -> _Begun:
    out = folder.parent.parent
    env = _make_env(run, min(run.eval_episodes, _EVAL_ENVS[run.obs]))
    assert isinstance(env.action_space, spaces.Box)  # it was checked
    demonstrations = read_demonstrations(run, out, env.action_space)
    model, clock = _imitation_model(run, folder, demonstrations)
    what = f"{run.demonstrations_path(out)}"
    check_same_spaces(env.observation_space, env.action_space, model.policy, what=what, whose=str(run.task_id))
    return _Begun(model, clock, env, demos=len(demonstrations))


def _imitation_model(run: Run, folder: Path, demonstrations: Demonstrations) -> tuple[ImitationAlgorithm, Clock]:
    method = get_method(run.method, run.obs, "imitation")
    if (folder / _MODEL).exists():
        trained = method.learner().load(folder / _MODEL, device=run.device)
        rows = read_rows(folder / "results.csv")
        return trained, Clock(trained.num_timesteps, *((rows[-1].wall_s, rows[-1].cpu_s) if rows else ()))
    checkpoint = newest_checkpoint(folder)
    if checkpoint is not None:
        return _restored(folder, checkpoint, method.learner(), device=run.device, demonstrations=demonstrations)
    note_session(folder)
    base = None
    if run.base_run:
        learner = get_method(run.base, run.obs, "imitation").learner()
        base = learner.load(folder.parent / run.base_run / _MODEL, device=run.device)
    keywords: dict[str, Any] = dict(seed=run.seed, device=run.device, hyperparameters=run.hyperparameters)
    return method.build(demonstrations, base_policy=base, **keywords), Clock()


def _restored(folder: Path, checkpoint: Path, learner: type[BaseAlgorithm], **keywords: Any) -> tuple[Any, Clock]:
    restored = load_checkpoint(checkpoint, learner, **keywords)
    record = restored.record
    note_session(folder, record.agent_steps, restored.begins_anew)
    return restored.model, Clock(record.agent_steps, record.wall_s, record.cpu_s)


def _keep_model_alone(model: ImitationAlgorithm, folder: Path) -> None:
    """Save the model so that a killed process leaves no half of it; nothing continues it."""
    unfinished = folder / f"unfinished-{_MODEL}"
    model.save(unfinished)
    unfinished.replace(folder / _MODEL)
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)


def _film(run: Run, out: Path, model: BaseAlgorithm) -> str | None:
    """
    Film one episode, the first of the evaluation.

    :return: None, or why there is no film: without OpenGL the run is still whole
    """
    try:
        env = _make_env(run, render_mode="rgb_array")
        record_video(model, env, film_path(out, run), seed=run.evaluation_seed, deterministic=not run.sample)
        env.close()
    except (ValueError, ImportError, OSError, RuntimeError) as error:
        return f"{error}"
    return None
