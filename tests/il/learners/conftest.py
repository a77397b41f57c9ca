"""A small real data set, and every imitation learner in a size that makes it quick."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv

from difftori_gym.baselines import BC, BCRNN, IBC, MIP, DiffusionPolicy, FlowMatching, Residual
from difftori_gym.il import Demonstrations, DiffTORIImitation, Episode, ImitationAlgorithm

STEPS = 40


def swing(observation: np.ndarray) -> np.ndarray:
    """Gymnasium's pendulum: pump energy, then hold it upright."""
    cos, sin, speed = observation
    if cos > 0.9:
        torque = -12.0 * np.arctan2(sin, cos) - 3.0 * speed
    else:
        torque = 2.0 * np.sign(speed) if 0.5 * speed**2 + 15.0 * (cos - 1.0) < 0 else 0.0
    return np.clip([torque], -2.0, 2.0).astype(np.float32)


class Observed(gym.ObservationWrapper):
    """The pendulum's state as a dictionary, a point cloud of its rod, or a small image, channels last."""

    def __init__(self, env: gym.Env, kind: str) -> None:
        super().__init__(env)
        self.kind = kind
        self.observation_space = {
            "state": env.observation_space,
            "dict": spaces.Dict(rod=spaces.Box(-2.0, 2.0, (8, 3)), speed=spaces.Box(-8.0, 8.0, (1,))),
            "image": spaces.Box(0, 255, (36, 36, 3), np.uint8),
        }[kind]

    def observation(self, observation: np.ndarray) -> Any:
        if self.kind == "state":
            return observation
        along = np.linspace(0.1, 1.0, 8)[:, None] * np.array([[observation[1], observation[0], 0.0]])
        if self.kind == "dict":
            return {"rod": along.astype(np.float32), "speed": observation[2:]}
        image = np.zeros((36, 36, 3), np.uint8)
        columns, rows = (18 + 14 * along[:, :2]).astype(int).T
        image[rows, columns] = 255
        return image


def make_env(kind: str = "state") -> gym.Env:
    """Gymnasium's pendulum, for a few steps."""
    return Observed(gym.make("Pendulum-v1", max_episode_steps=STEPS), kind)


def demonstrate(kind: str = "state", episodes: int = 4) -> Demonstrations:
    """Episodes of the controller."""
    env = make_env(kind)
    recorded = []
    for seed in range(episodes):
        observation, _ = env.reset(seed=seed)
        observations, actions, rewards, truncated = [observation], [], [], False
        while not truncated:
            state = env.unwrapped._get_obs()
            actions.append(swing(state))
            observation, reward, _, truncated, _ = env.step(actions[-1])
            observations.append(observation)
            rewards.append(reward)
        stacked: Any = np.array(observations)
        if kind == "dict":
            stacked = {key: np.array([each[key] for each in observations]) for key in observations[0]}
        recorded.append(Episode(stacked, np.array(actions), np.array(rewards), False, True, seed=seed))
    return Demonstrations(tuple(recorded), env.observation_space, env.action_space, "Pendulum-v1")


@dataclass
class Learner:
    """An algorithm with settings that make it quick."""

    cls: type[ImitationAlgorithm]
    settings: dict[str, Any] = field(default_factory=dict)
    policy_kwargs: dict[str, Any] = field(default_factory=dict)
    needs_base: bool = False

    def make(self, demonstrations: Demonstrations | None, env: Any = None, **settings: Any) -> ImitationAlgorithm:
        small = dict(batch_size=16, learning_rate=1e-3, seed=0, device="cpu", policy_kwargs=self.policy_kwargs)
        merged = {**small, **self.settings, **settings}
        if self.needs_base and "base_policy" not in merged:
            merged["base_policy"] = base_policy(demonstrations, env)
        kind = (demonstrations or env).observation_space
        policy = "MultiInputPolicy" if isinstance(kind, spaces.Dict) else "MlpPolicy"
        return self.cls(policy, env, demonstrations, **merged)


def base_policy(demonstrations: Demonstrations | None, env: Any = None) -> ImitationAlgorithm:
    """Behaviour cloning with a window of its own."""
    model = LEARNERS["bc"].make(demonstrations, env, n_obs_steps=3, horizon=2, n_action_steps=1)
    return model.learn(20) if demonstrations is not None else model


SMALL = dict(net_arch=[16, 16])
WINDOW = dict(n_obs_steps=2, horizon=4, n_action_steps=3)
ITERATIONS = dict(max_iterations=3, backward_num_iterations=2)
DIFFTORI = dict(**WINDOW, planner_kwargs=ITERATIONS, latent_dim=4)
LEARNERS = {
    "bc": Learner(BC, policy_kwargs=SMALL),
    "bc-gmm": Learner(BC, dict(head="gmm", num_modes=3, **WINDOW), SMALL),
    "bc-rnn": Learner(BCRNN, dict(n_obs_steps=4), dict(hidden_dim=16)),
    "residual": Learner(Residual, policy_kwargs=SMALL, needs_base=True),
    "ibc-dfo": Learner(
        IBC, dict(sampling="dfo"), dict(width=16, depth=2, num_counter_examples=16, num_action_samples=64)
    ),
    "ibc-langevin": Learner(
        IBC,
        dict(sampling="langevin"),
        dict(width=16, depth=2, num_counter_examples=8, num_action_samples=16, num_iterations=4),
    ),
    "diffusion": Learner(DiffusionPolicy, dict(size="small", num_inference_steps=3, **WINDOW)),
    "flow": Learner(FlowMatching, dict(size="small", num_inference_steps=3, **WINDOW)),
    "mip": Learner(MIP, dict(size="small", **WINDOW)),
    "difftori": Learner(DiffTORIImitation, DIFFTORI, SMALL, needs_base=True),
    "difftori-latent": Learner(
        DiffTORIImitation,
        dict(DIFFTORI, objective="latent", planner_kwargs=dict(ITERATIONS, init="random"), num_latents=3),
        SMALL,
    ),
}


@pytest.fixture(params=list(LEARNERS))
def learner(request: pytest.FixtureRequest) -> Learner:
    """Each of the algorithms in turn."""
    return LEARNERS[request.param]


@pytest.fixture
def learners() -> dict[str, Learner]:
    return LEARNERS


@pytest.fixture(scope="session")
def demonstrations() -> Demonstrations:
    """Four episodes of the pendulum, from state."""
    return demonstrate()


@pytest.fixture(scope="session")
def demonstrations_of() -> Callable[[str], Demonstrations]:
    return demonstrate


@pytest.fixture
def pendulums() -> Callable[..., VecEnv]:
    """Builds a vectorised environment of ``n`` pendulums."""
    return lambda n=2, kind="state": make_vec_env(lambda: make_env(kind), n, seed=0)


@pytest.fixture
def weights() -> Callable[[ImitationAlgorithm], dict[str, torch.Tensor]]:
    """Copies all weights of a model."""
    return lambda model: {name: value.clone() for name, value in model.policy.state_dict().items()}
