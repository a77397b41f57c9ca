"""Scores of action sequences as objectives for a trajectory optimiser, with fast gradients."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from difftori_gym.models.call_lists import Parts, ScanObjective
from difftori_gym.models.cvae import ChunkScore, LatentScore


class ChunkObjective(ScanObjective):
    """
    Action sequences ``[B, H, A]`` -> scores ``[B]`` in view of given conditions, see :class:`ChunkScore`.

    The share of the first layer that does not depend on the actions, most of it, is computed once.

    :param score: its weights must not change while the objective is in use
    :param condition: ``[B, C]``
    """

    def __init__(self, score: ChunkScore, condition: Tensor) -> None:
        first = score.network[0]
        assert isinstance(first, nn.Linear)
        self.score, self.condition = score, condition
        self._weight = first.weight[:, score.condition_dim :]
        # Not when it is asked for: that may be where no graph is recorded.
        conditioned = F.linear(condition, first.weight[:, : score.condition_dim], first.bias)  # [B, hidden]
        super().__init__(score, Parts(head=[score.network], shared=score.condition_dim), conditioned, 1.0)

    def __call__(self, actions: Tensor) -> Tensor:
        """Actions ``[B, H, A]`` in [-1, 1] -> scores ``[B]``, differentiable in condition, actions and parameters."""
        hidden = self.z0 + F.linear(actions.flatten(1), self._weight)
        return self.score.network[1:](hidden).squeeze(-1)

    def repeat(self, n: int) -> ChunkObjective:
        """The objective of ``n`` copies of the batch, one after the other."""
        return ChunkObjective(self.score, self.condition.repeat(n, 1))


class LatentScoreObjective(ScanObjective):
    """
    Action sequences ``[B, H, A]`` -> sums of scores ``[B]`` from given conditions, see :class:`LatentScore`.

    :param score: its weights must not change while the objective is in use
    :param condition: ``[B, C]``
    """

    def __init__(self, score: LatentScore, condition: Tensor) -> None:
        self.score, self.condition = score, condition
        # The encoder not when it is asked for, see ChunkObjective.
        super().__init__(score, Parts([score.score], [score.dynamics]), score.encoder(condition), score.discount)

    def __call__(self, actions: Tensor) -> Tensor:
        """Actions ``[B, H, A]`` in [-1, 1] -> scores ``[B]``, differentiable in condition, actions and parameters."""
        return self.score.scores_from(self.z0, actions)

    def repeat(self, n: int) -> LatentScoreObjective:
        """The objective of ``n`` copies of the batch, one after the other."""
        return LatentScoreObjective(self.score, self.condition.repeat(n, 1))
