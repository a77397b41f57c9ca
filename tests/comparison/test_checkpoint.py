"""Checkpoints: whole or not there, and the learner comes back as it was."""

import shutil

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.logger import Logger

from difftori_gym.comparison.checkpoint import (
    RunState,
    find_checkpoint,
    load_checkpoint,
    read_state,
    restore_replay,
    save_checkpoint,
    trim_replay,
)
from difftori_gym.envs import make_vec_env

SMALL = {"net_arch": [8]}


def trained_sac(steps=60, **keywords):
    env = make_vec_env("Pendulum-v1", 2, seed=0)
    model = SAC(
        "MlpPolicy", env, learning_starts=10, batch_size=8, policy_kwargs=dict(SMALL), seed=0, device="cpu", **keywords
    )
    return model.learn(steps)


def stored(buffer):
    return {
        name: getattr(buffer, name)
        for name in ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")
        if getattr(buffer, name, None) is not None
    }


@pytest.mark.parametrize(
    "memory", [{}, {"optimize_memory_usage": True, "replay_buffer_kwargs": {"handle_timeout_termination": False}}]
)
def test_a_trimmed_replay_is_small_and_comes_back_whole(memory):
    buffer = trained_sac(buffer_size=10_000, **memory).replay_buffer
    before = {name: array.copy() for name, array in stored(buffer).items()}
    trimmed = trim_replay(buffer)
    assert trimmed.observations.shape[0] == 31
    assert buffer.observations.shape[0] == 5000  # the original is left alone
    restore_replay(trimmed)
    assert set(stored(trimmed)) == set(before)
    for name, array in stored(trimmed).items():
        np.testing.assert_array_equal(array, before[name])


def test_a_full_replay_is_left_as_it_is():
    buffer = trained_sac(buffer_size=40).replay_buffer
    assert buffer.full
    assert trim_replay(buffer) is buffer


def test_a_learner_comes_back_with_weights_optimisers_and_replay(tmp_path):
    model = trained_sac(buffer_size=10_000)
    save_checkpoint(tmp_path, model, RunState(60, 1.5))
    checkpoint = find_checkpoint(tmp_path)
    assert read_state(checkpoint) == RunState(60, 1.5)
    assert sum(path.stat().st_size for path in checkpoint.iterdir()) < 300_000
    loaded = load_checkpoint(checkpoint, SAC, make_vec_env("Pendulum-v1", 2, seed=0), seed=0, device="cpu")
    assert loaded.num_timesteps == 60
    for mine, theirs in zip(model.policy.state_dict().values(), loaded.policy.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)
    assert loaded.replay_buffer.size() == model.replay_buffer.size() == 30
    # One more update from the same random state ends in the same weights: optimisers and replay are the same too.
    for each in (model, loaded):
        each.set_logger(Logger(folder=None, output_formats=[]))
        np.random.seed(3)
        torch.manual_seed(3)
        each.train(1, 8)
    for mine, theirs in zip(model.policy.state_dict().values(), loaded.policy.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)
    loaded.learn(100, reset_num_timesteps=False)
    assert loaded.num_timesteps == 160
    assert loaded.replay_buffer.size() == 80


def test_on_policy_learners_have_no_replay(tmp_path):
    env = make_vec_env("Pendulum-v1", seed=0)
    model = PPO("MlpPolicy", env, n_steps=20, batch_size=20, policy_kwargs=dict(SMALL), seed=0, device="cpu").learn(20)
    save_checkpoint(tmp_path, model, RunState(20, 0.1))
    loaded = load_checkpoint(find_checkpoint(tmp_path), PPO, env, seed=0, device="cpu")
    assert loaded.num_timesteps == 20


def test_only_the_newest_whole_checkpoint_counts(tmp_path):
    assert find_checkpoint(tmp_path) is None
    model = trained_sac(steps=2, buffer_size=100)
    save_checkpoint(tmp_path, model, RunState(2, 0.1))
    shutil.copytree(tmp_path / "checkpoint-000000002", tmp_path / "checkpoint-000000004")
    (tmp_path / "checkpoint-000000004" / "state.json").unlink()  # killed while it was written
    assert find_checkpoint(tmp_path).name == "checkpoint-000000002"
    save_checkpoint(tmp_path, model, RunState(4, 0.2))
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-000000004"]
