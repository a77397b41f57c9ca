"""Scripted demonstrations of MetaWorld, the objective that imitation learns from them, and how it ranks actions."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from difftori_gym import DiffTORIImitation
from difftori_gym.baselines import BC
from difftori_gym.collection import CollectionSettings, collect, make_expert
from difftori_gym.envs import parse_task
from difftori_gym.il import CosineSchedule, Demonstrations, read_minari
from difftori_gym.il.dataset import WindowDataset
from difftori_gym.il.difftori_network import DiffTORINetwork
from difftori_gym.il.networks import TrainingBatch
from reward_questions.table import Row, Table

SIGMAS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Standard deviations of what is added to an expert's actions, in units of the [-1, 1] box."""
#: The small size of examples/compare.py.
WINDOW: dict[str, Any] = dict(n_obs_steps=2, horizon=4, n_action_steps=3)
SMALL: dict[str, Any] = dict(start_noise=0.2, latent_dim=0)
SIZES = (256, 256)
PLANNER: dict[str, Any] = dict(step_size=1e-2, max_iterations=3, backward_num_iterations=3)


@dataclass(frozen=True)
class RankingSettings:
    """
    :param tasks: of MetaWorld
    :param seeds: of the learners
    :param demos: episodes to learn from
    :param held_out: further episodes to rank on
    :param objectives: ``"chunk"``, ``"latent"``
    :param steps: gradient steps of base policy and of DiffTORI
    :param episode_steps: length of an episode
    """

    tasks: tuple[str, ...] = ("metaworld/drawer-open", "metaworld/box-close", "metaworld/push")
    seeds: tuple[int, ...] = (0, 1, 2)
    demos: int = 10
    held_out: int = 5
    objectives: tuple[str, ...] = ("chunk", "latent")
    steps: int = 1000
    episode_steps: int = 200


def demonstrations_of(
    task: str, count: int, folder: Path, max_steps: int = 200, held_out: int = 5, **env_kwargs: Any
) -> tuple[Demonstrations, Demonstrations]:
    """
    The scripted expert's successful episodes, collected once and kept.

    :param task: name for ``make_env``
    :param count: of the first, to learn from
    :param folder: of the data set
    :param max_steps: agent steps of an episode
    :param held_out: further episodes, which nothing is learned from
    :return: the first ``count`` episodes, and the further ones
    """
    total = count + held_out
    settings = CollectionSettings(task, folder, total, append=True, max_steps=max_steps, env_kwargs=env_kwargs)
    if not (folder / "data").is_dir() or len(read_minari(folder)) < total:
        collect(settings, make_expert(parse_task(task)))
    everything = read_minari(folder)
    return everything.take(count), replace(everything, episodes=everything.episodes[count:total])


def imitate(
    demonstrations: Demonstrations,
    objective: str,
    steps: int,
    seed: int,
    net_arch: tuple[int, ...] = SIZES,
    **window: Any,
) -> DiffTORIImitation:
    """
    :param demonstrations: to imitate
    :param objective: ``"chunk"`` or ``"latent"``
    :param steps: gradient steps, of the base policy too
    :param seed: of both
    :param net_arch: hidden layers of both
    :param window: observations, horizon and executed actions, and other settings of both
    :return: DiffTORI on a cloned base policy, trained
    """
    rate = dict(learning_rate=CosineSchedule(1e-3, final=1e-5), seed=seed, device="cpu", **window)
    base = BC("MlpPolicy", None, demonstrations, policy_kwargs=dict(net_arch=[*net_arch]), **rate)
    base.learn(steps, log_interval=None)
    model = DiffTORIImitation(
        "MlpPolicy",
        None,
        demonstrations,
        base_policy=base,
        objective=objective,
        planner_kwargs=PLANNER,
        policy_kwargs=dict(net_arch=[*net_arch]),
        **SMALL,
        **rate,
    )
    return model.learn(steps, log_interval=None)


def network_of(model: DiffTORIImitation) -> DiffTORINetwork:
    """:return: the moving average of the weights, which is what acts"""
    network = model.policy.acting
    assert isinstance(network, DiffTORINetwork)
    return network


@torch.no_grad()
def scores(network: DiffTORINetwork, observations: Tensor, actions: Tensor) -> Tensor:
    """
    The learned objective at given actions; no solver has a part in it.

    :param observations: raw ``[B, n_obs_steps, ...]``
    :param actions: ``[B, H, A]`` in [-1, 1]
    :return: ``[B]``
    """
    features = network.encoder(observations).flatten(1)
    return network.objective(features, features.new_zeros(len(features), network.latent_dim))(actions)


def windows_of(model: DiffTORIImitation, demonstrations: Demonstrations) -> TrainingBatch:
    """:return: all windows of some episodes, with what the base policy would do"""
    dataset = WindowDataset(demonstrations, model.policy, np.random.default_rng(0), False)
    return dataset.batch(np.arange(len(dataset)))


def accuracy(better: Tensor, worse: Tensor) -> float:
    """
    :param better: scores of what should rank above ``[B]``
    :param worse: scores of what should rank below ``[B]``
    :return: how often it does; equal scores count half
    """
    return ((better > worse).double() + 0.5 * (better == worse).double()).mean().item()


def perturbed(actions: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """:return: actions with Gaussian noise, cut off at the box"""
    return (actions + sigma * torch.randn(actions.shape, generator=generator, dtype=actions.dtype)).clamp(-1.0, 1.0)


def ranked(model: DiffTORIImitation, demonstrations: Demonstrations) -> Iterator[Row]:
    """
    How often the expert's actions rank above the same actions perturbed, in the same state.

    Beside the objective stands the distance to the answer of the base policy, a score that knows nothing but a policy,
    and the distance to DiffTORI's own answer.

    :param model: trained
    :param demonstrations: which it has not seen
    :return: rows by score and perturbation
    """
    batch, network = windows_of(model, demonstrations), network_of(model)
    observations, expert, base = batch.observations, batch.actions, batch.base_actions
    assert isinstance(observations, Tensor)
    assert base is not None
    noise = model.policy.draw_noise(len(expert), True)
    with torch.no_grad():
        plan = model.policy.chunk(observations, noise, True)
    judges = {
        "objective": lambda actions: scores(network, observations, actions),
        "distance to clone": lambda actions: -(actions - base).square().flatten(1).sum(1),
        "distance to plan": lambda actions: -(actions - plan).square().flatten(1).sum(1),
    }
    for sigma in SIGMAS:
        worse = perturbed(expert, sigma, torch.Generator().manual_seed(0))
        for name, judge in judges.items():
            yield {"score": name, "sigma": sigma, "accuracy": accuracy(judge(expert), judge(worse))}


def run(table: Table, settings: RankingSettings, demos: Path) -> None:
    """
    :param table: of the rows
    :param settings: of the question
    :param demos: folder of data sets
    """
    cells = itertools.product(settings.seeds, settings.objectives, settings.tasks)
    for seed, objective, task in cells:
        key: Row = {"task": task, "objective": objective, "seed": seed}
        if table.of(**key):
            continue
        folder = demos / task.replace("/", "_")
        known, unseen = demonstrations_of(task, settings.demos, folder, settings.episode_steps, settings.held_out)
        model = imitate(known, objective, settings.steps, seed, **WINDOW)
        table.replace(list(ranked(model, unseen)), **key)


def table(folder: Path) -> Table:
    """:return: the rows of this question"""
    return Table(folder / "reward_ranking.csv", ("task", "objective", "seed", "score", "sigma"), ("accuracy",))
