"""What a policy expects and plans, read while it acts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.policies import ActorCriticPolicy, ContinuousCritic

from difftori_gym.evaluation import Predictor


@dataclass(frozen=True)
class Forecast:
    """
    What a policy thinks of the present observations.

    :param source: where the values come from, ``plan`` or ``critic``; None where there are none
    :param values: discounted returns it expects ``[N]``
    :param plans: planned actions ``[N, H, *action_shape]`` in the environment's units, None for policies without
    """

    source: str | None = None
    values: NDArray[np.float64] | None = None
    plans: NDArray[Any] | None = None


@runtime_checkable
class PlanningPolicy(Protocol):
    """A policy that can show the plan it acts on, such as :class:`difftori_gym.DiffTORIPolicy`."""

    def predict_with_plan(self, observation: Any, state: Any, episode_start: Any, deterministic: bool) -> Any:
        """:return: actions, state, and the plan, with ``values`` ``[N]`` and ``best_actions`` ``[N, H, A]``"""


@runtime_checkable
class ValuingPolicy(Protocol):
    """A policy that values actions, such as that of DrQ-v2."""

    def action_value(self, observation: Any, action: torch.Tensor) -> torch.Tensor:
        """:return: values ``[N]`` of actions ``[N, A]`` in [-1, 1]"""


class WatchedPolicy:
    """
    Acts as a model or policy does, and keeps what it thought: ``predict`` of a planning policy solves each plan once.
    """

    def __init__(self, model: Predictor) -> None:
        self._model = model
        self._policy: Any = getattr(model, "policy", model)
        self.forecast = Forecast()

    @property
    def plans(self) -> bool:
        """Whether there are plans that could be drawn."""
        return isinstance(self._policy, PlanningPolicy)

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], Any]:
        """See :class:`~difftori_gym.evaluation.Predictor`."""
        if isinstance(self._policy, PlanningPolicy):
            actions, state, plan = self._policy.predict_with_plan(observation, state, episode_start, deterministic)
            values = plan.values.detach().cpu().numpy().astype(np.float64)
            self.forecast = Forecast("plan", values, self._in_units(plan.best_actions))
            return actions, state
        actions, state = self._model.predict(observation, state, episode_start, deterministic)
        values = self._critic_values(observation, actions)
        self.forecast = Forecast() if values is None else Forecast("critic", values)
        return actions, state

    def _in_units(self, plans: torch.Tensor) -> NDArray[Any]:
        """Planned actions ``[N, H, A]`` in [-1, 1] to ``[N, H, *action_shape]`` in the environment's units."""
        scaled = plans.detach().cpu().numpy().reshape(*plans.shape[:2], *self._policy.action_space.shape)
        return np.stack([self._policy.unscale_action(plan) for plan in scaled])

    def _critic_values(self, observation: Any, actions: NDArray[Any]) -> NDArray[np.float64] | None:
        """What the policy's critic expects of actions ``[N]``, the smallest of several; None without a critic."""
        policy = self._policy
        with torch.no_grad():
            if isinstance(policy, ActorCriticPolicy):
                if type(policy).predict_values is not ActorCriticPolicy.predict_values:
                    return None  # one with a memory, which takes further arguments
                values = policy.predict_values(self._tensor(observation))
            elif isinstance(policy, ValuingPolicy):
                values = policy.action_value(self._tensor(observation), self._scaled(actions))
            elif isinstance(getattr(policy, "critic", None), ContinuousCritic):
                both = policy.critic(self._tensor(observation), self._scaled(actions))
                values = torch.stack(both).amin(dim=0)
            else:
                return None
        return values.flatten().cpu().numpy().astype(np.float64)

    def _tensor(self, observation: Any) -> Any:
        return self._policy.obs_to_tensor(observation)[0]

    def _scaled(self, actions: NDArray[Any]) -> torch.Tensor:
        """Actions in the environment's units to ``[N, A]`` in [-1, 1]."""
        scaled = torch.as_tensor(self._policy.scale_action(actions), dtype=torch.float32)
        return scaled.flatten(1).to(self._policy.device)
