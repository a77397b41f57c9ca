"""
Behaviour cloning with a recurrent network (BC-RNN of robomimic, Mandlekar et al. 2021, arXiv 2108.03298).

Sizes are those of ``robomimic/config/bc_config.py`` and of the paper's low-dimensional experiments.
"""

from __future__ import annotations

from typing import Any, ClassVar

from stable_baselines3.common.type_aliases import GymEnv
from torch import Tensor, nn

from difftori_gym.baselines.bc import ActionHead, CloningLoss, HeadName
from difftori_gym.il.demonstrations import Demonstrations
from difftori_gym.il.learner import ImitationAlgorithm
from difftori_gym.il.networks import ChunkNetwork, ObservationEncoder, TrainingBatch
from difftori_gym.il.policies import ImitationPolicy, aliases_of
from difftori_gym.observations import TensorObs


class BCRNNNetwork(ChunkNetwork):
    """An LSTM over the last observations; every one of its outputs is trained on the action of its time."""

    trains_on_all = True

    def __init__(
        self,
        encoder: ObservationEncoder,
        horizon: int,
        action_dim: int,
        *,
        hidden_dim: int = 400,
        num_layers: int = 2,
        head: HeadName = "gmm",
        num_modes: int = 5,
    ) -> None:
        super().__init__(encoder, horizon, action_dim)
        self.rnn = nn.LSTM(encoder.features_dim, hidden_dim, num_layers, batch_first=True)
        self.head = ActionHead(hidden_dim, horizon, action_dim, head, num_modes)

    def loss(self, batch: TrainingBatch) -> CloningLoss:
        assert batch.all_actions is not None
        outputs, _ = self.rnn(self.encoder(batch.observations))  # [B, n_obs_steps, hidden]
        return self.head.loss(outputs.flatten(0, 1), batch.all_actions.flatten(0, 1))

    def chunk(self, observations: TensorObs, noise: Tensor, start: Tensor | None, deterministic: bool) -> Tensor:
        outputs, _ = self.rnn(self.encoder(observations))
        return self.head.act(outputs[:, -1], deterministic)


class BCRNNPolicy(ImitationPolicy):
    """
    Further arguments are those of :class:`~difftori_gym.il.policies.ImitationPolicy`.

    - ``hidden_dim``: size of the LSTM's state
    - ``num_layers``: its layers
    - ``head``: ``"deterministic"``, ``"gaussian"`` or ``"gmm"``
    - ``num_modes``: Gaussians of a ``"gmm"``
    """

    network_class = BCRNNNetwork


class BCRNN(ImitationAlgorithm):
    """
    Behaviour cloning with an LSTM and a mixture of Gaussians.

    The LSTM runs over the last ``n_obs_steps`` observations each time; robomimic carries its state and clears it every
    10 steps. Further arguments are those of :class:`~difftori_gym.il.learner.ImitationAlgorithm`.

    :param policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"`` or a subclass of :class:`BCRNNPolicy`
    :param n_obs_steps: length of the sequences
    :param head: ``"deterministic"``, ``"gaussian"`` or ``"gmm"``
    :param num_modes: Gaussians of a ``"gmm"``
    """

    algorithm: ClassVar[str] = "BCRNN"
    policy_settings = (*ImitationAlgorithm.policy_settings, "head", "num_modes")
    policy_aliases = aliases_of(BCRNNPolicy)

    def __init__(
        self,
        policy: str | type[ImitationPolicy],
        env: GymEnv | str | None = None,
        demonstrations: Demonstrations | None = None,
        *,
        batch_size: int = 100,
        n_obs_steps: int = 10,
        head: HeadName = "gmm",
        num_modes: int = 5,
        **kwargs: Any,
    ) -> None:
        self.head, self.num_modes = head, num_modes
        super().__init__(policy, env, demonstrations, batch_size=batch_size, n_obs_steps=n_obs_steps, **kwargs)
