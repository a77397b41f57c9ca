"""DrQ-v2: what is published of it, its learning signal, and real steps from the pixels of dm_control."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.wrappers import FrameStackObservation, ReshapeObservation
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import nn

from difftori_gym import make_env
from difftori_gym.baselines import DrQv2
from difftori_gym.baselines.methods import METHODS, get_method, policy_name

IMAGE = spaces.Box(0, 255, (3, 36, 36), np.uint8)


class Lamp(gym.Env[np.ndarray, np.ndarray]):
    """A grey image as bright as the action before; the reward is the brightness."""

    observation_space, action_space = IMAGE, spaces.Box(-1, 1, (1,))

    def __init__(self, steps: int = 5, terminates: bool = False) -> None:
        self.steps, self.terminates = steps, terminates

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.t = 0
        return np.full(IMAGE.shape, 127, np.uint8), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.t += 1
        light = float(np.clip(0.5 + 0.5 * action[0], 0, 1))
        ended = self.t == self.steps
        return np.full(IMAGE.shape, int(255 * light), np.uint8), light, ended and self.terminates, ended, {}


def quick(env: Any, **settings: Any) -> DrQv2:
    small: dict[str, Any] = dict(
        buffer_size=400, learning_starts=16, batch_size=16, schedule_steps=100, device="cpu", seed=0
    )
    kwargs = dict(net_arch=[32], **settings.pop("policy_kwargs", {}))
    return DrQv2("CnnPolicy", env, policy_kwargs=kwargs, **{**small, **settings})


def weights_of(model: DrQv2) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.policy.state_dict().items()}


def test_the_published_hyper_parameters():
    model = DrQv2("CnnPolicy", Lamp(), buffer_size=10, device="cpu")
    published = dict(batch_size=256, tau=0.01, gamma=0.99, return_steps=3, noise_clip=0.3, learning_starts=2000)
    assert {name: getattr(model, name) for name in published} == published
    assert model.lr_schedule(1) == 1e-4
    assert model.train_freq.frequency == 2
    assert model.replay_buffer.n_steps == 3
    sizes = [
        [(layer.in_features, layer.out_features) for layer in part.modules() if isinstance(layer, nn.Linear)]
        for part in (model.policy.actor, model.policy.critic.members[0])
    ]
    flat = model.policy.encoder.features_dim
    assert sizes[0] == [(flat, 50), (50, 1024), (1024, 1024), (1024, 1)]
    assert sizes[1] == [(51, 1024), (1024, 1024), (1024, 1)]
    assert len(model.policy.critic.members) == 2
    encoder = quick(Lamp(), policy_kwargs=dict(features_extractor_kwargs=dict(squash=False))).policy.encoder
    assert not any(isinstance(layer, nn.Linear) for layer in encoder.modules())


def test_the_noise_falls_linearly():
    model = quick(Lamp(), learning_starts=0, gradient_steps=0)
    stds = []
    for steps in (1, 50, 100, 200):
        model.num_timesteps = steps - 1
        stds.append(model.exploration_std())
    np.testing.assert_allclose(stds, [1.0, 1 - 0.9 * 0.49, 1 - 0.9 * 0.99, 0.1])
    features = torch.zeros(4000, model.policy.encoder.features_dim)
    mean = model.policy.actor(features[:1])
    noise = model.policy.sample(features, 0.1) - mean
    assert noise.std().item() == pytest.approx(0.1, rel=0.1)
    clipped = model.policy.sample(features, 5.0, 0.3) - mean
    assert clipped.abs().max().item() == pytest.approx(0.3, abs=1e-5)
    assert model.policy.sample(features, 5.0).abs().max() <= 1


def test_only_the_values_train_the_convolutions():
    model = quick(Lamp())
    model.learn(20)
    policy = model.policy
    for group in policy.critic_optimizer.param_groups:
        group["lr"] = 0.0
    model.lr_schedule = lambda _: 0.0
    before = weights_of(model)
    model.train(2, 16)
    still = {name for name, value in weights_of(model).items() if torch.equal(before[name], value)}
    assert {name for name in before if name.startswith(("encoder", "critic.", "actor"))} <= still

    model.lr_schedule = lambda _: 1e-3
    model.train(1, 16)
    changed = {name for name, value in weights_of(model).items() if not torch.equal(before[name], value)}
    assert changed == set(before)
    assert not {id(p) for p in policy.encoder.parameters()} & {
        id(p) for group in policy.actor_optimizer.param_groups for p in group["params"]
    }


def test_learns_to_be_bright():
    """Rewards of 0.5 by chance; one with the brightest actions."""
    settings: dict[str, Any] = dict(learning_rate=1e-3, schedule_steps=150, image_shift=0, train_freq=1)
    model = quick(Lamp(), **settings).learn(260)
    actions, _ = model.predict(np.full((1, *IMAGE.shape), 200, np.uint8), deterministic=True)
    assert actions[0, 0] > 0.6


def test_two_runs_are_identical_and_a_saved_one_goes_on(tmp_path):
    runs = [quick(DummyVecEnv([Lamp, Lamp]), train_freq=1).learn(40) for _ in range(2)]
    first, second = weights_of(runs[0]), weights_of(runs[1])
    assert all(torch.equal(first[name], second[name]) for name in first)
    runs[0].save(tmp_path / "model")
    loaded = DrQv2.load(tmp_path / "model", env=DummyVecEnv([Lamp, Lamp]), device="cpu")
    image = np.full(IMAGE.shape, 40, np.uint8)
    np.testing.assert_array_equal(
        loaded.predict(image, deterministic=True)[0], runs[0].predict(image, deterministic=True)[0]
    )
    assert str(loaded.policy.critic_optimizer.state_dict()) == str(runs[0].policy.critic_optimizer.state_dict())
    assert loaded.exploration_std() == runs[0].exploration_std()
    loaded.learn(20, reset_num_timesteps=False)
    assert loaded.num_timesteps == 60


def test_vectors_are_refused():
    with pytest.raises(ValueError, match="DrQv2 reads images"):
        DrQv2("CnnPolicy", "Pendulum-v1", buffer_size=10)


class Pixels(gym.ObservationWrapper[Any, np.ndarray, Any]):
    """What ``env.render()`` shows, channels first."""

    def __init__(self, env: gym.Env[Any, np.ndarray]) -> None:
        super().__init__(env)
        self.observation_space = IMAGE

    def observation(self, observation: Any) -> np.ndarray:
        return np.ascontiguousarray(np.asarray(self.env.render()).transpose(2, 0, 1))


def reacher() -> gym.Env[Any, np.ndarray]:
    pytest.importorskip("dm_control")
    settings: dict[str, Any] = dict(render_mode="rgb_array", width=36, height=36)
    env = FrameStackObservation(Pixels(make_env("dm_control/reacher-easy", **settings)), 3)
    return ReshapeObservation(env, (9, 36, 36))


def test_learns_from_pixels_of_dm_control():
    model = quick(reacher())
    before = weights_of(model)
    model.learn(30)
    after = weights_of(model)
    assert {name for name in before if torch.equal(before[name], after[name])} == set()
    assert all(torch.isfinite(value).all() for value in after.values())
    assert model.logger.name_to_value["train/n_updates"] == 7
    assert model.replay_buffer.frame_stores[None].num_written == 31


def test_is_a_method_for_pixels():
    assert get_method("drqv2", "pixels").learner() is DrQv2
    with pytest.raises(ValueError, match="drqv2 learns from pixels"):
        get_method("drqv2", "state")
    assert policy_name(IMAGE) == "CnnPolicy"
    assert policy_name(spaces.Dict(pixels=IMAGE)) == "MultiInputPolicy"
    assert policy_name(spaces.Box(-1, 1, (3,))) == "MlpPolicy"


@pytest.mark.parametrize("name", ["difftori", "difftori_nopg", "tdmpc", "drqv2"])
def test_presets_for_pixels_build(name):
    method = get_method(name, "pixels")
    hyperparameters = method.hyperparameters("dm_control/cartpole-swingup", {"buffer_size": 20}, "pixels")
    model = method.build(DummyVecEnv([Lamp]), seed=0, device="cpu", hyperparameters=hyperparameters)
    assert model.policy_class is type(model).policy_aliases["CnnPolicy"]
    if name != "drqv2":
        assert model.batch_size == 64
        assert METHODS["rl"][name].hyperparameters("dm_control/cartpole-swingup")["batch_size"] == 128
