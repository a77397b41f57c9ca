"""Every learner of the package, small, trained for a few steps on Gymnasium's pendulum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv

from difftori_gym import DiffTORI, DiffTORIImitation
from difftori_gym.baselines import BC, BCRNN, IBC, MIP, TDMPC, TDMPC2, DiffusionPolicy, DrQv2, FlowMatching, Residual
from difftori_gym.il import Demonstrations, Episode

STEPS = 20


class Drawn(gym.ObservationWrapper):
    """The pendulum's rod as a small image, channels first."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.observation_space = spaces.Box(0, 255, (1, 36, 36), np.uint8)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        image = np.zeros((1, 36, 36), np.uint8)
        along = np.linspace(0.0, 14.0, 8)
        image[0, (18 - along * observation[0]).astype(int), (18 + along * observation[1]).astype(int)] = 255
        return image


def make_env(images: bool = False) -> gym.Env:
    """Gymnasium's pendulum, for a few steps."""
    env = gym.make("Pendulum-v1", max_episode_steps=STEPS)
    return Drawn(env) if images else env


def demonstrate() -> Demonstrations:
    """Episodes of random actions: a contract does not ask how well is imitated."""
    env = make_env()
    recorded = []
    for seed in range(3):
        observation, _ = env.reset(seed=seed)
        env.action_space.seed(seed)
        observations, actions, rewards = [observation], [], []
        for _ in range(STEPS):
            actions.append(env.action_space.sample())
            observation, reward, *_ = env.step(actions[-1])
            observations.append(observation)
            rewards.append(float(reward))
        recorded.append(Episode(np.array(observations), np.array(actions), np.array(rewards), False, True, seed=seed))
    return Demonstrations(tuple(recorded), env.observation_space, env.action_space, "Pendulum-v1")


DEMONSTRATIONS = demonstrate()


@dataclass(frozen=True)
class Subject:
    """
    A learner with settings that make it quick.

    :param cls: its class
    :param settings: keyword arguments
    :param images: whether it learns from images
    :param imitates: whether it learns from demonstrations
    :param steps: that it is trained for
    """

    cls: type[BaseAlgorithm]
    settings: dict[str, Any] = field(default_factory=dict)
    images: bool = False
    imitates: bool = False
    steps: int = 44

    def envs(self, n: int = 2) -> VecEnv:
        """Environments it learns in."""
        return make_vec_env(lambda: make_env(self.images), n, seed=0)

    def make(self, **settings: Any) -> BaseAlgorithm:
        """An untrained learner."""
        given: dict[str, Any] = {"seed": 0, "device": "cpu", **self.settings, **settings}
        if "env" not in given:
            given["env"] = self.envs()
        if self.imitates:
            given["demonstrations"] = DEMONSTRATIONS
        if (
            self.cls in (DiffTORIImitation, Residual)
            and given.get("planner_kwargs", {}).get("init", "base_policy") == "base_policy"
        ):
            given["base_policy"] = BASE.make(n_obs_steps=3, horizon=2).learn(2)
        return self.cls("CnnPolicy" if self.images else "MlpPolicy", **given)

    def build(self, env: gym.Env, demonstrations: Demonstrations | None = None, **settings: Any) -> BaseAlgorithm:
        """An untrained learner in another environment."""
        given: dict[str, Any] = {"seed": 0, "device": "cpu", **self.settings, **settings}
        if self.imitates:
            given["demonstrations"] = demonstrations
        if (
            self.cls in (DiffTORIImitation, Residual)
            and given.get("planner_kwargs", {}).get("init", "base_policy") == "base_policy"
        ):
            given["base_policy"] = BASE.build(env)
        vectors = "MultiInputPolicy" if isinstance(env.observation_space, spaces.Dict) else "MlpPolicy"
        return self.cls("CnnPolicy" if self.images else vectors, env, **given)

    def observations(self, n: int = 5, seed: int = 0) -> np.ndarray:
        """Of the environment."""
        rng = np.random.default_rng(seed)
        if self.images:
            return rng.integers(0, 256, (n, 1, 36, 36), dtype=np.uint8)
        angle = rng.uniform(-np.pi, np.pi, n)
        return np.stack([np.cos(angle), np.sin(angle), rng.uniform(-6, 6, n)], axis=1).astype(np.float32)


SMALL = dict(net_arch=[8, 8])
WINDOW: dict[str, Any] = dict(n_obs_steps=2, horizon=4, n_action_steps=3)
IMITATION: dict[str, Any] = dict(imitates=True, steps=4)
PLANNING: dict[str, Any] = dict(learning_starts=30, batch_size=8, horizon=3, buffer_size=500, schedule_steps=60)
ITERATIONS: dict[str, Any] = dict(max_iterations=2, horizon_initial=2)
PLANNER: dict[str, Any] = dict(policy_kwargs=dict(net_arch=[8], latent_dim=4), **PLANNING)
DIFFTORI: dict[str, Any] = dict(planner_kwargs=ITERATIONS, pg_batch_size=4, **PLANNER)
SOLVER: dict[str, Any] = dict(latent_dim=3, policy_kwargs=SMALL, batch_size=8, **WINDOW)
IMPLICIT = dict(width=8, depth=2, num_counter_examples=8, num_action_samples=16)
BASE = Subject(BC, dict(batch_size=8, policy_kwargs=SMALL), **IMITATION)
SUBJECTS = {
    "difftori": Subject(DiffTORI, DIFFTORI),
    "difftori-warm": Subject(DiffTORI, dict(DIFFTORI, planner_kwargs=dict(ITERATIONS, init="warm"))),
    "tdmpc": Subject(
        TDMPC, dict(planner_kwargs=dict(ITERATIONS, num_samples=12, num_elites=3, mixture_coef=0.2), **PLANNER)
    ),
    "tdmpc2": Subject(
        TDMPC2,
        dict(
            PLANNING,
            planner_kwargs=dict(ITERATIONS, num_samples=12, num_elites=3, num_prior_samples=2),
            policy_kwargs=dict(net_arch=[8], latent_dim=8),
        ),
    ),
    "drqv2": Subject(
        DrQv2,
        dict(learning_starts=30, batch_size=4, buffer_size=200, policy_kwargs=dict(net_arch=[8], features_dim=4)),
        images=True,
        steps=36,
    ),
    "bc": BASE,
    "bc-gmm": Subject(BC, dict(batch_size=8, head="gmm", policy_kwargs=SMALL, **WINDOW), **IMITATION),
    "bc-rnn": Subject(BCRNN, dict(batch_size=8, n_obs_steps=3, policy_kwargs=dict(hidden_dim=8)), **IMITATION),
    "ibc": Subject(IBC, dict(batch_size=8, policy_kwargs=IMPLICIT), **IMITATION),
    "diffusion": Subject(
        DiffusionPolicy, dict(batch_size=8, size="small", num_inference_steps=2, **WINDOW), **IMITATION
    ),
    "flow": Subject(FlowMatching, dict(batch_size=8, size="small", num_inference_steps=2, **WINDOW), **IMITATION),
    "mip": Subject(MIP, dict(batch_size=8, size="small", **WINDOW), **IMITATION),
    "residual": Subject(Residual, dict(batch_size=8, policy_kwargs=SMALL), **IMITATION),
    "imitation": Subject(DiffTORIImitation, dict(planner_kwargs=dict(max_iterations=2), **SOLVER), **IMITATION),
    "imitation-latent": Subject(
        DiffTORIImitation,
        dict(objective="latent", planner_kwargs=dict(max_iterations=2, init="random"), num_latents=2, **SOLVER),
        **IMITATION,
    ),
}


@pytest.fixture(scope="session")
def subjects() -> dict[str, Subject]:
    """All of them, by name."""
    return SUBJECTS


@pytest.fixture(scope="session", params=list(SUBJECTS))
def subject(request: pytest.FixtureRequest) -> Subject:
    """Each of the learners in turn."""
    return SUBJECTS[request.param]


@pytest.fixture(scope="session")
def trained(subject: Subject) -> BaseAlgorithm:
    """It, trained; tests leave it as it is."""
    return subject.make().learn(subject.steps)


@pytest.fixture
def rollout() -> Callable[..., np.ndarray]:
    """Actions ``[steps, n, 1]`` of a model or policy along random observations, the state carried."""

    def run(model: Any, subject: Subject, steps: int = 5, n: int = 3) -> np.ndarray:
        state, start, actions = None, np.ones(n, bool), []
        for step in range(steps):
            action, state = model.predict(subject.observations(n, step), state, start, deterministic=True)
            start = np.zeros(n, bool)
            actions.append(action)
        return np.array(actions)

    return run
