"""A ``VecEnv`` of Stable-Baselines3 for suites that step in batched tensors."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn
from torch import Tensor

from ..observations import TensorObs, entries, map_obs
from .batched_env import BatchedEnv, TensorStep
from .episode_statistics import EpisodeStatistics, EpisodeTotals
from .host_copy import copy_to_host
from .seed_first_reset import checked_seed

# Names in the packed copy; an observation dictionary's keys follow the first two.
_OBS, _FINAL = "obs", "final"


class TensorVecEnv(VecEnv):
    """
    Batched environments for two kinds of learners.

    Those of Stable-Baselines3 see numpy: each step makes one copy to the host, in which observations, rewards, flags
    and episode statistics travel together. Learners that stay on the device call :meth:`reset_tensor` and
    :meth:`step_tensor`, and :meth:`episode_infos` for the few bytes per environment that tell which episodes ended.

    Infos are those of a ``VecEnv`` of monitored environments: ``terminal_observation``, ``TimeLimit.truncated``,
    ``episode`` (return ``r``, length ``l``, seconds ``t``), ``frames``, and ``is_success`` where the suite tells it,
    true from the first solved step of the episode on.

    :param batch: the environments
    :param seed: seed of the first environment's first reset, the i-th gets ``seed + i``. None: not seeded
    """

    metadata: dict[str, Any]

    def __init__(self, batch: BatchedEnv, *, seed: int | None = None) -> None:
        self.batch = batch
        super().__init__(batch.num_envs, batch.observation_space, batch.action_space)
        self.metadata = {**self.metadata, "render_fps": batch.metadata["render_fps"]}
        self.device = batch.device
        self._statistics = EpisodeStatistics(batch.num_envs, batch.device)
        self._observations: TensorObs | None = None
        self._last: tuple[TensorStep, EpisodeTotals] | None = None
        self._actions: Tensor | None = None
        self._started = time.time()
        self._closed = False
        seed = checked_seed(seed)
        if seed is not None:
            self.seed(seed)

    # On the device

    @property
    def observations(self) -> TensorObs:
        """
        What the environments show now, ``[N, ...]`` or a dictionary of such, on the device.

        :raises RuntimeError: before the first reset
        """
        if self._observations is None:
            raise RuntimeError("TensorVecEnv has no observations before its first reset: call reset() first.")
        return self._observations

    def reset_tensor(self) -> TensorObs:
        """
        Start a new episode in every environment.

        :return: first observations ``[N, ...]`` or a dictionary of such, on the device
        :raises ValueError: if reset options were set, which batched environments do not take
        """
        if any(self._options):
            raise ValueError("TensorVecEnv takes no reset options, got some: call set_options() without arguments.")
        self._observations = self.batch.reset(self._seeds)
        self._statistics.reset()
        self._last = None
        self._reset_seeds()
        self.reset_infos = [{} for _ in range(self.num_envs)]
        return self._observations

    def step_tensor(self, actions: Tensor) -> TensorStep:
        """
        Step every environment; those whose episode ended are reset.

        :param actions: in the environment's units, ``[N, A]``
        :return: the step, on the device
        :raises ValueError: for actions of another shape
        :raises RuntimeError: before the first reset
        """
        shape = (self.num_envs, *(self.action_space.shape or ()))
        if tuple(actions.shape) != shape:
            raise ValueError(f"TensorVecEnv needs actions of shape {shape}, got {tuple(actions.shape)}.")
        _ = self.observations  # or the error of a step before the first reset
        step = self.batch.step(actions.to(device=self.device, dtype=torch.float32))
        self._observations = step.observations
        self._last = step, self._statistics.add(step)
        return step

    def episode_infos(self) -> tuple[np.ndarray, list[dict[str, Any]]]:
        """
        What the last step did to the episodes, in one small copy.

        :return: whether each ended ``[N]``, and the infos without ``terminal_observation``
        """
        return self._read_flags(copy_to_host(self._flags()))

    # On the host, for Stable-Baselines3

    def reset(self) -> VecEnvObs:
        """Start a new episode in every environment, with the seeds of the last :meth:`seed`, if any."""
        return _as_obs(copy_to_host(_named(_OBS, self.reset_tensor())), _OBS)

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = torch.as_tensor(np.asarray(actions, dtype=np.float32), device=self.device)

    def step_wait(self) -> VecEnvStepReturn:
        """:return: observations, rewards ``[N]``, whether the episode ended ``[N]``, infos"""
        assert self._actions is not None, "step_wait without step_async"
        step = self.step_tensor(self._actions)
        self._actions = None
        host = copy_to_host(
            {
                **_named(_OBS, step.observations),
                **_named(_FINAL, step.final_observations),
                "rewards": step.rewards,
                **self._flags(),
            }
        )
        dones, infos = self._read_flags(host)
        final = _as_obs(host, _FINAL)
        for index in np.flatnonzero(dones):
            # A copy: a kept info must not keep the whole step's buffer alive.
            infos[index]["terminal_observation"] = map_obs(lambda value, index=index: value[index].copy(), final)
        return _as_obs(host, _OBS), host["rewards"], dones, infos

    def _flags(self) -> dict[str, Tensor]:
        assert self._last is not None, "no step yet"
        step, totals = self._last
        flags = {
            "returns": totals.returns,
            "lengths": totals.lengths,
            "terminated": step.terminated,
            "truncated": step.truncated,
            "frames": step.frames,
        }
        return flags if totals.success is None else {**flags, "success": totals.success}

    def _read_flags(self, host: dict[str, np.ndarray]) -> tuple[np.ndarray, list[dict[str, Any]]]:
        terminated = host["terminated"]
        dones = terminated | host["truncated"]
        timeouts = (host["truncated"] & ~terminated).tolist()
        infos: list[dict[str, Any]] = [
            {"TimeLimit.truncated": timeout, "frames": frames}
            for timeout, frames in zip(timeouts, host["frames"].tolist(), strict=True)
        ]
        if "success" in host:
            for info, success in zip(infos, host["success"].tolist(), strict=True):
                info["is_success"] = success
        seconds = round(time.time() - self._started, 6)
        for index in np.flatnonzero(dones):
            episode_return = round(float(host["returns"][index]), 6)
            infos[index]["episode"] = {"r": episode_return, "l": int(host["lengths"][index]), "t": seconds}
        return dones, infos

    # The rest of a VecEnv

    def get_images(self) -> Sequence[np.ndarray | None]:
        """:return: one image ``[height, width, 3]`` per environment"""
        return self.batch.render()

    def close(self) -> None:
        """Free what the simulation holds; may be called twice."""
        if not self._closed:
            self._closed = True
            self.batch.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """:return: an attribute of the batched environments, which they share, once for each"""
        return [getattr(self.batch, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """
        Set an attribute of the batched environments, which they share.

        :raises ValueError: for some of the environments only
        """
        self._require_all(f"set_attr({attr_name!r})", indices)
        setattr(self.batch, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """
        Call a method of the batched environments once.

        :return: the entries of a list with one for each environment, else what it returned, once for each
        :raises ValueError: for some of the environments only
        """
        self._require_all(f"env_method({method_name!r})", indices)
        result = getattr(self.batch, method_name)(*method_args, **method_kwargs)
        if isinstance(result, list) and len(result) == self.num_envs:
            return result
        return [result] * self.num_envs

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """True for ``Monitor``, whose statistics are in the infos, and false for all others."""
        return [issubclass(wrapper_class, Monitor)] * len(list(self._get_indices(indices)))

    def _require_all(self, call: str, indices: VecEnvIndices) -> None:
        if sorted(self._get_indices(indices)) != list(range(self.num_envs)):
            raise ValueError(
                f"{call}: the environments of a batch share one simulation, expected indices=None, got {indices!r}."
            )


def _named(prefix: str, observations: TensorObs) -> dict[str, Tensor]:
    """Tensors under names that start with a prefix."""
    return {prefix if key is None else f"{prefix}/{key}": value for key, value in entries(observations).items()}


def _as_obs(host: dict[str, np.ndarray], prefix: str) -> Any:
    """The observations of :func:`_named`, from arrays under these and other names."""
    if prefix in host:
        return host[prefix]
    start = f"{prefix}/"
    return {name.removeprefix(start): value for name, value in host.items() if name.startswith(start)}
