"""The update of the networks, recorded as CUDA graphs on a GPU."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import fields, replace
from functools import partial
from itertools import islice
from typing import Any

from torch import Tensor

from difftori_gym.learning.captured import Captured
from difftori_gym.learning.running_means import RunningMeans
from difftori_gym.models.call_lists.fresh import fresh_lists
from difftori_gym.observations import entries, from_entries
from difftori_gym.rl.captured_plan import is_recordable
from difftori_gym.rl.policies import DiffTORIPolicy
from difftori_gym.rl.sequence_buffer import SequenceBatch
from difftori_gym.rl.update import Updater, UpdateSettings


class CapturedUpdater(Updater):
    """
    An :class:`Updater` whose updates are recorded where there is something to gain: on a GPU.

    Updates of one :meth:`~Updater.kind`, shape and setting are one recording, at most eight for each planned horizon.
    """

    def __init__(self, policy: DiffTORIPolicy, settings: UpdateSettings) -> None:
        super().__init__(policy, settings)
        self._captured = Captured("The update")
        self._names: dict[Hashable, list[str]] = {}

    def update(self, batch: SequenceBatch, n_updates: int) -> Tensor:
        """See :meth:`Updater.update`."""
        policy, kind = self.policy, self.kind(n_updates)
        if not self._captured.records(policy.device) or (kind[0] and not is_recordable(policy.planner)):
            return super().update(batch, n_updates)
        horizon = policy.horizon if kind[0] else 0  # of those that plan
        key = (self.settings, policy.planner, horizon, policy.model.episodic, policy.training, kind)
        priorities, *values = self._captured(
            partial(self._noting, replace(batch), n_updates, key),
            tensors_of(batch),
            key,
            reads=self._reads,
            optimizers=(policy.optimizer, policy.pi_optimizer, policy.raw_critic_optimizer),
        )
        self.means.add_all(dict(zip(self._names[key], values, strict=True)))
        return priorities

    def _noting(self, like: SequenceBatch, n_updates: int, key: Hashable, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Priorities, and what there is to log, whose names are written down."""
        kept, self.means = self.means, RunningMeans()
        try:
            with fresh_lists():
                priorities = super().update(with_tensors(like, tensors), n_updates)
            noted = {name: total for name, (total, _) in self.means.sums.items()}
        finally:
            self.means = kept
        self._names[key] = list(noted)
        return [priorities, *noted.values()]

    def _reads(self) -> Iterator[Tensor]:
        """What a recording would not notice to lie elsewhere: weights, buffers, and the state of the optimizers."""
        policy = self.policy
        yield from policy.parameters()
        yield from policy.buffers()
        for optimizer in (policy.optimizer, policy.pi_optimizer, policy.raw_critic_optimizer):
            for state in optimizer.state.values():
                yield from (value for value in state.values() if isinstance(value, Tensor))


def tensors_of(batch: SequenceBatch) -> list[Tensor]:
    """:return: all tensors of a batch, in an order of their own"""
    parts: list[Tensor] = []
    for field in fields(batch):
        if field.name != "indices":
            parts += entries(getattr(batch, field.name)).values()
    return parts


def with_tensors(batch: SequenceBatch, tensors: Sequence[Tensor]) -> SequenceBatch:
    """:return: the batch with other tensors, in the order of :func:`tensors_of`"""
    following, changes = iter(tensors), dict[str, Any]()
    for field in fields(batch):
        if field.name != "indices":
            keys = list(entries(getattr(batch, field.name)))
            changes[field.name] = from_entries(dict(zip(keys, islice(following, len(keys)), strict=True)))
    return replace(batch, **changes)
