"""What a learner's own file leaves out: random generators, plans in progress, running sums, environments."""

from __future__ import annotations

import copy
import operator
import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import Tensor

from difftori_gym.checkpointing.environments import EnvironmentsState, restore_environments, save_environments

# Where Stable-Baselines3 remembers the observation that the next action is chosen for. Its own ``load`` forgets it.
_OBSERVED = ("_last_obs", "_last_original_obs", "_last_episode_starts")


@dataclass(frozen=True)
class RandomState:
    """States of the generators that all learners share: Python's, numpy's, torch's on the CPU and on every GPU."""

    python: Any
    numpy: Any
    torch: Tensor
    cuda: list[Tensor]

    @classmethod
    def now(cls) -> RandomState:
        """:return: the present states"""
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        return cls(random.getstate(), np.random.get_state(), torch.get_rng_state(), cuda)

    def restore(self) -> None:
        """Make the next random numbers those that followed :meth:`now`."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        torch.set_rng_state(self.torch)
        if torch.cuda.is_available() and len(self.cuda) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(self.cuda)


@dataclass(frozen=True)
class TrainingState:
    """
    :param generators: shared random generators
    :param action_space: of the learner, with its own generator
    :param own: attributes that the learner's class names in ``resume_attributes``
    :param observed: what the next action is chosen for
    :param action_noise: noise that remembers, as it was
    :param environments: None for a learner without environments
    :param whole_step: whether what the environments did last is stored in the learner
    """

    generators: RandomState
    action_space: Any
    own: dict[str, Any]
    observed: dict[str, Any]
    action_noise: Any
    environments: EnvironmentsState | None
    whole_step: bool

    @classmethod
    def of(cls, model: BaseAlgorithm, *, whole_step: bool) -> TrainingState:
        """
        :param whole_step: whether the model's last step is stored and learned from
        :return: the model's state, which shares arrays with it: write it before going on
        """
        names = getattr(model, "resume_attributes", ())
        return cls(
            generators=RandomState.now(),
            action_space=model.action_space,
            own={name: _moved(operator.attrgetter(name)(model), "cpu") for name in names},
            observed={name: getattr(model, name) for name in _OBSERVED if hasattr(model, name)},
            action_noise=model.action_noise,
            environments=save_environments(model.env) if model.env is not None else None,
            whole_step=whole_step,
        )

    def why_anew(self) -> str:
        """:return: why running episodes cannot go on, empty if they can"""
        if not self.whole_step:
            return "training was stopped in the middle of a step"
        return self.environments.reason if self.environments is not None else "there is no environment"

    def restore(self, model: BaseAlgorithm, seed: int) -> str:
        """
        :param model: just loaded, with environments built like the saved ones
        :param seed: of environments that begin anew
        :return: empty, or why the episodes of its environments begin anew
        """
        reason = self.why_anew()
        if model.env is not None and self.environments is not None:
            reason = restore_environments(model.env, self.environments) or reason
        if reason and model.env is not None:
            model._last_obs = None
            model.env.seed(seed)
        else:
            for name, value in self.observed.items():
                setattr(model, name, value)
        model.action_space = copy.deepcopy(self.action_space)
        for name, value in self.own.items():
            holder, _, last = name.rpartition(".")
            setattr(operator.attrgetter(holder)(model) if holder else model, last, _moved(value, model.device))
        self.generators.restore()
        return reason

    def restore_noise(self, model: BaseAlgorithm) -> None:
        """Undo that ``learn`` of Stable-Baselines3 begins by resetting the action noise."""
        if model.action_noise is not None and not self.why_anew():
            model.action_noise = self.action_noise


def _moved(value: Any, device: torch.device | str) -> Any:
    """A value with its tensors on a device, without graphs: a file is read on other machines, too."""
    if isinstance(value, Tensor):
        return value.detach().to(device)
    if isinstance(value, dict):
        return {key: _moved(entry, device) for key, entry in value.items()}
    if isinstance(value, tuple):
        return tuple(_moved(entry, device) for entry in value)
    return value
