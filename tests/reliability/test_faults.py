"""What ends a run: the message names the cause, and the newest checkpoint is whole and can be gone on from."""

import errno
import os
import resource
import signal

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.envs.classic_control.pendulum import PendulumEnv
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import SubprocVecEnv

from difftori_gym import DiffTORI, ResumeCallback, make_vec_env
from difftori_gym.baselines import BC, TDMPC
from difftori_gym.checkpointing import TrainingInterrupted, list_checkpoints, newest_checkpoint
from difftori_gym.checkpointing import files as checkpoint_files
from difftori_gym.il import Demonstrations, Episode
from difftori_gym.rl import update

EVERY = 20
FAULT_AT = 27  # of each environment: 54 agent steps of two


@pytest.fixture(autouse=True)
def interrupts_are_heard():
    """A shell that starts a program in the background makes it deaf to SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class FaultyPendulum(PendulumEnv):
    """The pendulum, with a fault that happens once the environment has made so many steps."""

    def __init__(self, render_mode=None):
        super().__init__(render_mode)
        self.fault, self.made = "", 0

    def arm(self, fault):
        self.fault = fault

    def reset(self, **kwargs):
        if self.fault == "raises at reset" and self.made >= FAULT_AT:
            raise OSError("the simulator is gone")
        return super().reset(**kwargs)

    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        self.made += 1
        if self.fault == "first step":
            return observation, reward, True, False, info
        if self.made >= FAULT_AT:
            if self.fault == "raises":
                raise ZeroDivisionError("mass of nothing")
            if self.fault == "nan":
                observation = np.array([0.0, np.nan, 0.0], np.float32)
            if self.fault == "reward":
                reward = float("nan")
            if self.fault == "shape":
                observation = np.append(observation, np.float32(1.0))
            if self.fault == "small":
                observation = observation[:1]
        return observation, reward, terminated, truncated, info


@pytest.fixture(scope="module", autouse=True)
def _registered():
    gym.register("FaultyPendulum-v0", FaultyPendulum, max_episode_steps=15)
    yield
    del gym.registry["FaultyPendulum-v0"]


def environments(fault="", **kwargs):
    env = make_vec_env("FaultyPendulum-v0", 2, seed=0, **kwargs)
    env.env_method("arm", fault, indices=1)
    return env


SMALL = dict(
    learning_starts=8, batch_size=4, horizon=2, planner_kwargs=dict(max_iterations=2), device="cpu", seed=0,
    buffer_size=500,
    policy_kwargs=dict(net_arch=[8], latent_dim=4),
)  # fmt: skip


def difftori(env):
    return DiffTORI("MlpPolicy", env, pg_batch_size=4, **SMALL)


def saving(folder, **kwargs):
    return ResumeCallback(folder, every_steps=EVERY, every_seconds=None, **kwargs)


def goes_on_from(folder, steps, learner=DiffTORI):
    """The newest checkpoint is whole, of so many steps, and training goes on from it. A warning would be an error."""
    assert newest_checkpoint(folder) == list_checkpoints(folder)[-1]
    resume = saving(folder)
    model = resume.restore(learner, environments(), device="cpu")
    assert model.num_timesteps == steps
    model.learn(10, callback=resume, reset_num_timesteps=False)
    assert model.num_timesteps == steps + 10
    assert all(torch.isfinite(value).all() for value in model.policy.state_dict().values())


ONE = r"environment 1 \(gymnasium/FaultyPendulum-v0\) at step 12 of its episode"


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        ("raises", RuntimeError, f"step of {ONE} raised ZeroDivisionError: mass of nothing"),
        ("raises at reset", RuntimeError, "reset of environment 1 .* raised OSError: the simulator is gone"),
        ("nan", ValueError, rf"Expected finite observations, got nan at position \(1,\) from {ONE}"),
        ("reward", ValueError, f"Expected a finite reward, got nan from {ONE}"),
        ("shape", ValueError, rf"Expected observations of shape \(3,\), got \(4,\) from {ONE}"),
        ("small", ValueError, rf"Expected observations of shape \(3,\), got \(1,\) from {ONE}"),
    ],
)
def test_a_fault_of_an_environment(tmp_path, fault, error, message):
    model = difftori(environments(fault))
    with pytest.raises(error, match=message):
        model.learn(200, callback=saving(tmp_path))
    stored = model.replay_buffer.pos
    assert stored >= FAULT_AT - 1
    assert np.isfinite(model.replay_buffer.next_observations[:stored]).all()
    assert np.isfinite(model.replay_buffer.rewards[:stored]).all()
    goes_on_from(tmp_path, 40)


@pytest.mark.parametrize("learner", [DiffTORI, TDMPC])
def test_an_environment_that_always_ends_at_its_first_step_is_learned_from(tmp_path, learner):
    sampling = dict(planner_kwargs=dict(max_iterations=2, num_samples=16, num_elites=4))
    settings = SMALL | (sampling if learner is TDMPC else {"pg_batch_size": 4})
    model = learner("MlpPolicy", environments("first step"), **settings)
    model.learn(60, callback=saving(tmp_path))
    assert model.replay_buffer.dones[:30, 1].all()
    assert all(torch.isfinite(value).all() for value in model.policy.state_dict().values())
    goes_on_from(tmp_path, 60, learner)


class At(BaseCallback):
    """Does something at an agent step."""

    def __init__(self, step, action):
        super().__init__()
        self.step, self.action = step, action

    def _on_step(self):
        if self.num_timesteps == self.step:
            self.action(self.model)
        return True


# Python 3.12 warns of forks in processes with threads, which JAX and torch start.
@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_a_worker_that_is_killed(tmp_path):
    env = environments(vec_env_cls=SubprocVecEnv, vec_env_kwargs={"start_method": "fork"})
    kill = At(54, lambda model: os.kill(env.processes[1].pid, signal.SIGKILL))
    with pytest.raises(RuntimeError, match=r"environment 1 \(gymnasium/FaultyPendulum-v0\) was killed by SIGKILL"):
        difftori(env).learn(200, callback=[saving(tmp_path), kill])
    env.close()
    goes_on_from(tmp_path, 40)


# Python 3.12 warns of forks in processes with threads, which JAX and torch start.
@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_an_environment_that_raises_in_its_worker(tmp_path, capfd):
    env = environments("raises", vec_env_cls=SubprocVecEnv, vec_env_kwargs={"start_method": "fork"})
    with pytest.raises(RuntimeError, match=r"environment 1 \(gymnasium/FaultyPendulum-v0\) ended with exit code 1"):
        difftori(env).learn(200, callback=saving(tmp_path))
    env.close()
    assert "raised ZeroDivisionError: mass of nothing" in capfd.readouterr().err
    goes_on_from(tmp_path, 40)


def test_a_full_disk(tmp_path, monkeypatch):
    written = checkpoint_files._sync

    def full(path):
        if "000000060" in str(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written(path)

    monkeypatch.setattr(checkpoint_files, "_sync", full)
    with pytest.raises(OSError, match=r"room to write .*checkpoint-000000060, got: No space left on device") as caught:
        difftori(environments()).learn(200, callback=saving(tmp_path))
    assert caught.value.errno == errno.ENOSPC
    monkeypatch.undo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-000000020", "checkpoint-000000040"]
    goes_on_from(tmp_path, 40)


def test_files_that_may_not_grow(tmp_path):
    """The system itself refuses to write, wherever in the files that is."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(model):
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))

    try:
        with pytest.raises(OSError, match=r"room to write .*checkpoint-000000060, got: File too large"):
            difftori(environments()).learn(200, callback=[saving(tmp_path), At(46, limit)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-000000020", "checkpoint-000000040"]
    goes_on_from(tmp_path, 40)


def test_a_gpu_without_memory(tmp_path, monkeypatch):
    model_loss, model = update.model_loss, difftori(environments())

    def exhausted(*args):
        if model.num_timesteps >= 54:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return model_loss(*args)

    monkeypatch.setattr(update, "model_loss", exhausted)
    with pytest.raises(torch.OutOfMemoryError, match=r"batch_size=4, pg_batch_size=4: make them smaller.*2.00 GiB"):
        model.learn(200, callback=saving(tmp_path))
    monkeypatch.undo()
    goes_on_from(tmp_path, 40)


def test_a_gpu_without_memory_in_imitation(tmp_path, monkeypatch, pendulum_demonstrations):
    model = BC("MlpPolicy", None, pendulum_demonstrations, policy_kwargs=dict(net_arch=[8]), device="cpu", seed=0)

    def exhausted(*args):
        if model.num_timesteps >= 54:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    loss = model.policy.network.loss
    monkeypatch.setattr(model.policy.network, "loss", lambda batch: exhausted() or loss(batch))
    with pytest.raises(torch.OutOfMemoryError, match=r"batch_size=128, horizon=1: make them smaller"):
        model.learn(200, callback=saving(tmp_path))
    restored = saving(tmp_path).restore(BC, demonstrations=pendulum_demonstrations, device="cpu")
    assert restored.num_timesteps == 40


@pytest.fixture
def pendulum_demonstrations():
    env = gym.make("Pendulum-v1", max_episode_steps=20)
    env.action_space.seed(0)
    observations, actions = [env.reset(seed=0)[0]], [env.action_space.sample() for _ in range(20)]
    observations += [env.step(action)[0] for action in actions]
    episode = Episode(np.array(observations), np.array(actions), np.zeros(20), False, True, seed=0)
    return Demonstrations((episode,), env.observation_space, env.action_space, "Pendulum-v1")


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_training_with_a_checkpoint(tmp_path, kind):
    before = signal.getsignal(kind)
    send = At(54, lambda model: os.kill(os.getpid(), kind))
    message = rf"ended by {kind.name} after 54 steps. .*checkpoint-000000054 holds all of it"
    with pytest.raises(TrainingInterrupted, match=message):
        difftori(environments()).learn(200, callback=[saving(tmp_path), send])
    assert signal.getsignal(kind) == before
    goes_on_from(tmp_path, 54)


def test_a_second_signal_ends_training_at_once(tmp_path):
    def twice(model):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as caught:
        difftori(environments()).learn(200, callback=[saving(tmp_path), At(54, twice)])
    assert not isinstance(caught.value, TrainingInterrupted)
    goes_on_from(tmp_path, 40)


def test_after_an_error_signals_are_what_they_were(tmp_path):
    with pytest.raises(RuntimeError, match=r"mass of nothing"):
        difftori(environments("raises")).learn(200, callback=saving(tmp_path))
    with pytest.raises(KeyboardInterrupt) as caught:
        os.kill(os.getpid(), signal.SIGINT)
    assert not isinstance(caught.value, TrainingInterrupted)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    goes_on_from(tmp_path, 40)


# Python 3.12 warns of forks in processes with threads, which JAX and torch start.
@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_ctrl_c_leaves_the_workers_to_their_parent(tmp_path):
    env = environments(vec_env_cls=SubprocVecEnv, vec_env_kwargs={"start_method": "fork"})
    env.env_method("arm", "")  # answered: the workers run
    for process in env.processes:
        os.kill(process.pid, signal.SIGINT)
    send = At(54, lambda model: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(TrainingInterrupted):
        difftori(env).learn(200, callback=[saving(tmp_path), send])
    env.close()
    goes_on_from(tmp_path, 54)
