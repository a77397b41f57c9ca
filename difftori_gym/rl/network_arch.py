"""Hidden sizes of every head, read from Stable-Baselines3's ``net_arch``."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

Sizes = tuple[int, ...]


@dataclass(frozen=True)
class NetworkArch:
    """
    :param pi: policy prior
    :param qf: latent values and raw-observation values
    :param dynamics: latent dynamics
    :param reward: reward and termination
    :param encoder: MLP between the features and the latent state
    """

    pi: Sizes = (256, 256)
    qf: Sizes = (256, 256)
    dynamics: Sizes = (256, 256)
    reward: Sizes = (256, 256)
    encoder: Sizes = (256,)

    @classmethod
    def from_sb3(cls, net_arch: list[int] | dict[str, list[int]] | None) -> NetworkArch:
        """
        :param net_arch: None for the defaults, a list for all heads (the encoder takes its first layer), a dictionary
            for some
        :return: sizes of every head
        :raises ValueError: for a key that names no head
        """
        if net_arch is None:
            return cls()
        if isinstance(net_arch, dict):
            known = [field.name for field in fields(cls)]
            unknown = sorted(set(net_arch) - set(known))
            if unknown:
                raise ValueError(f"net_arch takes the keys {known}, got {unknown}: remove or rename them.")
            return cls(**{name: tuple(sizes) for name, sizes in net_arch.items()})
        sizes = tuple(net_arch)
        return cls(sizes, sizes, sizes, sizes, sizes[:1])

    def to_sb3(self) -> dict[str, list[int]]:
        """:return: the dictionary that :meth:`from_sb3` reads"""
        return {name: list(sizes) for name, sizes in asdict(self).items()}
