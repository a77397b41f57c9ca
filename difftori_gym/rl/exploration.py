"""What changes with the number of agent steps, and every noise that is put on actions to explore."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from difftori_gym.learning import refuse_unknown
from difftori_gym.models import LatentObjective
from difftori_gym.trajopt import SampledSolution, Solution


@dataclass(frozen=True)
class PlanningSchedule:
    """
    Linear schedule of the planning horizon, which grows; exploration noise falls along with it.

    :param horizon_initial: planned steps at the start, at least 1
    :param horizon: planned steps at the end, at least 1
    :param schedule_steps: agent steps from start to end; 0 for the end at once
    :raises ValueError: for a setting outside its range
    """

    horizon_initial: int
    horizon: int
    schedule_steps: int

    def __post_init__(self) -> None:
        for name in ("horizon", "horizon_initial"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
                raise ValueError(f"Planning needs an integer {name} >= 1, got {value!r}.")
        if not self.schedule_steps >= 0:
            raise ValueError(f"The schedule needs schedule_steps >= 0, got {self.schedule_steps!r}.")

    def progress(self, steps: float) -> float:
        """:return: the part of the schedule that is behind after so many agent steps, in [0, 1]"""
        return min(steps / self.schedule_steps, 1.0) if self.schedule_steps > 0 else 1.0

    def horizon_at(self, steps: float) -> int:
        """:return: planned steps after so many agent steps"""
        return int(self.horizon_initial + self.progress(steps) * (self.horizon - self.horizon_initial))


@dataclass(frozen=True)
class Exploration:
    """
    Settings of exploration, ``exploration_kwargs`` of a learner.

    :param initial_std: standard deviation of the noise at the start, in units of the [-1, 1] box; falls linearly
    :param final_std: and at the end of the schedule
    :param correlation: of the noise between consecutive steps, in [0, 1). 0 is white noise; near 1 the noise swings
        slowly, which finds rewards that need momentum (pendulum-swingup) far sooner
    :param warmup_correlation: the same of the first ``learning_starts`` actions, which are that noise at standard
        deviation 1, or uniform where it is 0; None for ``correlation``
    :param mode_steps: mean number of agent steps in the stretches with noise, and in those between them without, in
        which the policy sees where it leads (Pislar et al., ICLR 2022); None for noise in every step
    :param after_reward: the noise falls with those agent steps only that had a reward other than 0 earlier in their
        episode, so that it does not end before there is something to learn from
    :param max_std: noise of up to this standard deviation where it costs no value, see :func:`drawn_action`; None for
        the scheduled noise everywhere
    :param temperature: of that draw, per unit of return; 0.5 as TD-MPC draws from its elites
    :param catch_up: the first update is preceded by as many as there were agent steps before it, as in TD-MPC
    :raises ValueError: for a setting outside its range
    """

    initial_std: float = 0.5
    final_std: float = 0.2
    correlation: float = 0.0
    warmup_correlation: float | None = None
    mode_steps: float | None = None
    after_reward: bool = False
    max_std: float | None = None
    temperature: float = 0.5
    catch_up: bool = False

    def __post_init__(self) -> None:
        for name in ("initial_std", "final_std"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"Exploration needs {name} >= 0, got {getattr(self, name)!r}.")
        if self.max_std is not None and not (self.max_std >= 0 and self.temperature >= 0 and not self._makes_noise):
            raise ValueError(
                "Exploration needs max_std >= 0 and temperature >= 0, and max_std=None with correlation or mode_steps, "
                f"whose noise does not ask the model: got max_std={self.max_std!r}, temperature={self.temperature!r}, "
                f"correlation={self.correlation!r}, mode_steps={self.mode_steps!r}."
            )
        for name in ("correlation", "warmup_correlation"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise ValueError(f"Exploration needs 0 <= {name} < 1, got {value!r}.")
        if self.mode_steps is not None and not self.mode_steps >= 1:
            raise ValueError(f"Exploration needs mode_steps >= 1 or None, got {self.mode_steps!r}.")

    @property
    def _makes_noise(self) -> bool:
        """Whether noise is made apart from the plan."""
        return self.correlation > 0 or self.mode_steps is not None

    @classmethod
    def of(cls, given: Mapping[str, Any], *, defaults: Mapping[str, Any], whose: str) -> Exploration:
        """
        :param given: the user's ``exploration_kwargs``
        :param defaults: what the learner has in place of the defaults above
        :param whose: name of the learner, for messages
        :return: the settings
        :raises ValueError: on a setting that there is not, or one outside its range
        """
        refuse_unknown(given, [field.name for field in fields(cls)], f"{whose}: exploration_kwargs has no setting")
        return cls(**{**defaults, **given})

    def std_at(self, progress: float) -> float:
        """:return: standard deviation of the noise when this part of the schedule is behind, in [0, 1]"""
        return self.initial_std + progress * (self.final_std - self.initial_std)


class CorrelatedNoise:
    """First-order autoregressive Gaussian noise of unit variance, from numpy's global generator."""

    def __init__(self) -> None:
        self._last: np.ndarray | None = None

    def __call__(self, shape: tuple[int, ...], correlation: float) -> np.ndarray:
        """:return: the next draw, float32; another shape than last time's starts anew"""
        white = np.random.standard_normal(shape).astype(np.float32)
        if self._last is None or self._last.shape != shape:
            self._last = white
        else:
            self._last = correlation * self._last + float(np.sqrt(1.0 - correlation**2)) * white
        return self._last


class NoiseModes:
    """Which of several environments are in a stretch with noise, from numpy's global generator; all begin in one."""

    def __init__(self) -> None:
        self._noisy: np.ndarray | None = None

    def __call__(self, count: int, mean_steps: float) -> np.ndarray:
        """:return: mask ``[N]`` of the next step; another number than last time's starts anew"""
        if self._noisy is None or len(self._noisy) != count:
            self._noisy = np.ones(count, dtype=bool)
        else:
            self._noisy = self._noisy ^ (np.random.random_sample(count) < 1.0 / mean_steps)
        return self._noisy


class RewardedSteps:
    """Counts the agent steps that had a reward earlier in their episode."""

    def __init__(self) -> None:
        self.count = 0
        self._met: np.ndarray | None = None

    def add(self, rewards: np.ndarray, dones: np.ndarray) -> None:
        """Take the rewards ``[N]`` of a step, and which episodes ended with it ``[N]``."""
        met = np.zeros(len(dones), dtype=bool) if self._met is None or len(self._met) != len(dones) else self._met
        self.count += int(met.sum())
        self._met = (met | (np.asarray(rewards) != 0)) & ~np.asarray(dones, dtype=bool)


def executed_action(solution: Solution, *, explore_std: float | None, generator: torch.Generator | None) -> Tensor:
    """
    The first action to execute.

    :param solution: a plan
    :param explore_std: None for the best action known. Otherwise Gaussian noise of at least this standard deviation
        is added; a sampling solver starts from a drawn elite and uses its own spread where that is larger (TD-MPC).
    :param generator: randomness of the noise
    :return: actions ``[B, A]`` in [-1, 1]
    """
    best = solution.best_actions[:, 0]
    if explore_std is None:
        return best
    std: Tensor | float = explore_std
    if isinstance(solution, SampledSolution):
        best, std = solution.actions[:, 0], solution.std[:, 0].clamp(min=explore_std)
    noise = torch.randn(best.shape, dtype=best.dtype, device=best.device, generator=generator)
    return (best + std * noise).clamp(-1.0, 1.0)


def drawn_action(
    objective: LatentObjective,
    plans: Tensor,
    *,
    stds: tuple[float, float],
    temperature: float,
    generator: torch.Generator | None,
    num_candidates: int = 32,
) -> Tensor:
    """
    The first action of a disturbed plan, drawn in proportion to exp(temperature * value).

    What MPPI's elites do for TD-MPC: where every plan is as good as the next one, nothing ends the noise; where the
    value is steep, little of it is left. A plan found by its gradient has no such spread of its own.

    :param objective: values of plans from the current latent states
    :param plans: the best plans ``[B, H, A]`` in [-1, 1]
    :param stds: least and greatest standard deviation of the noise, which the candidates are spread over evenly
    :param temperature: per unit of return
    :param generator: randomness
    :param num_candidates: K
    :return: actions ``[B, A]`` in [-1, 1]
    """
    batch, device = len(plans), plans.device
    scales = torch.linspace(stds[0], max(stds), num_candidates, dtype=plans.dtype, device=device)
    shape = (num_candidates, *plans.shape)
    noise = torch.randn(shape, dtype=plans.dtype, device=device, generator=generator)
    candidates = (plans + scales[:, None, None, None] * noise).clamp(-1.0, 1.0)
    values = objective.repeat(num_candidates).value_only(candidates.flatten(0, 1)).view(num_candidates, batch)
    # What has no value is drawn only where nothing has one: a model that is broken is explored all the more.
    values = values.nan_to_num(-1e30, -1e30, -1e30)
    weights = torch.softmax(temperature * (values - values.amax(dim=0)), dim=0)
    drawn = torch.multinomial(weights.T, 1, generator=generator)[:, 0]
    return candidates[drawn, torch.arange(batch, device=device), 0]
