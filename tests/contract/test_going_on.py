"""What was saved goes on: with and without an environment, in another number of them, with a replay that fits."""

import numpy as np
import pytest


@pytest.mark.parametrize("trained_in", [0, 2], ids="trained in {}".format)
@pytest.mark.parametrize("loaded_in", [0, 1, 3], ids="loaded in {}".format)
def test_imitation_goes_on_after_loading(subject, trained_in, loaded_in, tmp_path):
    if not subject.imitates:
        pytest.skip("it needs an environment")
    model = subject.make(env=subject.envs(trained_in) if trained_in else None).learn(subject.steps)
    model.save(tmp_path / "model")
    loaded = subject.cls.load(tmp_path / "model", env=subject.envs(loaded_in) if loaded_in else None, device="cpu")
    assert loaded.get_env().num_envs == loaded.n_envs == max(loaded_in, 1)
    loaded.set_demonstrations(model.demonstrations)
    updates = loaded._n_updates
    loaded.learn(2)
    assert loaded.num_timesteps == 2
    assert loaded._n_updates == updates + 2
    loaded.learn(3, reset_num_timesteps=False)
    assert loaded.num_timesteps == 5
    loaded.set_env(subject.envs(2))
    loaded.learn(1, reset_num_timesteps=False)
    assert loaded.num_timesteps == 6
    loaded.save(tmp_path / "again")
    assert subject.cls.load(tmp_path / "again", device="cpu").num_timesteps == 6


def test_imitation_goes_on_with_the_counters_it_was_saved_with(subject, tmp_path):
    if not subject.imitates:
        pytest.skip("it needs an environment")
    model = subject.make().learn(subject.steps)
    model.save(tmp_path / "model")
    loaded = subject.cls.load(tmp_path / "model", device="cpu", demonstrations=model.demonstrations)
    loaded.learn(2, reset_num_timesteps=False)
    assert loaded.num_timesteps == subject.steps + 2
    other = model.demonstrations.take(2)
    loaded.demonstrations = other
    assert loaded._dataset._demonstrations is other
    loaded.learn(1)


def test_a_replay_of_another_number_of_environments_is_refused(subject, trained, tmp_path):
    if subject.imitates:
        pytest.skip("it has no replay")
    one = subject.make(env=subject.envs(1)).learn(subject.steps)
    one.save_replay_buffer(tmp_path / "replay")
    one.save(tmp_path / "model")
    loaded = subject.cls.load(tmp_path / "model", subject.envs(4), "cpu")
    own = loaded.replay_buffer
    with pytest.raises(ValueError, match=r"a replay of 4 environments.*got one of 1: .*with 1 environments"):
        loaded.load_replay_buffer(tmp_path / "replay")
    assert loaded.replay_buffer is own
    loaded.learn(subject.steps)
    loaded = subject.cls.load(tmp_path / "model", subject.envs(1), "cpu")
    loaded.load_replay_buffer(tmp_path / "replay")
    loaded.learn(8, reset_num_timesteps=False)


def test_a_replay_of_other_spaces_is_refused(subject, subjects, tmp_path):
    if subject.imitates:
        pytest.skip("it has no replay")
    model = subject.make()
    model.replay_buffer.action_space = type(model.action_space)(-1.0, 1.0, (3,), np.float32)
    model.save_replay_buffer(tmp_path / "replay")
    with pytest.raises(ValueError, match="expects a replay of the action_space"):
        subject.make().load_replay_buffer(tmp_path / "replay")
    other = subjects["difftori" if subject.images else "drqv2"].make()
    other.save_replay_buffer(tmp_path / "other")
    with pytest.raises(ValueError, match=r"expects a replay of several-step|expected a SequenceReplayBuffer"):
        subject.make().load_replay_buffer(tmp_path / "other")


def test_returns_of_a_loaded_replay_are_the_models_own(subjects, tmp_path):
    subject = subjects["drqv2"]
    subject.make().save_replay_buffer(tmp_path / "replay")
    model = subject.make(gamma=0.5, return_steps=1)
    model.load_replay_buffer(tmp_path / "replay")
    assert (model.replay_buffer.gamma, model.replay_buffer.n_steps) == (0.5, 1)
