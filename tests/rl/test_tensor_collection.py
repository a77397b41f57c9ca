"""DiffTORI on environments that step in tensors, held against the same environments through numpy."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from difftori_gym import DiffTORI
from difftori_gym.baselines import TDMPC
from difftori_gym.rl.planning import Planner
from difftori_gym.rl.sequence_buffer import DictSequenceReplayBuffer, SequenceReplayBuffer
from difftori_gym.rl.tensor_buffer import TensorSequenceReplayBuffer
from difftori_gym.wrappers import TensorVecEnv, host_copy

SMALL = dict(
    learning_starts=0,
    batch_size=16,
    buffer_size=300,
    horizon=3,
    schedule_steps=30,
    planner_kwargs=dict(max_iterations=2),
    policy_kwargs=dict(net_arch=[16], latent_dim=8),
    seed=0,
    device="cpu",
)


class InDict(gym.ObservationWrapper):
    def __init__(self, env):
        super().__init__(env)
        space = env.observation_space
        self.observation_space = spaces.Dict({"here": space, "wide": spaces.Box(-9.0, 9.0, (1,), np.float64)})

    def observation(self, observation):
        return {"here": observation, "wide": observation[:1].astype(np.float64)}


class EndsInTheValley(gym.Wrapper):
    """Terminates where the car stands still to the left."""

    def step(self, action):
        observation, reward, _, truncated, info = self.env.step(action)
        return observation, reward, bool(observation[0] < -0.6), truncated, info


def car():
    return TimeLimit(gym.make("MountainCarContinuous-v0").unwrapped, 13)


def ending_car():
    return TimeLimit(EndsInTheValley(gym.make("MountainCarContinuous-v0").unwrapped), 13)


def pendulum():  # its actions are bounded by 2, not by 1
    return TimeLimit(gym.make("Pendulum-v1").unwrapped, 13)


def dict_car():
    return InDict(car())


def trained(make, batch_of_envs, *, count=3, steps=90, cls=DiffTORI, policy="MlpPolicy", **kwargs):
    env = TensorVecEnv(batch_of_envs([make() for _ in range(count)]))
    return cls(policy, env, **{**SMALL, **kwargs}).learn(steps)


def assert_same_weights(one, other):
    for name, value in one.policy.state_dict().items():
        torch.testing.assert_close(value, other.policy.state_dict()[name], rtol=2e-3, atol=2e-4, msg=name)


@pytest.mark.parametrize("make", [car, ending_car, pendulum])
@pytest.mark.parametrize(
    "settings",
    [
        dict(),
        dict(planner_kwargs=dict(max_iterations=2, init="warm")),
        dict(exploration_kwargs=dict(correlation=0.8), gradient_steps=2, train_freq=2),
        dict(optimize_memory_usage=True, replay_buffer_kwargs=dict(handle_timeout_termination=False)),
    ],
    ids=["plain", "warm", "correlated", "memory"],
)
def test_learning_on_the_device_is_learning_through_numpy(make, settings, batch_of_envs):
    on_device = trained(make, batch_of_envs, **settings)
    through_numpy = trained(make, batch_of_envs, replay_buffer_class=SequenceReplayBuffer, **settings)
    one, other = on_device.replay_buffer, through_numpy.replay_buffer
    assert isinstance(one, TensorSequenceReplayBuffer)
    assert isinstance(one.rewards, torch.Tensor)
    assert not isinstance(other, TensorSequenceReplayBuffer)
    np.testing.assert_allclose(one.actions.numpy(), other.actions, atol=2e-4)
    np.testing.assert_allclose(one.observations.numpy(), other.observations, atol=2e-4)
    np.testing.assert_array_equal(one.ends, other.ends)
    np.testing.assert_array_equal(one.dones, other.dones)
    np.testing.assert_array_equal(one.timeouts, other.timeouts)
    assert on_device.num_timesteps == through_numpy.num_timesteps == 90
    assert on_device.policy.model.episodic == through_numpy.policy.model.episodic
    assert [info["l"] for info in on_device.ep_info_buffer] == [info["l"] for info in through_numpy.ep_info_buffer]
    assert_same_weights(on_device, through_numpy)


def test_dictionaries_stay_on_the_device_too(batch_of_envs):
    on_device = trained(dict_car, batch_of_envs, policy="MultiInputPolicy")
    through_numpy = trained(
        dict_car, batch_of_envs, policy="MultiInputPolicy", replay_buffer_class=DictSequenceReplayBuffer
    )
    assert on_device.replay_buffer.observations["wide"].dtype == torch.float32
    assert_same_weights(on_device, through_numpy)


def test_only_flags_and_statistics_leave_the_device(batch_of_envs, monkeypatch):
    names = []

    def recorded(tensors, original=host_copy.copy_to_host):
        names.append(sorted(tensors))
        return original(tensors)

    monkeypatch.setattr("difftori_gym.wrappers.tensor_vec_env.copy_to_host", recorded)
    trained(car, batch_of_envs, steps=30)
    assert names[0] == ["obs"]  # the reset of Stable-Baselines3's learn
    assert names[1:] == [["frames", "lengths", "returns", "terminated", "truncated"]] * 10


def test_all_environments_are_planned_as_one_batch(batch_of_envs, monkeypatch):
    for cls, settings in ((DiffTORI, {}), (TDMPC, {}), (TDMPC, dict(exploration_kwargs=dict(correlation=0.5)))):
        sizes = []
        env = TensorVecEnv(batch_of_envs([car() for _ in range(5)]))
        model = cls("MlpPolicy", env, **{**SMALL, **settings})

        def counted(self, model, z, *args, original=Planner.plan, sizes=sizes, **kwargs):
            sizes.append(len(z))
            return original(self, model, z, *args, **kwargs)

        monkeypatch.setattr(Planner, "plan", counted)
        model.learn(20)
        monkeypatch.undo()
        assert sizes == [5] * 4


def test_random_first_actions_fill_the_box_and_repeat(batch_of_envs):
    actions = [
        trained(pendulum, batch_of_envs, learning_starts=300, steps=300, seed=seed).replay_buffer.actions
        for seed in (1, 1, 2)
    ]
    assert torch.equal(actions[0], actions[1])
    assert not torch.equal(actions[0], actions[2])
    assert actions[0].min() < -0.9
    assert actions[0].max() > 0.9
    assert actions[0].mean().abs() < 0.15


def test_action_noise_is_added(batch_of_envs):
    noise = NormalActionNoise(np.full(1, 5.0), np.zeros(1))
    assert (trained(pendulum, batch_of_envs, action_noise=noise, steps=30).replay_buffer.actions[:10] == 1.0).all()


def test_under_a_wrapper_the_ordinary_path_is_taken(batch_of_envs):
    env = VecNormalize(TensorVecEnv(batch_of_envs([car() for _ in range(2)])))
    model = DiffTORI("MlpPolicy", env, **SMALL).learn(30)
    assert type(model.replay_buffer) is SequenceReplayBuffer


def test_a_run_goes_on_where_it_stopped(batch_of_envs):
    model = trained(car, batch_of_envs, steps=30)
    before = model.env.observations
    model.learn(3, reset_num_timesteps=False)
    assert torch.equal(model.replay_buffer.observations[10], before)
    assert not model.replay_buffer.ends[9].any()
    model.learn(3)
    assert model.replay_buffer.ends[10].all()


def test_a_run_can_be_saved_and_goes_on(batch_of_envs, tmp_path):
    model = trained(car, batch_of_envs, steps=60, planner_kwargs=dict(max_iterations=2, init="warm"))
    model.save(tmp_path / "model.zip")
    model.save_replay_buffer(tmp_path / "buffer.pkl")
    env = TensorVecEnv(batch_of_envs([car() for _ in range(3)]))
    loaded = DiffTORI.load(tmp_path / "model.zip", env=env)
    loaded.load_replay_buffer(tmp_path / "buffer.pkl")
    assert torch.equal(loaded.replay_buffer.observations, model.replay_buffer.observations)
    loaded.learn(30, reset_num_timesteps=False)
    assert loaded.replay_buffer.pos == 30
    # An environment that does not step in tensors can take over.
    loaded = DiffTORI.load(tmp_path / "model.zip", env=DummyVecEnv([car] * 3)).learn(30)
    assert isinstance(loaded.replay_buffer, TensorSequenceReplayBuffer)
    assert loaded.replay_buffer.pos == 10


def test_callbacks_see_steps_and_can_stop(batch_of_envs):
    seen = []

    def look(local_variables, _):
        seen.append((type(local_variables["rewards"]), type(local_variables["dones"]), len(local_variables["infos"])))
        return len(seen) < 4

    model = trained(car, batch_of_envs, steps=0)
    model.learn(90, callback=look)
    assert seen == [(torch.Tensor, np.ndarray, 3)] * 4
    assert model.num_timesteps == 12
    model.learn(9, reset_num_timesteps=False)
    assert model.num_timesteps == 21


def test_numbers_that_are_not_finite_name_their_environment(batch_of_envs):
    class Broken(gym.Wrapper):
        def step(self, action):
            observation, reward, *rest = self.env.step(action)
            return observation, float("nan") if self.env._elapsed_steps == 5 else reward, *rest

    env = TensorVecEnv(batch_of_envs([car(), Broken(car())]))
    with pytest.raises(ValueError, match="got others from environment 1"):
        DiffTORI("MlpPolicy", env, **SMALL).learn(30)


def test_single_transitions_are_those_that_were_stored():
    space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    kwargs = dict(device="cpu", n_envs=2)
    buffers = [TensorSequenceReplayBuffer(20, space, space, **kwargs), SequenceReplayBuffer(20, space, space, **kwargs)]
    rng = np.random.default_rng(0)
    for step in range(13):
        drawn = [rng.uniform(-1, 1, (2, 2)).astype(np.float32) for _ in range(3)]
        reward, done = rng.uniform(size=2).astype(np.float32), np.array([step % 4 == 3, step % 5 == 4])
        infos = [{"TimeLimit.truncated": bool(done[0])}, {}]
        for buffer in buffers:
            buffer.add(*drawn, reward, done, infos)
    for draw in ("sample", "sample_sequences"):
        batches = []
        for buffer in buffers:
            np.random.seed(4)
            batches.append(buffer.sample(30) if draw == "sample" else buffer.sample_sequences(30, 3))
        for name in ("observations", "next_observations", "actions", "rewards"):
            assert torch.equal(getattr(batches[0], name), getattr(batches[1], name))
        if draw == "sample":
            assert torch.equal(batches[0].dones, batches[1].dones)
        else:
            for name in ("terminated", "mask", "next_valid", "weights"):
                assert torch.equal(getattr(batches[0], name), getattr(batches[1], name))
    with pytest.raises(ValueError, match="got an environment in VecNormalize"):
        buffers[0].sample_sequences(4, 2, env=object())
    with pytest.raises(ValueError, match="expects handle_timeout_termination=False"):
        TensorSequenceReplayBuffer(20, space, space, optimize_memory_usage=True)
