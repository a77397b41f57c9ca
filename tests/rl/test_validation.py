"""What cannot work is refused at once, with what was expected, what was found and what to do."""

import re
import zipfile

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import SAC
from stable_baselines3.common.vec_env import DummyVecEnv

from difftori_gym import DiffTORI, DiffTORIImitation
from difftori_gym.baselines import TDMPC
from difftori_gym.rl.policies import sizes_of_heads


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Discrete(3), "expected a Box action space, got Discrete"),
        (spaces.MultiBinary(3), "expected a Box action space, got MultiBinary"),
        (spaces.Box(-np.inf, np.inf, (2,)), "expected finite action bounds"),
        (spaces.Box(np.float32([-1, 0]), np.float32([1, np.inf])), "expected finite action bounds"),
        (spaces.Box(np.float32([-1, 1]), np.float32([1, 1])), "low < high in every dimension"),
    ],
)
def test_action_spaces(learner, point_env, space, message):
    env = point_env()
    env.action_space = space
    for given in (env, DummyVecEnv([lambda: env])):
        with pytest.raises(ValueError, match=message):
            learner.make(given)


def test_an_environment_can_be_named_and_is_checked(difftori):
    with pytest.raises(ValueError, match="expected a Box action space"):
        difftori.make("CartPole-v1")
    assert isinstance(difftori.make("Pendulum-v1").action_space, spaces.Box)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (
            spaces.Dict(outer=spaces.Dict(inner=spaces.Box(-1, 1, (2,)))),
            r"DiffTORI cannot read observations of Dict.* under key 'outer': wrap .*FlattenObservation",
        ),
        (
            spaces.Dict(pair=spaces.Tuple([spaces.Discrete(2)])),
            r"cannot read observations of Tuple.* under key 'pair': wrap .*FlattenObservation",
        ),
        (spaces.Tuple([spaces.Box(-1, 1, (2,))]), r"cannot read observations of Tuple.*: wrap .*FlattenObservation"),
    ],
)
def test_observation_spaces(difftori, point_env, space, message):
    env = point_env()
    env.observation_space = space
    with pytest.raises(ValueError, match=message):
        difftori.make(env, "MultiInputPolicy")


class Faulty(gym.Wrapper):
    """Spoils one number of an environment: what, when (0 is the reset), and with what."""

    def __init__(self, env, what, when, number):
        super().__init__(env)
        self.what, self.when, self.number, self.steps = what, when, number, 0

    def spoil(self, observation):
        vector = observation["vec"] if isinstance(observation, dict) else observation
        if self.what == "observation" and self.steps == self.when:
            vector[1] = self.number
        return observation

    def reset(self, **kwargs):
        observation, info = self.env.reset(**kwargs)
        return self.spoil(observation), info

    def step(self, action):
        observation, reward, terminated, truncated, info = self.env.step(action)
        self.steps += 1
        if self.what == "reward" and self.steps == self.when:
            reward = self.number
        return self.spoil(observation), reward, terminated, truncated, info


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("when", [0, 3, 10, 12], ids=["reset", "warm-up", "end of an episode", "planning"])
def test_observations_of_a_running_environment(difftori, point_env, number, when):
    def build(kind, faulty):
        env = point_env(kind)
        return DummyVecEnv(
            [lambda: point_env(kind), lambda: Faulty(env, "observation", when, number) if faulty else env]
        )

    message = rf"Expected finite observations, got {number} from environment 1{{}} at position \(1,\)"
    with pytest.raises(ValueError, match=message.format("")):
        difftori.make(build("array", True)).learn(40)
    with pytest.raises(ValueError, match=message.format(" under key 'vec'")):
        difftori.make(build("dict", True), "MultiInputPolicy").learn(40)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_rewards_of_a_running_environment(difftori, point_env, number):
    env = DummyVecEnv([point_env, lambda: Faulty(point_env(), "reward", 5, number)])
    with pytest.raises(ValueError, match=r"Expected finite rewards, got .* from environment 1"):
        difftori.make(env).learn(40)


def test_observations_to_predict_from(learner, point_env):
    model = learner.make(point_env("dict"), "MultiInputPolicy")
    observation = {"vec": np.zeros((3, 2), np.float32)}
    observation["vec"][2, 0] = np.nan
    for subject in (model, model.policy):
        with pytest.raises(ValueError, match=r"got nan from environment 2 under key 'vec' at position \(0,\)"):
            subject.predict(observation)
    with pytest.raises(ValueError, match="mixing Gym API"):
        model.predict(point_env().reset(seed=0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(horizon=0), "needs an integer horizon >= 1, got 0"),
        (dict(horizon=2.5), "needs an integer horizon >= 1, got 2.5"),
        (dict(planner_kwargs=dict(horizon_initial=0)), "needs an integer horizon_initial >= 1, got 0"),
        (dict(schedule_steps=-1), "needs schedule_steps >= 0, got -1"),
        (dict(planner_kwargs=dict(solver="sgd")), "solver to be one of 'lm', .*, got 'sgd'"),
        (dict(planner_kwargs=dict(max_iterations=-1)), "max_iterations >= 0, got -1"),
        (dict(planner_kwargs=dict(step_size=0.0)), "step_size > 0, got 0.0"),
        (dict(planner_kwargs=dict(backward_mode="all")), "backward_mode to be one of"),
        (dict(planner_kwargs=dict(max_iteration=3)), "has no setting 'max_iteration'. Did you mean: max_iterations"),
        (dict(n_steps=4), "expected n_steps from 1 to 3, got 4"),
        (dict(n_steps=0), "expected n_steps from 1 to 3, got 0"),
        (dict(exploration_kwargs=dict(final_std=-1.0)), "Exploration needs final_std >= 0, got -1.0"),
        (dict(exploration_kwargs=dict(correlation=1.0)), "0 <= correlation < 1, got 1.0"),
        (dict(exploration_kwargs=dict(end_std=1)), "has no setting 'end_std'. Did you mean: final_std"),
        (dict(target_policy_noise=-0.1), "noise_std needs to be at least 0, got -0.1"),
        (dict(pg_freq=0), "pg_freq needs to be at least 1, got 0"),
        (dict(pg_coef=-1.0), "pg_coef needs to be at least 0"),
        (dict(policy_kwargs=dict(net_arch=dict(vf=[8]))), r"takes the keys .*got \['vf'\]"),
    ],
    ids=str,
)
def test_settings(difftori, point_env, settings, message):
    with pytest.raises(ValueError, match=message):
        difftori.make(point_env(), **settings)


def test_settings_of_tdmpc(point_env):
    with pytest.raises(ValueError, match=r"remove \['pg_freq'\]"):
        TDMPC("MlpPolicy", point_env(), pg_freq=3)
    with pytest.raises(ValueError, match="plans by sampling, with solver 'mppi' or 'cem', got 'lm'"):
        TDMPC("MlpPolicy", point_env(), planner_kwargs=dict(solver="lm", backward_mode="none"))


@pytest.mark.parametrize(
    ("cls", "old"),
    [
        (DiffTORI, dict(max_iterations=20)),
        (DiffTORI, dict(init="warm", solver="lm")),
        (TDMPC, dict(num_samples=64)),
        (TDMPC, dict(mixture_coef=0.1)),
        (DiffTORIImitation, dict(wall_gradient="exact", init="zero")),
    ],
    ids=str,
)
def test_settings_that_moved_say_where_to(point_env, cls, old):
    spelled = ", ".join(f"{name}={value!r}" for name, value in old.items())
    with pytest.raises(TypeError, match=re.escape(f"are one argument now: planner_kwargs=dict({spelled}).")):
        cls("MlpPolicy", point_env(), **old)
    with pytest.raises(TypeError, match="unexpected keyword argument 'max_iteration'"):
        cls("MlpPolicy", point_env(), max_iteration=3)


def test_a_net_arch_is_understood_in_every_form():
    heads = ("pi", "qf", "dynamics", "reward", "encoder")
    default = sizes_of_heads(None)
    assert tuple(default) == heads
    assert sizes_of_heads([7, 8]) == {**{head: [7, 8] for head in heads}, "encoder": [7]}
    assert sizes_of_heads([]) == {head: [] for head in heads}
    partly = sizes_of_heads(dict(qf=[3]))
    assert partly == {**default, "qf": [3]}
    assert sizes_of_heads(partly) == partly


def test_files_of_other_algorithms(point_env, difftori, tmp_path):
    SAC("MlpPolicy", point_env(), device="cpu").save(tmp_path / "sac")
    with pytest.raises(ValueError, match=r"saved by DiffTORI, got one saved by .*SACPolicy"):
        DiffTORI.load(tmp_path / "sac")
    TDMPC("MlpPolicy", point_env(), device="cpu").save(tmp_path / "tdmpc")
    with pytest.raises(ValueError, match="saved by DiffTORI, got one saved by TDMPC"):
        DiffTORI.load(tmp_path / "tdmpc")
    difftori.make(point_env()).save(tmp_path / "difftori")
    with pytest.raises(ValueError, match="saved by TDMPC, got one saved by DiffTORI"):
        TDMPC.load(tmp_path / "difftori")


def test_broken_files(point_env, learner, tmp_path):
    learner.make(point_env()).save(tmp_path / "model")
    whole = (tmp_path / "model.zip").read_bytes()
    for size in (0, 1, 1000, len(whole) // 2, len(whole) - 20):
        (tmp_path / "part.zip").write_bytes(whole[:size])
        with pytest.raises((ValueError, zipfile.BadZipFile)):
            learner.cls.load(tmp_path / "part")
    with pytest.raises(FileNotFoundError):
        learner.cls.load(tmp_path / "nothing")


def test_loading_with_another_environment(point_env, learner, tmp_path):
    learner.make(point_env()).save(tmp_path / "model")
    with pytest.raises(ValueError, match="Observation spaces do not match"):
        learner.cls.load(tmp_path / "model", env=point_env("image"))
    with pytest.raises(ValueError, match="Action spaces do not match"):
        learner.cls.load(tmp_path / "model", env=point_env(action_shape=(2,)))


def test_loading_with_a_change_that_would_have_no_effect(point_env, difftori, tmp_path):
    difftori.make(point_env()).save(tmp_path / "model")
    assert DiffTORI.load(tmp_path / "model", horizon=2, learning_rate=1e-4, verbose=1).horizon == 2
    with pytest.raises(ValueError, match=r"cannot change \['pg_coef'\]"):
        DiffTORI.load(tmp_path / "model", pg_coef=0.0)


def test_settings_take_effect_as_soon_as_they_are_set_or_loaded(point_env, difftori, tmp_path):
    model = difftori.make(point_env())
    model.gamma, model.horizon, model.tau = 0.5, 2, 0.25
    model.planner_kwargs = dict(max_iterations=4)
    model.save(tmp_path / "model")
    again = DiffTORI.load(tmp_path / "model", planner_kwargs=dict(max_iterations=7, init="zero"))
    for each, iterations, init in ((model, 4, "policy"), (again, 7, "zero")):
        planner = each.policy.planner
        assert (planner.discount, planner.optimizer.max_iterations, planner.init) == (0.5, iterations, init)
        assert (each._updater.settings.discount, each._updater.settings.tau) == (0.5, 0.25)
        assert each.schedule.horizon == 2
    with pytest.raises(ValueError, match="max_iterations >= 0, got -1"):
        model.planner_kwargs = dict(max_iterations=-1)


def test_buffers_of_other_algorithms(point_env, difftori, tmp_path):
    SAC("MlpPolicy", point_env(), buffer_size=10, device="cpu").save_replay_buffer(tmp_path / "buffer")
    with pytest.raises(ValueError, match="trained on windows"):
        difftori.make(point_env()).load_replay_buffer(tmp_path / "buffer")


@pytest.mark.parametrize("size", [1e30, np.inf, np.nan])
def test_weights_that_overflow_still_give_actions(learner, point_env, size):
    env = point_env()
    model = learner.make(env, planner_kwargs=dict(horizon_initial=3))
    for network in (model.policy.model, model.policy.encoder):
        for parameter in network.parameters():
            torch.nn.init.constant_(parameter, size)
    observation = np.ones((4, 2), np.float32)
    for deterministic in (True, False):
        actions, state = model.predict(observation, deterministic=deterministic)
        actions, _ = model.predict(observation, state, deterministic=deterministic)
        assert all(env.action_space.contains(action) for action in actions)
