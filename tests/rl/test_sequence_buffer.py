"""Windows of the replay buffer, filled by Stable-Baselines3's own collection from environments that count."""

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from difftori_gym.rl.sequence_buffer import DictSequenceReplayBuffer, SequenceBatch, SequenceReplayBuffer

HORIZON = 4


@pytest.fixture
def filled(counter_env, difftori) -> Callable[..., Any]:
    """Trains nothing, only collects: a model whose buffer holds ``steps`` steps of each of ``n_envs`` environments."""

    def build(
        steps: int = 40,
        n_envs: int = 1,
        lengths: tuple[int, ...] = (5, 1, 3, 7),
        terminates: tuple[bool, ...] = (True, False, True),
        buffer_size: int = 1000,
        **settings: Any,
    ) -> Any:
        env = DummyVecEnv([lambda i=i: counter_env(i, lengths, terminates) for i in range(n_envs)])
        model = difftori.make(env, learning_starts=10**6, buffer_size=buffer_size * n_envs, **settings)
        return model.learn(steps * n_envs)

    return build


def check_windows(
    batch: SequenceBatch, env: Any, newest: dict[int, tuple[int, int]], cut: set[tuple[int, int, int]] = frozenset()
) -> None:
    """
    Every entry of every window is the one that the counting environment gave at that place.

    :param newest: environment -> its newest stored (episode, step)
    :param cut: (environment, episode, step) after which the environment was reset from outside
    """
    horizon = batch.rewards.shape[1]
    for row in range(len(batch.indices)):
        index, episode, t = (int(number) for number in batch.observations[row])
        alive = True
        for h in range(horizon):
            if not alive:
                assert batch.mask[row, h] == 0
                # Padding repeats the last real step.
                for name in ("actions", "next_observations", "rewards", "terminated"):
                    torch.testing.assert_close(getattr(batch, name)[row, h], getattr(batch, name)[row, h - 1])
                assert batch.next_valid[row, h] == 0
                continue
            assert batch.mask[row, h] == 1
            assert batch.rewards[row, h] == env.reward_of(index, episode, t)
            last = t + 1 == env.length(episode)
            assert batch.terminated[row, h] == float(last and env.ends_by_termination(episode))
            if batch.next_valid[row, h]:
                assert batch.next_observations[row, h].tolist() == [index, episode, t + 1]
            alive = not last and (episode, t) != newest[index] and (index, episode, t) not in cut
            t += 1


def newest_of(model: Any) -> dict[int, tuple[int, int]]:
    last = model.replay_buffer.observations[model.replay_buffer.pos - 1]
    return {int(index): (int(episode), int(t)) for index, episode, t in last}


def environment(model: Any) -> Any:
    return model.get_env().envs[0].unwrapped


@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize(
    ("buffer_size", "optimize"),
    # Where memory is saved, a buffer of one observation holds no transition.
    [(1000, False), (23, False), (6, False), (1, False), (1000, True), (23, True), (6, True), (2, True)],
)
def test_windows_are_what_happened(filled, n_envs, buffer_size, optimize):
    settings: dict[str, Any] = {}
    terminates: tuple[bool, ...] = (True, False, True)
    if optimize:
        # Stable-Baselines3 cannot tell time limits then: every end is a termination.
        settings = dict(optimize_memory_usage=True, replay_buffer_kwargs=dict(handle_timeout_termination=False))
        terminates = (True,)
    model = filled(n_envs=n_envs, buffer_size=buffer_size, terminates=terminates, **settings)
    buffer = model.replay_buffer
    stored = min(40, buffer_size)
    batch = buffer.sample_sequences(3 * n_envs * stored, HORIZON)
    check_windows(batch, environment(model), newest_of(model))
    if not optimize:
        torch.testing.assert_close(batch.next_valid, batch.mask)
    # Anything stored may start a window, but for what an overwritten observation has made unusable.
    assert len(set(batch.indices)) == n_envs * (stored - (optimize and stored == buffer_size))


def test_next_observation_at_the_end_of_an_episode_is_the_last_one_not_the_reset(filled):
    model = filled(lengths=(2,), terminates=(False,))
    batch = model.replay_buffer.sample_sequences(64, 3)
    ending = batch.observations[:, 2] == 1
    assert ending.any()
    assert (batch.next_observations[ending, 0, 2] == 2).all()
    assert (batch.next_observations[ending, 0, 1] == batch.observations[ending, 1]).all()


def test_time_limits_are_not_terminations(filled):
    for terminates in (True, False):
        batch = filled(lengths=(3,), terminates=(terminates,)).replay_buffer.sample_sequences(64, 3)
        ends = batch.observations[:, 2] == 2
        assert ends.any()
        assert (batch.terminated[ends, 0] == float(terminates)).all()
        assert (batch.terminated[~ends, 0] == 0).all()


def test_memory_optimisation_marks_lost_observations(filled):
    model = filled(
        lengths=(4,),
        terminates=(True,),
        optimize_memory_usage=True,
        replay_buffer_kwargs=dict(handle_timeout_termination=False),
    )
    batch = model.replay_buffer.sample_sequences(64, 1)
    ends = batch.observations[:, 2] == 3
    assert ends.any()
    assert (batch.next_valid[ends] == 0).all()
    assert (batch.next_valid[~ends] == 1).all()
    assert (batch.mask == 1).all()


@pytest.mark.parametrize("reset_num_timesteps", [True, False])
def test_no_window_crosses_a_restart_of_learning(filled, reset_num_timesteps):
    model = filled(steps=7, lengths=(100,))
    if not reset_num_timesteps:
        model._last_obs = None  # as set_env and load leave it
    cut = {(0, 0, 6)}
    model.learn(7, reset_num_timesteps=reset_num_timesteps)
    for _ in range(20):
        check_windows(model.replay_buffer.sample_sequences(16, HORIZON), environment(model), newest_of(model), cut)


def test_learning_that_goes_on_is_not_cut(filled):
    model = filled(steps=6, lengths=(100,))
    model.learn(6, reset_num_timesteps=False)
    batch = model.replay_buffer.sample_sequences(200, HORIZON)
    crossing = batch.observations[:, 2] == 4
    assert crossing.any()
    assert (batch.mask[crossing] == 1).all()


def test_no_window_crosses_a_step_that_a_callback_kept_from_being_stored(filled):
    model = filled(steps=6, lengths=(9,))
    steps = []
    model.learn(100, callback=lambda *_: bool(steps.append(0) or len(steps) < 3), reset_num_timesteps=False)
    assert len(steps) == 3
    model.learn(12, reset_num_timesteps=False)
    buffer = model.replay_buffer
    stored = [tuple(int(number) for number in row[0]) for row in buffer.observations[: buffer.pos]]
    # Episode 0: steps 0 to 7 are stored, step 8 was made and not stored; then a new episode began.
    cut = {(0, 0, 7)}
    assert (0, 0, 7) in stored
    assert (0, 0, 8) not in stored
    for _ in range(20):
        check_windows(buffer.sample_sequences(16, HORIZON), environment(model), newest_of(model), cut)


def test_a_loaded_buffer_ends_its_episodes_unless_told_otherwise(filled, tmp_path):
    model = filled(steps=6, lengths=(100,))
    model.save_replay_buffer(tmp_path / "buffer")
    model.load_replay_buffer(tmp_path / "buffer", truncate_last_traj=False)
    assert not model.replay_buffer.ends[5]
    model.load_replay_buffer(tmp_path / "buffer")
    assert model.replay_buffer.ends[5]


def test_a_saved_buffer_draws_as_before(filled, tmp_path):
    model = filled(n_envs=2, buffer_size=11)
    buffer = model.replay_buffer
    batch = buffer.sample_sequences(8, 3)
    buffer.update_priorities(batch.indices, np.linspace(0.1, 9.0, 8))
    copy = pickle.loads(pickle.dumps(buffer))
    model.save_replay_buffer(tmp_path / "buffer.pkl")
    model.load_replay_buffer(tmp_path / "buffer.pkl")
    for other in (copy, model.replay_buffer):
        np.random.seed(3)
        first = buffer.sample_sequences(32, 3)
        np.random.seed(3)
        second = other.sample_sequences(32, 3)
        np.testing.assert_array_equal(first.indices, second.indices)
        for name in ("observations", "actions", "next_observations", "rewards", "mask", "weights"):
            torch.testing.assert_close(getattr(first, name), getattr(second, name))
        assert other.max_priority == buffer.max_priority


def test_extend_stores_transitions_one_by_one(filled):
    source = filled(steps=20, lengths=(6,), terminates=(True,)).replay_buffer
    target = filled(steps=1).replay_buffer
    target.reset()
    n = source.pos
    infos = [[{"TimeLimit.truncated": bool(flag)}] for flag in source.timeouts[:n, 0]]
    before = target.pos
    target.extend(
        source.observations[:n],
        source.next_observations[:n],
        source.actions[:n, None],
        source.rewards[:n],
        source.dones[:n],
        infos,
    )
    assert target.pos == before + n
    np.testing.assert_array_equal(target.ends[before : before + n], source.ends[:n])
    assert target.tree.total == pytest.approx(n * target.max_priority)


def test_reset_forgets_everything(filled):
    buffer = filled(steps=20, lengths=(3,)).replay_buffer
    buffer.reset()
    with pytest.raises(ValueError, match="add a transition first"):
        buffer.sample_sequences(4, 3)


def test_draws_in_proportion_to_priority_to_the_alpha(filled):
    buffer = filled(steps=30, lengths=(100,)).replay_buffer
    np.random.seed(0)
    priorities = np.random.exponential(size=30) + 0.01
    buffer.update_priorities(np.arange(30), priorities)
    rounds, count = 300, 64
    batches = [buffer.sample_sequences(count, 1) for _ in range(rounds)]
    drawn = np.bincount(np.concatenate([batch.indices for batch in batches]), minlength=30)
    expected = rounds * count * priorities**0.6 / (priorities**0.6).sum()
    assert ((drawn - expected) ** 2 / expected).sum() < 65  # chi-square with 29 degrees: 1 in 10,000
    # Importance weights undo beta = 0.4 of it, relative to the greatest of the batch.
    batch = batches[0]
    raw = (30 * expected / (rounds * count))[batch.indices] ** -0.4
    np.testing.assert_allclose(batch.weights.numpy(), raw / raw.max(), rtol=1e-5)


def test_without_priorities_draws_are_uniform_and_weights_one(filled):
    buffer = filled(steps=20, replay_buffer_kwargs=dict(priority_exponent=0.0, importance_exponent=0.0)).replay_buffer
    batch = buffer.sample_sequences(20, 1)
    buffer.update_priorities(batch.indices, np.linspace(1, 1000, 20))
    batch = buffer.sample_sequences(20, 1)
    assert sorted(batch.indices) == list(range(20))
    assert (batch.weights == 1).all()


def test_new_transitions_come_with_the_greatest_priority_so_far(filled):
    model = filled(steps=10)
    buffer = model.replay_buffer
    buffer.update_priorities(np.arange(10), np.full(10, 5.0))
    model.learn(3, reset_num_timesteps=False)
    np.testing.assert_allclose(buffer.tree.get(np.arange(10, 13)), 5.0**0.6)


def test_priorities_that_are_not_finite_count_as_the_greatest(filled):
    buffer = filled(steps=10).replay_buffer
    buffer.update_priorities(np.arange(3), np.array([4.0, np.nan, np.inf]))
    np.testing.assert_allclose(buffer.tree.get(np.arange(2)), [4.0**0.6, 1.0])
    assert np.isfinite(buffer.tree.total)
    assert np.isfinite(buffer.max_priority)


def test_rewards_and_observations_are_normalised_on_the_way_out(counter_env, difftori):
    env = VecNormalize(DummyVecEnv([lambda: counter_env(0, (5,))]), gamma=0.9)
    model = difftori.make(env, learning_starts=10**6).learn(30)
    np.random.seed(1)
    raw = model.replay_buffer.sample_sequences(16, 3)
    np.random.seed(1)
    normalised = model.replay_buffer.sample_sequences(16, 3, env=env)
    np.testing.assert_allclose(normalised.rewards, env.normalize_reward(raw.rewards.numpy()), rtol=1e-5)
    np.testing.assert_allclose(normalised.observations, env.normalize_obs(raw.observations.numpy()), rtol=1e-5)
    np.testing.assert_allclose(
        normalised.next_observations, env.normalize_obs(raw.next_observations.numpy()), rtol=1e-5
    )


def test_dictionaries_and_arrays_hold_the_same(point_env, difftori):
    models = [
        difftori.make(point_env(kind), policy, learning_starts=10**6).learn(40)
        for kind, policy in (("array", "MlpPolicy"), ("dict", "MultiInputPolicy"))
    ]
    assert isinstance(models[0].replay_buffer, SequenceReplayBuffer)
    assert isinstance(models[1].replay_buffer, DictSequenceReplayBuffer)
    batches = []
    for model in models:
        np.random.seed(5)
        batches.append(model.replay_buffer.sample_sequences(32, 3))
    torch.testing.assert_close(batches[0].observations, batches[1].observations["vec"])
    torch.testing.assert_close(batches[0].next_observations, batches[1].next_observations["vec"])
    for name in ("actions", "rewards", "terminated", "mask", "next_valid", "weights"):
        torch.testing.assert_close(getattr(batches[0], name), getattr(batches[1], name))


def test_windows_longer_than_the_buffer_are_padded(filled):
    model = filled(steps=12, lengths=(100,), buffer_size=3)
    batch = model.replay_buffer.sample_sequences(32, 9)
    check_windows(batch, environment(model), newest_of(model))
    assert batch.mask.sum(1).max() == 3


def test_images_stay_bytes_until_they_are_preprocessed(point_env, difftori):
    model = difftori.make(point_env("image"), "CnnPolicy", learning_starts=10**6, buffer_size=50).learn(12)
    batch = model.replay_buffer.sample_sequences(4, 3)
    assert batch.observations.dtype == batch.next_observations.dtype == torch.uint8
    assert batch.next_observations.shape == (4, 3, 1, 36, 36)


def test_plain_buffers_are_refused(point_env, difftori):
    from stable_baselines3.common.buffers import ReplayBuffer

    with pytest.raises(ValueError, match=r"trained on windows.*got ReplayBuffer"):
        difftori.make(point_env(), replay_buffer_class=ReplayBuffer)


def test_action_dimensions_are_flattened(point_env, difftori):
    model = difftori.make(point_env(action_shape=(2, 2)), learning_starts=10**6).learn(12)
    batch = model.replay_buffer.sample_sequences(4, 3)
    assert batch.actions.shape == (4, 3, 4)
    assert (batch.actions.abs() <= 1).all()


def test_spaces_of_doubles_become_floats(point_env, difftori):
    model = difftori.make(point_env(dtype=np.float64), learning_starts=10**6).learn(12)
    assert isinstance(model.observation_space, spaces.Box)
    batch = model.replay_buffer.sample_sequences(4, 3)
    assert batch.observations.dtype == batch.actions.dtype == batch.rewards.dtype == torch.float32
