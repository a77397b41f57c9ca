"""Stage b: walker-walk with networks of the paper's size, and the hours that a million frames take."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

from difftori_gym import DiffTORI, make_vec_env
from difftori_gym.envs.registry import parse_task, task_action_repeat
from gpu_stages.planning import timed, update
from gpu_stages.stage import WALKER, Noise, Stage, filled, heads
from gpu_stages.stage import way as manner_of

TASK = "dm_control/walker-walk"
PAPER_WIDTH = 512


class Until(BaseCallback):
    """
    Ends a run after some time, and tells where it was.

    :param seconds: of the whole run
    :param told: called with seconds and agent steps so far, about every ``every`` seconds
    :param every: seconds
    """

    def __init__(self, seconds: float, told: Any = None, every: float = 15.0) -> None:
        super().__init__()
        self.seconds, self.told, self.every = seconds, told, every
        self.began = self.last = time.monotonic()

    def _on_step(self) -> bool:
        now = time.monotonic()
        if self.told is not None and now - self.last >= self.every:
            self.last = now
            self.told(now - self.began, self.num_timesteps)
        return now - self.began < self.seconds


def run(stage: Stage) -> None:
    """:param stage: what is measured with"""
    width, batch = stage.choose((PAPER_WIDTH, 256), (16, 8))
    updates = stage.table("b_updates", ("width", "batch", "way"), ("updates_per_s", "ms", "waits_per_update"))
    acting = stage.table("b_acting", ("width", "envs", "way"), ("ms", "slowest_ms", "calls"))
    for each in (batch, 2 * batch):
        for manner in ("graph", "eager"):
            key = dict(width=width, batch=each, way=manner)

            def measure(key: dict[str, Any] = key) -> dict[str, Any]:
                found = update(stage, learner="DiffTORI", **key)
                return {name: found[name] for name in ("updates_per_s", "ms", "waits_per_update")}

            stage.row(updates, measure, 20.0, **key)
    for manner in ("graph", "eager"):
        key = dict(width=width, envs=1, way=manner)
        stage.row(acting, lambda key=key: _acting(stage, width, key["way"]), 15.0, **key)
    _loop(stage, width, batch)


def _acting(stage: Stage, width: int, manner: str) -> dict[str, Any]:
    model = filled(DiffTORI, Noise(*WALKER), stage, stage.choose(300, 30), policy_kwargs=dict(net_arch=heads(width)))
    observation = np.zeros(WALKER[0], np.float32)
    found = timed(stage, lambda: model.predict(observation, deterministic=True), manner)
    return {name: found[name] for name in ("ms", "slowest_ms", "calls")}


def _loop(stage: Stage, width: int, batch: int) -> None:
    """Acting, the simulator and an update per agent step, as in training."""
    table = stage.table(
        "b_training",
        ("task", "width", "batch", "envs", "way"),
        ("frames_per_s", "hours_per_million_frames", "updates_per_s", "seconds", "env_share"),
    )
    for envs in stage.choose((1, 4), (1,)):
        for manner in ("graph", "eager"):
            key = dict(task=TASK, width=width, batch=batch, envs=envs, way=manner)
            stage.row(table, lambda key=key: _frames(stage, **key), 50.0, **key)


def _frames(stage: Stage, *, task: str, width: int, batch: int, envs: int, way: str) -> dict[str, Any]:
    seconds, starts = stage.choose((40.0, 1000), (0.5, 20))
    env = make_vec_env(task, n_envs=envs, seed=0)
    simulated = _counted(env)
    model = DiffTORI(
        "MlpPolicy",
        env,
        policy_kwargs=dict(net_arch=heads(width)),
        learning_starts=starts,
        batch_size=batch,
        buffer_size=50_000,
        schedule_steps=0,
        gradient_steps=-1,
        seed=0,
        device=stage.device,
    )
    with manner_of(way, stage.device):
        model.learn(starts + stage.choose(200, 10))  # graphs are recorded
        stage.wait()
        steps, updates, spent, began = model.num_timesteps, model._n_updates, simulated[0], time.perf_counter()
        model.learn(10**9, callback=Until(seconds), reset_num_timesteps=False)
        stage.wait()
        took = time.perf_counter() - began
    env.close()
    rate = task_action_repeat(parse_task(task)) * (model.num_timesteps - steps) / took
    return dict(
        frames_per_s=rate,
        hours_per_million_frames=1e6 / rate / 3600,
        updates_per_s=(model._n_updates - updates) / took,
        seconds=took,
        env_share=(simulated[0] - spent) / took,
    )


def _counted(env: Any) -> list[float]:
    """:return: a list of one number, the seconds that were spent in the environments' steps"""
    spent, step = [0.0], env.step_wait

    def step_wait() -> Any:
        began = time.perf_counter()
        try:
            return step()
        finally:
            spent[0] += time.perf_counter() - began

    env.step_wait = step_wait
    return spent
