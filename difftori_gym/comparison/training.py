"""Do one run in the current process: train it from its newest checkpoint, evaluate it, film it."""

from __future__ import annotations

import contextlib
import json
import shutil
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import VecEnv

from difftori_gym.baselines.methods import get_method
from difftori_gym.checkpointing import load_checkpoint, newest_checkpoint
from difftori_gym.checkpointing.files import discard_unfinished
from difftori_gym.comparison.callback import Clock, Report, Training, plan_ms, update_ms
from difftori_gym.comparison.demonstrations import collect_demonstrations, read_demonstrations
from difftori_gym.comparison.files import write_text
from difftori_gym.comparison.provenance import note_session
from difftori_gym.comparison.records import FINISHED, Finished, read_finished
from difftori_gym.comparison.results import read_rows
from difftori_gym.comparison.run_record import Run
from difftori_gym.envs import make_vec_env
from difftori_gym.il.validation import check_same_spaces
from difftori_gym.learning.spaces import check_action_space
from difftori_gym.video import record_video

_MODEL = "model.zip"
#: Each environment that draws images or clouds has a drawing context of its own.
_EVAL_ENVS = {"state": 10, "pixels": 5, "pointcloud": 5}


def do_run(run: Run, folder: Path, report: Report, film_turn: AbstractContextManager[object]) -> None:
    """
    Do what is left of a run.

    :param folder: its folder, ``OUT/runs/NAME``
    :param film_turn: held while a film is made: some graphics drivers hang with several processes
    :raises ValueError: if its environment has no bounded actions, or its demonstrations do not fit
    """
    out, learns_alone = folder.parent.parent, run.kind == "rl"
    discard_unfinished(folder)
    run.write(folder)
    if run.kind == "collect":
        collect_demonstrations(run, out, report)
        return
    earlier = read_finished(folder)
    env = _make_env(run, run.n_envs, seed=run.seed) if learns_alone else None
    most = 10 if learns_alone else _EVAL_ENVS[run.obs]
    eval_env = _make_env(run, min(run.eval_episodes, most))
    demonstrations = None if learns_alone else read_demonstrations(run, out, eval_env.action_space)
    model, clock = _model(run, folder, env or demonstrations)
    if demonstrations is not None:
        what, spaces = str(run.demonstrations_path(out)), (eval_env.observation_space, eval_env.action_space)
        check_same_spaces(*spaces, model.policy, what=what, whose=str(run.task_id))
    training = Training(run, folder, eval_env, clock, report, len(demonstrations or ()))
    training.init_callback(model)
    if learns_alone and not training.rows:
        training.evaluate()
    if (left := run.steps - model.num_timesteps) > 0:
        with contextlib.closing(configure(str(folder / f"log-{model.num_timesteps:09d}"), ["csv"])) as logger:
            model.set_logger(logger)
            model.learn(left, callback=training, reset_num_timesteps=False)
    if training.amount > training.evaluated:  # an earlier process was killed in the last evaluation
        training.evaluate()
    if demonstrations is not None:
        _keep_model_alone(model, folder)
    training.tell("film")
    with film_turn:
        film_error = _film(run, out, model) if run.video else None
    times: tuple[float | None, float | None] = (None, None)
    if earlier is not None and earlier.amount == training.amount:
        times = (earlier.plan_ms, earlier.update_ms)
    elif env is not None:
        training.tell("measure")
        times = (plan_ms(model, env, carry=True), update_ms(model))
    write_text(folder / FINISHED, json.dumps(asdict(Finished(training.amount, *times, film_error)), indent=2))
    for each in (env, eval_env):
        if each is not None:
            each.close()


def _make_env(run: Run, num_envs: int = 1, **keywords: Any) -> VecEnv:
    env = make_vec_env(str(run.task_id), num_envs, obs=run.obs, **run.env_kwargs, **keywords)  # type: ignore[arg-type]
    check_action_space(env.action_space, f"A comparison on {run.task_id}")
    return env


def _model(run: Run, folder: Path, source: Any) -> tuple[Any, Clock]:
    """The learner, new or from the newest checkpoint, and what earlier processes took."""
    assert run.kind != "collect"
    method, rows = get_method(run.method, run.obs, run.kind), read_rows(folder / "results.csv")
    if (folder / _MODEL).exists():  # imitation that was trained to its end
        trained = method.learner().load(folder / _MODEL, device=run.device)
        return trained, Clock(trained.num_timesteps, *((rows[-1].wall_s, rows[-1].cpu_s) if rows else ()))
    if checkpoint := newest_checkpoint(folder):
        what = {"env" if run.kind == "rl" else "demonstrations": source}
        restored = load_checkpoint(checkpoint, method.learner(), device=run.device, **what)
        record = restored.record
        note_session(folder, record.agent_steps, restored.begins_anew)
        return restored.model, Clock(record.agent_steps, record.wall_s, record.cpu_s)
    note_session(folder)
    base = None
    if run.base_run:
        learner = get_method(run.base, run.obs, run.kind).learner()
        base = learner.load(folder.parent / run.base_run / _MODEL, device=run.device)
    keywords: dict[str, Any] = dict(seed=run.seed, device=run.device, hyperparameters=run.hyperparameters)
    return method.build(source, base_policy=base, **keywords), Clock()


def _keep_model_alone(model: BaseAlgorithm, folder: Path) -> None:
    """Save the model so that a killed process leaves no half of it; nothing continues it."""
    unfinished = folder / f"unfinished-{_MODEL}"
    model.save(unfinished)
    unfinished.replace(folder / _MODEL)
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)


def _film(run: Run, out: Path, model: BaseAlgorithm) -> str | None:
    """Film the first episode of the evaluation; tells why there is no film: without OpenGL the run is still whole."""
    try:
        with contextlib.closing(_make_env(run, render_mode="rgb_array")) as env:
            record_video(model, env, run.film(out), seed=run.evaluation_seed, deterministic=not run.sample)
    except (ValueError, ImportError, OSError, RuntimeError) as error:
        return f"{error}"
    return None
