"""The policy of DiffTORI: an observation is encoded, an action sequence is optimised, its first action is executed."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, FlattenExtractor
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor, nn

from difftori_gym.learning.finite import check_finite_observation
from difftori_gym.learning.spaces import check_action_space, check_extractor, check_observation_space
from difftori_gym.models import (
    CombinedEncoder,
    ImageEncoder,
    LatentEncoder,
    LatentModel,
    LatentObjective,
    ObservationNorm,
)
from difftori_gym.rl.captured_plan import captured_plan, records_plans
from difftori_gym.rl.exploration import Exploration, drawn_action, executed_action
from difftori_gym.rl.images import has_images, preprocessed
from difftori_gym.rl.planning import Planner, carried_plan, join_solutions, near_prior
from difftori_gym.rl.raw_critic import RawCritic
from difftori_gym.trajopt import Solution

PlanState = tuple[np.ndarray, ...]


def sizes_of_heads(net_arch: list[int] | dict[str, list[int]] | None) -> dict[str, list[int]]:
    """
    :param net_arch: see :class:`DiffTORIPolicy`; of a list the encoder takes the first layer
    :return: hidden sizes of every head: prior, values, dynamics, reward and termination, encoder behind the features
    :raises ValueError: for a key that names no head
    """
    sizes = {"pi": [256, 256], "qf": [256, 256], "dynamics": [256, 256], "reward": [256, 256], "encoder": [256]}
    if isinstance(net_arch, dict):
        unknown = sorted(net_arch.keys() - sizes.keys())
        if unknown:
            raise ValueError(f"net_arch takes the keys {list(sizes)}, got {unknown}: remove or rename them.")
        return sizes | {name: list(each) for name, each in net_arch.items()}
    if net_arch is None:
        return sizes
    return {**{head: list(net_arch) for head in sizes}, "encoder": list(net_arch[:1])}


class DiffTORIPolicy(BasePolicy):
    """
    Planning policy: encoder h, latent model (d, R, twin Q, pi), and twin Q-tilde for the policy-gradient loss.

    :param observation_space: array or flat dictionary
    :param action_space: ``Box`` with finite bounds
    :param lr_schedule: learning rate of all optimizers, as a function of the remaining progress
    :param net_arch: hidden sizes of every head as a list, or per head as a dictionary with any of the keys
        ``pi, qf, dynamics, reward, encoder``; default ``[256, 256]`` and one layer of 256 in the encoder.
        The paper's size is ``dict(pi=[512, 512], qf=[512, 512], dynamics=[512, 512], reward=[512, 512])``.
    :param activation_fn: activation of the hidden layers
    :param features_extractor_class: turns observations into vectors; one for the encoder, one for Q-tilde
    :param features_extractor_kwargs: its keyword arguments
    :param normalize_images: whether images are divided by 255
    :param optimizer_class: class of the three optimizers (model, prior, Q-tilde)
    :param optimizer_kwargs: its keyword arguments besides the learning rate
    :param n_critics: number of latent values and of Q-tilde values
    :param latent_dim: Z
    :param planner: the optimiser, its start and its discount
    :param horizon: H to plan with; the algorithm moves it along its schedule
    :param exploration_std: standard deviation of the noise on non-deterministic actions, in units of the [-1, 1] box
    :param image_shift: images are moved at random by up to so many pixels in training (DrQ); None for a 21st of their
        width, which is 4 at 84 as in the paper; 0 for not at all. Other observations are left alone.
    :param slow_targets: encode next observations once, with the slowly moving encoder, for both kinds of targets.
        False also encodes them with the learned one, for the value targets, as TD-MPC does. None: only if there are
        images, where it saves a sixth of an update and more
    :param layer_norm: whether every hidden layer of the values is normalised, not the first alone
    :param norm_obs: whether vectors are brought to one scale by their running mean and deviation, as
        ``VecNormalize(norm_obs=True)`` does around an environment
    :raises ValueError: for an action space or observation space that cannot be planned with
    """

    #: Targets and Q-tilde: acting does not read them.
    training_networks: ClassVar[Sequence[str]] = ("raw_critic", "raw_critic_target", "encoder_target", "critic_target")

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        lr_schedule: Schedule,
        net_arch: list[int] | dict[str, list[int]] | None = None,
        activation_fn: type[nn.Module] = nn.ELU,
        features_extractor_class: type[BaseFeaturesExtractor] = FlattenExtractor,
        features_extractor_kwargs: dict[str, Any] | None = None,
        normalize_images: bool = True,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
        n_critics: int = 2,
        latent_dim: int = 50,
        planner: Planner | None = None,
        horizon: int = 5,
        exploration_std: float = 0.05,
        image_shift: int | None = None,
        slow_targets: bool | None = None,
        layer_norm: bool = False,
        norm_obs: bool = False,
    ) -> None:
        check_observation_space(observation_space, type(self).__name__)
        check_action_space(action_space, type(self).__name__)
        check_extractor(features_extractor_class, observation_space, type(self).__name__)
        super().__init__(
            observation_space,
            action_space,
            features_extractor_class,
            features_extractor_kwargs,
            normalize_images=normalize_images,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
            squash_output=True,
        )
        arch = sizes_of_heads(net_arch)
        self.net_arch = arch if net_arch is None else net_arch
        self.activation_fn = activation_fn
        self.n_critics = n_critics
        self.latent_dim = latent_dim
        self.planner = planner or Planner()
        self.horizon = horizon
        self.exploration_std = exploration_std
        # What an algorithm knows beside the deviation, and how far from the prior's its plans may be in each dimension
        # (None: any distance): neither is part of a policy's file.
        self.exploration: Exploration | None = None
        self.prior_radius: float | None = None
        self.image_shift = image_shift
        self.slow_targets = has_images(observation_space) if slow_targets is None else slow_targets
        self.layer_norm = layer_norm
        self.norm_obs = norm_obs
        self._build_networks(arch)
        self._build_optimizers(lr_schedule)

    def _build_networks(self, arch: dict[str, list[int]]) -> None:
        action_dim = get_action_dim(self.action_space)
        self.observation_norm = ObservationNorm(self.observation_space) if self.norm_obs else None
        self.encoder = LatentEncoder(
            self.make_features_extractor(), arch["encoder"], self.latent_dim, self.activation_fn
        )
        self.model = LatentModel(
            self.latent_dim,
            action_dim,
            dynamics_arch=arch["dynamics"],
            reward_arch=arch["reward"],
            qf_arch=arch["qf"],
            pi_arch=arch["pi"],
            n_critics=self.n_critics,
            activation_fn=self.activation_fn,
            layer_norm=self.layer_norm,
        )
        self.raw_critic = RawCritic(
            self.make_features_extractor(), action_dim, arch["qf"], self.n_critics, self.activation_fn, self.layer_norm
        )
        self.encoder_target = self._frozen_copy(self.encoder)
        self.critic_target = self._frozen_copy(self.model.critic)
        self.raw_critic_target = self._frozen_copy(self.raw_critic)

    @staticmethod
    def _frozen_copy(module: Any) -> Any:
        target = copy.deepcopy(module)
        target.train(False)
        return target.requires_grad_(False)

    def _build_optimizers(self, lr_schedule: Schedule) -> None:
        kwargs: dict[str, Any] = {"lr": lr_schedule(1), **self.optimizer_kwargs}
        if self.optimizer_class is torch.optim.Adam:
            kwargs.setdefault("fused", True)  # one kernel for all parameters, on CPU and CUDA

        def optimizer(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
            return self.optimizer_class(parameters, **kwargs)

        self.optimizer = optimizer(self.model_parameters())
        self.pi_optimizer = optimizer(list(self.model.actor.parameters()))
        self.raw_critic_optimizer = optimizer(list(self.raw_critic.parameters()))

    def model_parameters(self) -> list[nn.Parameter]:
        """Parameters of encoder, dynamics, reward, latent values and termination: all that planning learns."""
        prior = {id(parameter) for parameter in self.model.actor.parameters()}
        latent = [parameter for parameter in self.model.parameters() if id(parameter) not in prior]
        return [*self.encoder.parameters(), *latent]

    def _get_constructor_parameters(self) -> dict[str, Any]:
        data = super()._get_constructor_parameters()
        data["lr_schedule"] = self._dummy_schedule  # the optimizers' state is not part of a policy file
        # Every argument is an attribute of the same name.
        arguments = inspect.signature(DiffTORIPolicy.__init__).parameters
        return {**data, **{name: getattr(self, name) for name in arguments if name not in {"self", *data}}}

    def preprocess(self, observation: PyTorchObs, *, count: bool = False) -> PyTorchObs:
        """
        :param observation: raw observation tensors, ``[B, ...]`` or a dictionary of such
        :param count: whether they count in the statistics of ``norm_obs``, as training batches do
        :return: what the networks take: floats, images scaled to [0, 1] and vectors to one deviation if the policy
            normalises them
        """
        ready = preprocessed(observation, self.observation_space, normalize_images=self.normalize_images)
        if self.observation_norm is None:
            return ready
        if count:
            self.observation_norm.observe(ready)
        return self.observation_norm(ready)

    def encode(self, observation: PyTorchObs) -> Tensor:
        """:return: latent states ``[B, Z]`` of raw observation tensors, ``[B, ...]`` or a dictionary of such"""
        return self.encoder(self.preprocess(observation))

    def plan(
        self,
        observation: PyTorchObs,
        *,
        previous: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Solution:
        """
        The plan a policy would act on, without a graph.

        :param observation: raw observation tensors, ``[B, ...]`` or a dictionary of such
        :param previous: last plans ``[B, H, A]``, for a warm start; nan where there is none
        :param generator: randomness; one with a fixed seed if None, so that the plan is a function of its arguments
        :return: the solution; ``values`` is the return the model expects
        """
        solution = self._solve(observation, previous, generator)
        if self.prior_radius is None:
            return solution
        with torch.no_grad():
            return near_prior(solution, self.model, self.encode(observation), self.prior_radius)

    def _solve(self, observation: PyTorchObs, previous: Tensor | None, generator: torch.Generator | None) -> Solution:
        with torch.no_grad():
            if (generator is None or self.planner.optimizer.num_starts == 1) and self._records_plans():
                key = (self.planner, self.horizon, self.model.episodic, self.training)
                return captured_plan(self, self._plan_of, key, observation, previous)
            z = self.encode(observation)
            planner = self.planner.for_acting()
            if generator is not None or not planner.samples:
                return planner.plan(self.model, z, self.horizon, previous=previous, generator=generator)
            rows = []
            for i in range(len(z)):  # each with the same draws: a plan must not depend on an observation's neighbours
                fixed = torch.Generator(device=self.device).manual_seed(0)
                own = None if previous is None else previous[i : i + 1]
                rows.append(planner.plan(self.model, z[i : i + 1], self.horizon, previous=own, generator=fixed))
            return join_solutions(rows)

    def _records_plans(self) -> bool:
        return not self.planner.samples and records_plans(self, self.planner, self.device)

    def _plan_of(self, observation: PyTorchObs, previous: Tensor | None) -> Solution:
        return self.planner.for_acting().plan(self.model, self.encode(observation), self.horizon, previous=previous)

    def drawn_generator(self) -> torch.Generator:
        """:return: randomness on the device that follows torch's global seed"""
        return torch.Generator(device=self.device).manual_seed(int(torch.randint(2**62, ())))

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> Tensor:
        return self._act(observation, None, deterministic)[0]

    forward = _predict

    def _act(self, observation: PyTorchObs, previous: Tensor | None, deterministic: bool) -> tuple[Tensor, Solution]:
        generator = None if deterministic else self.drawn_generator()
        solution = self.plan(observation, previous=previous, generator=generator)
        return self.first_action(observation, solution, deterministic, generator), solution

    def first_action(
        self, observation: PyTorchObs, solution: Solution, deterministic: bool, generator: torch.Generator | None
    ) -> Tensor:
        """
        :param observation: raw observation tensors, ``[B, ...]`` or a dictionary of such
        :param solution: plans from there
        :param deterministic: False adds exploration noise
        :param generator: randomness of the noise
        :return: actions to execute ``[B, A]`` in [-1, 1]
        """
        explore = self.exploration
        if deterministic or explore is None or explore.max_std is None:
            std = None if deterministic else self.exploration_std
            return executed_action(solution, explore_std=std, generator=generator)
        with torch.no_grad():
            objective = LatentObjective(self.model, self.encode(observation), discount=self.planner.discount)
            return drawn_action(
                objective,
                solution.best_actions,
                stds=(self.exploration_std, explore.max_std),
                temperature=explore.temperature,
                generator=generator,
            )

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: PlanState | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, PlanState | None]:
        """
        Plan, and return the first action.

        With ``deterministic=True`` a pure function of the weights and these arguments. The only memory is ``state``,
        the last plan, and only a planner with ``init="warm"`` returns one.

        :param observation: one observation or a batch, in the environment's units
        :param state: what the previous call returned, or None
        :param episode_start: True where an episode starts, so that its old plan is forgotten, ``[B]``
        :param deterministic: False adds exploration noise
        :return: actions in the environment's units, state for the next call
        :raises ValueError: if an observation is not finite, naming the environment and the key
        """
        return self.predict_with_plan(observation, state, episode_start, deterministic)[:2]

    def predict_with_plan(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: PlanState | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, PlanState | None, Solution]:
        """
        :meth:`predict`, with its arguments and errors, and the plan whose first action it is: ``values`` ``[B]`` is the
        discounted return that the model expects of it, ``best_actions`` ``[B, H, A]`` its actions, in [-1, 1].

        :return: actions in the environment's units, state for the next call, the plan
        """
        check_finite_observation(observation, self.observation_space)
        if self.training:  # to look at every module takes a twentieth of a plan
            self.set_training_mode(False)
        tensor, vectorized = self.obs_to_tensor(observation)
        previous = self._previous_plan(state, episode_start) if self.planner.init == "warm" else None
        action, plan = self._act(tensor, previous, deterministic)
        actions = self.unscale_action(action.cpu().numpy().reshape(-1, *self.action_space.shape))  # type: ignore[misc]
        actions = actions if vectorized else actions.squeeze(axis=0)
        carried = (carried_plan(plan).cpu().numpy(),) if self.planner.init == "warm" else None
        return actions, carried, plan

    def _previous_plan(self, state: PlanState | None, episode_start: np.ndarray | None) -> Tensor | None:
        if state is None:
            return None
        plan = np.array(state[0], dtype=np.float32)
        if episode_start is not None:
            plan[np.asarray(episode_start, dtype=bool)] = np.nan
        return torch.as_tensor(plan, device=self.device)

    def unscale_action(self, scaled_action: np.ndarray) -> np.ndarray:
        """
        :param scaled_action: actions in [-1, 1]
        :return: actions in the environment's units, inside its bounds: plans often end at them, and rounding crosses
        """
        space = self.action_space
        assert isinstance(space, spaces.Box)
        return np.minimum(np.maximum(super().unscale_action(scaled_action), space.low), space.high)

    def set_training_mode(self, mode: bool) -> None:
        """Let batch norm and dropout behave as in training, or not; the targets never do."""
        self.encoder.train(mode)
        self.model.train(mode)
        if self.raw_critic is not None:  # which the file of a policy that only acts does not hold
            self.raw_critic.train(mode)
        self.training = mode


class CnnPolicy(DiffTORIPolicy):
    """:class:`DiffTORIPolicy` for images: the paper's convolutions before the encoder, and others before Q-tilde."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("features_extractor_class", ImageEncoder)
        super().__init__(*args, **kwargs)


class MultiInputPolicy(DiffTORIPolicy):
    """:class:`DiffTORIPolicy` for dictionaries: a network per entry before the encoder, and others before Q-tilde."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("features_extractor_class", CombinedEncoder)
        super().__init__(*args, **kwargs)


MlpPolicy = DiffTORIPolicy
