"""ResumeCallback: when it writes, what it refuses, and that it does not change what is learned."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback

from difftori_gym import DiffTORI, ResumeCallback, make_vec_env
from difftori_gym.checkpointing import list_checkpoints, read_checkpoint
from difftori_gym.checkpointing.checkpoint import steps_of

SMALL = dict(learning_starts=10, batch_size=4, buffer_size=300, device="cpu", seed=0)


def difftori(env, **kwargs):
    small = dict(
        horizon=2,
        planner_kwargs=dict(max_iterations=2),
        pg_batch_size=4,
        policy_kwargs=dict(net_arch=[8], latent_dim=4),
    )
    return DiffTORI("MlpPolicy", env, **{**SMALL, **small, **kwargs})


def steps_in(folder):
    return [steps_of(path) for path in list_checkpoints(folder)]


def test_the_newest_are_kept_and_the_end_is_saved(tmp_path):
    difftori(make_vec_env("Pendulum-v1", 2, seed=0)).learn(
        74, callback=ResumeCallback(tmp_path, every_steps=20, every_seconds=None, keep=3)
    )
    assert steps_in(tmp_path) == [40, 60, 74]
    assert all(read_checkpoint(path).begins_anew == "" for path in list_checkpoints(tmp_path))


def test_by_time(tmp_path):
    difftori(make_vec_env("Pendulum-v1", seed=0)).learn(
        30, callback=ResumeCallback(tmp_path, every_seconds=1e-9, keep=100)
    )
    assert steps_in(tmp_path) == list(range(1, 31))


def test_saving_changes_nothing(tmp_path):
    plain = difftori(make_vec_env("Pendulum-v1", 2, seed=0)).learn(60)
    saved = difftori(make_vec_env("Pendulum-v1", 2, seed=0))
    saved.learn(60, callback=ResumeCallback(tmp_path, every_steps=4, every_seconds=None))
    for name, value in plain.policy.state_dict().items():
        assert torch.equal(value, saved.policy.state_dict()[name])


class StopsAt(BaseCallback):
    def _on_step(self):
        return self.num_timesteps < 31


def test_stopped_within_a_step_new_episodes_begin(tmp_path):
    env = make_vec_env("Pendulum-v1", seed=0)
    difftori(env).learn(60, callback=[ResumeCallback(tmp_path), StopsAt()])
    (checkpoint,) = list_checkpoints(tmp_path)
    assert read_checkpoint(checkpoint).begins_anew == "training was stopped in the middle of a step"
    resume = ResumeCallback(tmp_path)
    model = resume.restore(DiffTORI, make_vec_env("Pendulum-v1", seed=0), device="cpu")
    assert model._last_obs is None
    model.learn(20, callback=resume, reset_num_timesteps=False)
    assert model.num_timesteps == 51
    assert model.replay_buffer.ends[29]  # no window crosses the gap


class Foreign(gym.Env):
    """Holds something that no file can hold."""

    def __init__(self):
        self.observation_space = spaces.Box(-1, 1, (2,), np.float32)
        self.action_space = spaces.Box(-1, 1, (1,), np.float32)
        self.foreign = (i for i in range(3))
        self.first = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.first.append(self.np_random.random())
        return np.zeros(2, np.float32), {}

    def step(self, action):
        return np.zeros(2, np.float32), 0.0, False, False, {}


@pytest.mark.parametrize("learner", ["difftori", "sac"])
def test_an_environment_that_cannot_be_saved_begins_anew_and_it_is_said(tmp_path, learner):
    env = Foreign()
    model = difftori(env) if learner == "difftori" else SAC("MlpPolicy", env, **SMALL)
    model.learn(30, callback=ResumeCallback(tmp_path))
    (checkpoint,) = list_checkpoints(tmp_path)
    assert read_checkpoint(checkpoint).begins_anew == "Foreign cannot be pickled: cannot pickle 'generator' object"
    resume, other = ResumeCallback(tmp_path), Foreign()
    loaded = resume.restore(type(model), other, device="cpu")
    assert resume.restored.begins_anew == read_checkpoint(checkpoint).begins_anew
    for name, value in model.policy.state_dict().items():
        assert torch.equal(value, loaded.policy.state_dict()[name])
    loaded.learn(20, callback=resume, reset_num_timesteps=False)
    assert loaded.num_timesteps == 50
    assert other.first[0] != env.first[0]  # not the episode that the run began with


def test_a_folder_of_another_run_is_refused(tmp_path):
    env = make_vec_env("Pendulum-v1", seed=0)
    difftori(env).learn(30, callback=ResumeCallback(tmp_path))
    with pytest.raises(ValueError, match="holds a checkpoint of 30 steps, got a model of 0: restore it"):
        difftori(env).learn(30, callback=ResumeCallback(tmp_path))
    assert steps_in(tmp_path) == [30]


def test_nothing_to_restore(tmp_path):
    assert ResumeCallback(tmp_path / "new").restore(DiffTORI, make_vec_env("Pendulum-v1")) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(every_seconds=None), "needs every_steps or every_seconds"),
        (dict(every_steps=0), "every_steps to be at least 1, got 0"),
        (dict(keep=0), "keep to be at least 1, got 0"),
        (dict(every_seconds=0.0), "every_seconds"),
    ],
)
def test_settings_are_checked(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        ResumeCallback(tmp_path, **settings)


def test_unfinished_folders_of_killed_processes_are_removed(tmp_path):
    (tmp_path / ".unfinished-123-checkpoint-000000020").mkdir()
    (tmp_path / ".unfinished-123-checkpoint-000000020" / "model.zip").write_bytes(b"half")
    difftori(make_vec_env("Pendulum-v1", seed=0)).learn(12, callback=ResumeCallback(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-000000012"]
