"""Latent states that stay within bounds."""

from __future__ import annotations

from torch import Tensor, nn


class SimNorm(nn.Module):
    """
    A softmax over groups: every group of numbers lies in a simplex (TD-MPC2, arXiv 2310.16828, section 3.1).

    Latent states are then bounded and slightly sparse, so that neither they nor their errors can grow along an imagined
    rollout. Number k of group g is entry ``k * G + g`` of ``G * dim``; TD-MPC2 has it at ``g * dim + k``, which is the
    same up to the order of the entries and many times slower on a CPU.

    :param dim: numbers in a group, V in the publication
    """

    def __init__(self, dim: int = 8) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        """
        :param x: ``[..., G * dim]``
        :return: the same shape, positive, every group sums to 1
        """
        return x.unflatten(-1, (self.dim, -1)).softmax(-2).flatten(-2)

    def extra_repr(self) -> str:
        """:return: what ``repr`` shows"""
        return str(self.dim)


def latent_mlp(network: nn.Sequential, latent_dim: int, simnorm_dim: int | None) -> nn.Sequential:
    """
    :param network: ends in latent states ``[..., latent_dim]``
    :param latent_dim: Z
    :param simnorm_dim: numbers in a group of :class:`SimNorm`; None leaves the network as it is
    :return: the network with the normalisation behind it
    :raises ValueError: if Z is not a multiple of the group
    """
    if simnorm_dim is None:
        return network
    if simnorm_dim < 2 or latent_dim % simnorm_dim:
        raise ValueError(
            f"Expected a simnorm_dim of 2 or more that divides latent_dim, got simnorm_dim={simnorm_dim} and "
            f"latent_dim={latent_dim}. TD-MPC2 uses groups of 8, for which a latent_dim of 64 or 128 would do."
        )
    return network.append(SimNorm(simnorm_dim))
