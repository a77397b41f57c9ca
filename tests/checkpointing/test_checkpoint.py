"""Checkpoints: whole or not there, and the learner comes back as it was."""

import pickle
import shutil

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.logger import Logger

from difftori_gym import DiffTORI
from difftori_gym.checkpointing import (
    DamagedCheckpointError,
    list_checkpoints,
    load_checkpoint,
    newest_checkpoint,
    read_checkpoint,
    save_checkpoint,
)
from difftori_gym.checkpointing.replay import TrimmedReplay
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
    written = pickle.dumps(TrimmedReplay(buffer))
    assert len(written) < 31 * 2 * 100
    assert buffer.observations.shape[0] == 5000  # the original is left alone
    read = pickle.loads(written)
    assert type(read) is type(buffer)
    assert set(stored(read)) == set(before)
    for name, array in stored(read).items():
        np.testing.assert_array_equal(array, before[name])


def test_a_full_replay_is_written_whole():
    buffer = trained_sac(buffer_size=40).replay_buffer
    assert buffer.full
    read = pickle.loads(pickle.dumps(TrimmedReplay(buffer)))
    for name, array in stored(read).items():
        np.testing.assert_array_equal(array, stored(buffer)[name])


@pytest.mark.parametrize("learner", [SAC, DiffTORI])
def test_the_replay_of_a_checkpoint_is_read_by_load_replay_buffer(tmp_path, learner):
    def new():
        env = make_vec_env("Pendulum-v1", 2, seed=0)
        return learner("MlpPolicy", env, learning_starts=20, batch_size=8, buffer_size=10_000, seed=0, device="cpu")

    model = new().learn(60)
    file = save_checkpoint(tmp_path, model, wall_s=1.0) / "replay_buffer.pkl"
    other = new()
    other.load_replay_buffer(file)
    other.set_logger(Logger(folder=None, output_formats=[]))
    other._setup_learn(0, None)
    other.train(20, 8)
    assert other.replay_buffer.size() == 30
    other.learn(20)
    assert other.replay_buffer.size() == 40


def test_a_learner_comes_back_with_weights_optimisers_and_replay(tmp_path):
    model = trained_sac(buffer_size=10_000)
    checkpoint = save_checkpoint(tmp_path, model, wall_s=1.5)
    assert newest_checkpoint(tmp_path) == checkpoint
    assert (read_checkpoint(checkpoint).agent_steps, read_checkpoint(checkpoint).wall_s) == (60, 1.5)
    assert sum(path.stat().st_size for path in checkpoint.iterdir()) < 300_000
    loaded = load_checkpoint(checkpoint, SAC, make_vec_env("Pendulum-v1", 2, seed=0), device="cpu").model
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
    loaded = load_checkpoint(save_checkpoint(tmp_path, model), PPO, env, device="cpu").model
    assert loaded.num_timesteps == 20


def test_the_newest_stay_and_older_ones_go(tmp_path):
    model = trained_sac(steps=2, buffer_size=100)
    for steps in (2, 4, 6, 8):
        model.num_timesteps = steps
        save_checkpoint(tmp_path, model, keep=3)
    assert [int(path.name[-9:]) for path in list_checkpoints(tmp_path)] == [4, 6, 8]
    save_checkpoint(tmp_path, model, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-000000008"]


def shorten(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("file", ["model.zip", "replay_buffer.pkl", "training_state.pkl", "state.json"])
@pytest.mark.parametrize("damage", [shorten, flip, lambda path: path.unlink(), lambda path: path.write_bytes(b"")])
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(two_checkpoints, tmp_path, file, damage):
    folder = tmp_path / "run"
    shutil.copytree(two_checkpoints, folder)
    damage(folder / "checkpoint-000000004" / file)
    with pytest.raises(DamagedCheckpointError, match=f"checkpoint-000000004/{file}"):
        read_checkpoint(folder / "checkpoint-000000004")
    with pytest.warns(UserWarning, match=f"damaged checkpoint: .*checkpoint-000000004/{file}"):
        assert newest_checkpoint(folder) == folder / "checkpoint-000000002"


@pytest.fixture(scope="module")
def two_checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    model = trained_sac(steps=2, buffer_size=100)
    for steps in (2, 4):
        model.num_timesteps = steps
        save_checkpoint(folder, model, keep=2)
    return folder


def test_a_checkpoint_of_another_learner_is_refused(two_checkpoints):
    with pytest.raises(ValueError, match="expected to be of PPO, got one of SAC"):
        load_checkpoint(two_checkpoints / "checkpoint-000000002", PPO, make_vec_env("Pendulum-v1", 2))


def test_other_environments_are_refused(two_checkpoints):
    with pytest.raises(ValueError, match="Expected 2 environments, as saved, got 3"):
        load_checkpoint(two_checkpoints / "checkpoint-000000002", SAC, make_vec_env("Pendulum-v1", 3))
