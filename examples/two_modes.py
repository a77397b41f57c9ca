"""
Multimodal demonstrations: a point must pass an obstacle, and half of the demonstrations pass it on either side.

    python examples/two_modes.py --out results/two_modes

Trains DiffTORI, deterministic behaviour cloning and Diffusion Policy on the same demonstrations, prints which share of
rollouts takes which side and how many arrive, and draws rollouts and the learned objective for several latents.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from matplotlib.figure import Figure
from stable_baselines3.common.vec_env import DummyVecEnv

from difftori_gym.baselines import BC, DiffusionPolicy
from difftori_gym.il import CosineSchedule, Demonstrations, DiffTORIImitation, Episode, ImitationAlgorithm
from difftori_gym.il.difftori_network import DiffTORINetwork

START, GOAL = np.array([0.0, -1.0]), np.array([0.0, 1.0])
RADIUS, REACHED, STEP, TIME_LIMIT = 0.35, 0.2, 0.1, 60
DISTURBANCE = 0.3  # of the demonstrations, so that they show how to recover
START_NOISE = 0.0


class TwoModes(gym.Env[np.ndarray, np.ndarray]):
    """A point at rest below a round obstacle, its goal above it. It observes its position and chooses its velocity."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-2.0, 2.0, (2,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.position = START + self.np_random.uniform(-START_NOISE, START_NOISE, 2)
        self.steps, self.side = 0, 0
        return self.position.astype(np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.position = np.clip(self.position + STEP * np.clip(action, -1.0, 1.0), -2.0, 2.0)
        self.steps += 1
        if self.side == 0 and self.position[1] > 0.0:
            self.side = 1 if self.position[0] > 0.0 else -1
        success = bool(np.linalg.norm(self.position - GOAL) < REACHED)
        hit = bool(np.linalg.norm(self.position) < RADIUS)
        info = {"is_success": success, "side": self.side, "hit": hit}
        return self.position.astype(np.float32), float(success), success or hit, self.steps >= TIME_LIMIT, info


def planned_velocity(position: np.ndarray, side: int) -> np.ndarray:
    """The scripted planner: past a point beside the obstacle, then to the goal, at most at speed 1."""
    target = np.array([0.7 * side, 0.1]) if position[1] < 0.0 else GOAL
    way = (target - position) / STEP
    return way / max(1.0, float(np.linalg.norm(way)))


def demonstrate(episodes: int, seed: int) -> Demonstrations:
    """
    Demonstrations of the planner, the sides in turn. It is disturbed, and its answer to that is recorded; what the
    disturbance drives into the obstacle is not kept.
    """
    env, rng, recorded, attempt = TwoModes(), np.random.default_rng(seed), [], 0
    while len(recorded) < episodes:
        episode = _attempt(env, rng, side=1 if len(recorded) % 2 else -1, seed=seed + attempt)
        attempt += 1
        if episode.success:
            recorded.append(episode)
    return Demonstrations(tuple(recorded), env.observation_space, env.action_space, "two_modes")


def _attempt(env: TwoModes, rng: np.random.Generator, side: int, seed: int) -> Episode:
    observation, _ = env.reset(seed=seed)
    observations, actions, rewards, done = [observation], [], [], False
    while not done:
        action = planned_velocity(env.position, side).astype(np.float32)
        observation, reward, terminated, truncated, info = env.step(action + DISTURBANCE * rng.standard_normal(2))
        observations.append(observation)
        actions.append(action)
        rewards.append(reward)
        done = terminated or truncated
    arrays = np.array(observations), np.array(actions), np.array(rewards)
    return Episode(*arrays, terminated, truncated, info["is_success"], seed)


@dataclass(frozen=True)
class Rollouts:
    """What a policy did: paths, the side each passed on (0: it did not pass), and whether it arrived."""

    paths: list[np.ndarray]
    sides: np.ndarray
    successes: np.ndarray

    def summary(self) -> str:
        left, right = (self.sides == -1).mean(), (self.sides == 1).mean()
        return f"left {left:4.0%}, right {right:4.0%}, success {self.successes.mean():4.0%}"


def roll_out(model: ImitationAlgorithm, episodes: int, seed: int, deterministic: bool) -> Rollouts:
    """All episodes side by side, from seeds that no demonstration used."""
    env = DummyVecEnv([TwoModes for _ in range(episodes)])
    env.seed(10_000 + seed)
    torch.manual_seed(seed)
    observation, state, start = env.reset(), None, np.ones(episodes, dtype=bool)
    paths: list[list[np.ndarray]] = [[point] for point in observation]
    sides, successes, running = np.zeros(episodes, int), np.zeros(episodes, bool), np.ones(episodes, bool)
    while running.any():
        action, state = model.predict(observation, state, start, deterministic)
        observation, _, start, infos = env.step(action)
        for index in np.flatnonzero(running):
            done = bool(start[index])
            paths[index].append(infos[index]["terminal_observation"] if done else observation[index])
            if done:
                sides[index] = 0 if infos[index]["hit"] else infos[index]["side"]
                successes[index], running[index] = infos[index]["is_success"], False
    return Rollouts([np.array(path) for path in paths], sides, successes)


def make_models(
    demonstrations: Demonstrations, seed: int, methods: Sequence[str], **settings: Any
) -> dict[str, ImitationAlgorithm]:
    """The methods with sizes that suit so small a task; window, seed and learning rate are the same for all."""
    common: dict[str, Any] = dict(
        n_obs_steps=1,
        horizon=8,
        n_action_steps=4,
        learning_rate=CosineSchedule(2e-3),
        batch_size=128,
        ema_decay=0.995,
        seed=seed,
        device="cpu",
        **settings,
    )
    kinds: dict[str, tuple[type[ImitationAlgorithm], dict[str, Any]]] = {
        # A greater weight of the divergence than the published 10: at 10 the latent also encodes when the
        # demonstrations turn, which the prior, drawn once an episode, cannot know.
        "difftori": (
            DiffTORIImitation,
            dict(init="zero", latent_dim=4, kl_coef=30.0, policy_kwargs=dict(net_arch=[128, 128])),
        ),
        "bc": (BC, dict(policy_kwargs=dict(net_arch=[128, 128]))),
        "diffusion": (DiffusionPolicy, dict(size="small")),
    }
    return {
        name: kinds[name][0]("MlpPolicy", None, demonstrations, **common, **kinds[name][1])  # type: ignore[misc]
        for name in methods
    }


def draw_rollouts(rollouts: dict[str, Rollouts], demonstrations: Demonstrations, path: Path) -> None:
    """Paths of the demonstrations and of every method around the obstacle."""
    panels = {"demonstrations": [np.asarray(each.observations) for each in demonstrations.episodes[:40]]}
    panels.update({f"{name}: {each.summary()}": each.paths for name, each in rollouts.items()})
    figure = Figure(figsize=(4.2 * len(panels), 4.6), layout="constrained")
    for axes, (title, paths) in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels.items(), strict=True):
        _draw_scene(axes)
        for way in paths:
            axes.plot(way[:, 0], way[:, 1], linewidth=0.7, alpha=0.6)
        axes.set_title(title, fontsize=8)
    figure.savefig(path, dpi=110)


def draw_landscapes(model: DiffTORIImitation, latents: int, path: Path) -> None:
    """
    The learned objective at the start, for several latents of the prior: over the mean velocity of a sequence, that is,
    with the same velocity at every step. Dots: the plan's own mean velocity.
    """
    network = model.policy.acting
    assert isinstance(network, DiffTORINetwork)
    ticks = torch.linspace(-1.0, 1.0, 41)
    grid = torch.cartesian_prod(ticks, ticks)[:, None].expand(-1, network.horizon, -1)
    drawn = torch.randn(latents, network.latent_dim, generator=torch.Generator().manual_seed(1))
    figure = Figure(figsize=(3.0 * latents, 3.2), layout="constrained")
    with torch.no_grad():
        start = torch.as_tensor(START, dtype=torch.float32)[None, None].expand(latents, 1, 2)
        features = network.encoder(start).flatten(1)
        plans = network.chunk(start, drawn, None, deterministic=True).mean(dim=1)
        for index, axes in enumerate(np.atleast_1d(figure.subplots(1, latents))):
            objective = network.objective(
                features[:1].expand(len(grid), -1), drawn[index : index + 1].expand(len(grid), -1)
            )
            axes.contourf(ticks, ticks, objective(grid).view(41, 41).T, levels=20)
            axes.plot(*plans[index], "o", color="white", markeredgecolor="black")
            axes.set(xlabel="velocity x", ylabel="velocity y", title=f"latent {index + 1}")
    figure.savefig(path, dpi=110)


def _draw_scene(axes: Any) -> None:
    angle = np.linspace(0.0, 2.0 * np.pi, 100)
    axes.fill(RADIUS * np.cos(angle), RADIUS * np.sin(angle), color="0.7")
    axes.plot(*GOAL, "*", color="black", markersize=10)
    axes.set(xlim=(-1.2, 1.2), ylim=(-1.3, 1.3), aspect="equal")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/two_modes"), help="folder for figures and models")
    parser.add_argument("--demos", type=int, default=100)
    parser.add_argument("--steps", type=int, default=5000, help="gradient steps of every method")
    parser.add_argument("--episodes", type=int, default=200, help="rollouts per method")
    parser.add_argument("--methods", nargs="+", choices=("difftori", "bc", "diffusion"), default=None)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    demonstrations = demonstrate(args.demos, args.seed)
    models = make_models(demonstrations, args.seed, args.methods or ("difftori", "bc", "diffusion"))
    rollouts = {}
    for name, model in models.items():
        begin = time.process_time()
        model.learn(args.steps)
        seconds = time.process_time() - begin
        # Behaviour cloning is deterministic; the others draw latents or noise, as they are meant to.
        rollouts[name] = roll_out(model, args.episodes, args.seed, deterministic=name == "bc")
        print(
            f"{name:10} {rollouts[name].summary()}, {seconds:.0f} s of processor time for {args.steps} steps",
            flush=True,
        )
        model.save(args.out / name)
    draw_rollouts(rollouts, demonstrations, args.out / "rollouts.png")
    if "difftori" in models:
        difftori = models["difftori"]
        assert isinstance(difftori, DiffTORIImitation)
        draw_landscapes(difftori, 5, args.out / "landscapes.png")


if __name__ == "__main__":
    main()
