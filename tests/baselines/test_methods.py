"""Every method of compare.py learns from what its table says, with encoders of our own."""

import numpy as np
import pytest
import torch
from gymnasium import Env, spaces
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from difftori_gym.baselines.methods import METHODS, Method, get_method
from difftori_gym.models import CombinedEncoder, ImageEncoder
from difftori_gym.rl.frame_replay import DictFrameReplayBuffer, FrameReplay, FrameReplayBuffer

SMALL = {
    "difftori": dict(
        learning_starts=12, batch_size=4, horizon=2, planner_kwargs=dict(max_iterations=2), pg_batch_size=2
    ),
    "tdmpc": dict(
        learning_starts=12,
        batch_size=4,
        horizon=2,
        planner_kwargs=dict(max_iterations=1, num_samples=8, num_elites=4),
    ),
    "tdmpc2": dict(
        learning_starts=12,
        batch_size=4,
        planner_kwargs=dict(max_iterations=1, num_samples=8, num_elites=4, num_prior_samples=2),
    ),
    "drqv2": dict(learning_starts=12, batch_size=4),
    "sac": dict(learning_starts=12, batch_size=4),
    "td3": dict(learning_starts=12, batch_size=4),
    "tqc": dict(learning_starts=12, batch_size=4),
    "ppo": dict(n_steps=12, batch_size=6, n_epochs=1),
}
SMALL["difftori_nopg"] = SMALL["difftori"]
SMALL = {name: {"policy_kwargs": {"net_arch": [8]}, **values} for name, values in SMALL.items()}
COMBINATIONS = [(name, obs) for name, method in METHODS["rl"].items() for obs in method.obs if obs != "state"]


class Scene(Env):
    """A ball that actions push about, as a small picture or as points on its surface."""

    action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, obs):
        self.obs = obs
        if obs == "pixels":
            self.observation_space = spaces.Box(0, 255, (9, 40, 40), np.uint8)
        else:
            cloud = spaces.Box(-3.0, 3.0, (64, 3), np.float32)
            agent = spaces.Box(-2.0, 2.0, (2,), np.float32)
            self.observation_space = spaces.Dict({"point_cloud": cloud, "agent_pos": agent})

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position, self.steps = self.np_random.uniform(-1, 1, 2), 0
        return self.seen(), {}

    def step(self, action):
        self.position = np.clip(self.position + 0.1 * action, -2, 2)
        self.steps += 1
        return self.seen(), -float(np.abs(self.position).sum()), False, self.steps >= 10, {}

    def seen(self):
        if self.obs == "pixels":
            rows, columns = np.meshgrid(np.linspace(-2, 2, 40), np.linspace(-2, 2, 40), indexing="ij")
            ball = np.hypot(rows - self.position[0], columns - self.position[1]) < 0.4
            return np.broadcast_to(np.where(ball, 255, 0).astype(np.uint8), (9, 40, 40))
        angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
        flat = self.position + 0.4 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        cloud = np.concatenate([flat, np.zeros((64, 1))], axis=1).astype(np.float32)
        return {"point_cloud": cloud, "agent_pos": self.position.astype(np.float32)}


def build(name, obs):
    env = DummyVecEnv([lambda: Monitor(Scene(obs))])
    method = METHODS["rl"][name]
    hyperparameters = {**method.hyperparameters("gymnasium/Scene-v0", obs=obs), **SMALL[name], **method.fixed}
    if "buffer_size" in method.hyperparameter_names():
        hyperparameters["buffer_size"] = 200
    return method.build(env, seed=0, device="cpu", hyperparameters=hyperparameters)


class SceneAndPosition(Scene):
    """The image beside the position, as ``obs_kwargs={"state": "agent"}`` gives it."""

    def __init__(self):
        super().__init__("pixels")
        position = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.observation_space = spaces.Dict({"pixels": self.observation_space, "agent_pos": position})

    def seen(self):
        return {"pixels": super().seen(), "agent_pos": self.position.astype(np.float32)}


@pytest.mark.parametrize("name", ["difftori", "tdmpc", "sac"])
def test_it_learns_from_pixels_beside_a_state(name):
    method = METHODS["rl"][name]
    preset = method.hyperparameters("gymnasium/Scene-v0", obs="pixels")
    networks = {**preset.get("policy_kwargs", {}), "net_arch": [8]}
    hyperparameters = {**preset, **SMALL[name], "policy_kwargs": networks, "buffer_size": 200}
    env = DummyVecEnv([lambda: Monitor(SceneAndPosition())])
    model = method.build(env, seed=0, device="cpu", hyperparameters=hyperparameters).learn(30)
    encoders = [module for module in model.policy.modules() if isinstance(module, ImageEncoder)]
    assert encoders
    if name != "sac":  # the preset's convolutions
        assert {encoder.convolutions[0].kernel_size for encoder in encoders} == {(8, 8)}


@pytest.mark.parametrize(("name", "obs"), COMBINATIONS)
def test_it_learns_from_pixels_and_clouds(name, obs):
    model = build(name, obs)
    encoders = [module for module in model.policy.modules() if isinstance(module, (ImageEncoder, CombinedEncoder))]
    assert encoders
    before = [parameter.detach().clone() for parameter in encoders[0].parameters()]
    model.learn(36)
    after = list(encoders[0].parameters())
    assert all(torch.isfinite(parameter).all() for parameter in after)
    assert not all(torch.equal(*pair) for pair in zip(before, after, strict=True))
    memory = getattr(model, "replay_buffer", None)
    assert memory is None or isinstance(memory, FrameReplay)


def test_what_the_table_says():
    assert [name for name, obs in COMBINATIONS if obs == "pointcloud"] == [
        "difftori",
        "difftori_nopg",
        "tdmpc",
        "sac",
        "td3",
        "tqc",
        "ppo",
    ]
    assert METHODS["rl"]["drqv2"].obs == ("pixels",)


@pytest.mark.parametrize(("obs", "memory"), [("pixels", FrameReplayBuffer), ("pointcloud", DictFrameReplayBuffer)])
def test_a_saved_model_of_stable_baselines3_comes_back(tmp_path, obs, memory):
    model = build("sac", obs)
    model.learn(20)
    model.save(tmp_path / "model.zip")
    model.save_replay_buffer(tmp_path / "replay.pkl")
    loaded = METHODS["rl"]["sac"].learner().load(tmp_path / "model.zip", env=model.get_env(), device="cpu")
    loaded.load_replay_buffer(tmp_path / "replay.pkl")
    assert type(loaded.replay_buffer) is memory
    observation = model.get_env().reset()
    np.testing.assert_array_equal(
        loaded.predict(observation, deterministic=True)[0], model.predict(observation, deterministic=True)[0]
    )


def test_the_users_own_encoder_stays():
    env = DummyVecEnv([lambda: Monitor(Scene("pixels"))])
    given = {"policy_kwargs": {"features_extractor_kwargs": {"features_dim": 7}}, "buffer_size": 50}
    model = METHODS["rl"]["sac"].build(env, seed=0, device="cpu", hyperparameters=given)
    assert model.actor.features_extractor.features_dim == 7
    assert "features_extractor_class" not in given["policy_kwargs"]


def test_later_layers_win_and_dictionaries_inside_are_merged():
    layers = {
        "small pixels": dict(n_steps=7),
        "small": dict(n_steps=6, n_epochs=6),
        "pixels": dict(n_epochs=5, batch_size=5, policy_kwargs=dict(net_arch=[5])),
        "suite/task": dict(batch_size=4, gamma=0.4),
        "suite/*": dict(gamma=0.3, gae_lambda=0.3),
    }
    default = dict(gae_lambda=0.2, policy_kwargs=dict(net_arch=[2], log_std_init=0.0))
    method = Method("ppo", "PPO", METHODS["rl"]["ppo"].learner, default, layers, fixed=dict(ent_coef=0.0))
    overrides = dict(policy_kwargs=dict(log_std_init=1.0))
    assert method.hyperparameters("suite/task", overrides, "pixels", "small") == dict(
        gae_lambda=0.3,
        gamma=0.4,
        batch_size=5,
        n_epochs=6,
        n_steps=7,
        policy_kwargs=dict(net_arch=[5], log_std_init=1.0),
        ent_coef=0.0,
    )
    assert method.hyperparameters("other/task") == {**default, "ent_coef": 0.0}


def test_one_name_stands_for_a_method_of_each_kind():
    assert [get_method("difftori", kind=kind).learner().__name__ for kind in METHODS] == [
        "DiffTORI",
        "DiffTORIImitation",
    ]
    assert all(method.kind == kind for kind, methods in METHODS.items() for method in methods.values())
