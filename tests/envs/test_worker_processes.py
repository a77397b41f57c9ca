"""Worker processes that fail: the error names the environment."""

import os
import signal

import numpy as np
import pytest
from stable_baselines3.common.vec_env import SubprocVecEnv

from difftori_gym.envs import make_vec_env
from difftori_gym.envs.worker_processes import NamedSubprocVecEnv


def workers(**kwargs):
    return make_vec_env(
        "Pendulum-v1", 2, seed=3, vec_env_cls=SubprocVecEnv, vec_env_kwargs={"start_method": "fork"}, **kwargs
    )


# Python 3.12 warns of forks in processes with threads, which JAX and torch start.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*")


def test_a_killed_worker_is_named():
    vec_env = workers()
    assert isinstance(vec_env, SubprocVecEnv)
    vec_env.reset()
    vec_env.step(np.zeros((2, 1)))
    os.kill(vec_env.processes[1].pid, signal.SIGKILL)
    message = r"environment 1 \(gymnasium/Pendulum-v1\) was killed by SIGKILL.*fewer environments"
    with pytest.raises(RuntimeError, match=message):
        vec_env.step(np.zeros((2, 1)))
    vec_env.close()
    assert not any(process.is_alive() for process in vec_env.processes)


def test_workers_end_whatever_the_parent_does_when_it_is_asked_to():
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        vec_env = workers()
        vec_env.reset()
        os.kill(vec_env.processes[1].pid, signal.SIGKILL)
        vec_env.processes[1].join()
        vec_env.close()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not any(process.is_alive() for process in vec_env.processes)


def test_a_worker_that_fails_is_named(capfd):
    vec_env = workers()
    vec_env.reset()
    vec_env.remotes[0].send(("nonsense", None))
    with pytest.raises(RuntimeError, match=r"environment 0 \(gymnasium/Pendulum-v1\) ended with exit code 1"):
        vec_env.remotes[0].recv()
    assert "NotImplementedError" in capfd.readouterr().err
    vec_env.close()
    vec_env.close()


def test_a_worker_that_cannot_build_its_environment_is_named(capfd):
    def fail():
        raise OSError("no such simulator")

    with pytest.raises(RuntimeError, match="worker process of number one ended with exit code 1"):
        NamedSubprocVecEnv([fail, fail], start_method="fork", names=["number one", "number two"])
    assert "no such simulator" in capfd.readouterr().err


def test_nothing_else_is_different():
    vec_env = workers()
    observations = vec_env.reset()
    np.testing.assert_array_equal(observations, make_vec_env("Pendulum-v1", 2, seed=3).reset())
    assert vec_env.get_attr("render_mode") == [None, None]
    vec_env.close()
