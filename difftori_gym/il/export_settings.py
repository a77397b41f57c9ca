"""What an exported imitation policy may say about itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stable_baselines3.common.policies import BasePolicy

from difftori_gym.exports import parameters_from_json, parameters_to_json
from difftori_gym.exports.classes import ACTIVATION, EXTRACTOR_SETTINGS, TRAJECTORY_OPTIMIZER
from difftori_gym.exports.refusal import refusal
from difftori_gym.exports.settings import SHARE, SIZES, STEPS, WEIGHT, Choice, Number, Optionally, Setting, Whole

MakeSpec = Callable[[type[Any], dict[str, Any]], Any]


@dataclass(frozen=True)
class SpecOfBase:
    """
    A policy inside a policy: the base policy whose actions it starts from.

    :param make: of the class and its arguments, the spec
    :param kind: class that it must be
    """

    make: MakeSpec
    kind: Callable[[], type[BasePolicy]]

    def to_json(self, value: Any, where: str) -> dict[str, Any]:
        """See :class:`~difftori_gym.exports.settings.Setting`."""
        return parameters_to_json(value.policy_class, value.parameters, where)

    def from_json(self, value: Any, where: str, budget: int) -> Any:
        """See :class:`~difftori_gym.exports.settings.Setting`."""
        cls, parameters = parameters_from_json(value, where, budget)
        if not issubclass(cls, self.kind()):
            raise refusal(where, "an imitation policy", cls.__name__)
        return self.make(cls, parameters)


def imitation_settings(make: MakeSpec, kind: Callable[[], type[BasePolicy]]) -> dict[str, Setting]:
    """
    :param make: of a base policy's class and arguments, its spec
    :param kind: returns the class that base policies have
    :return: kinds of the arguments that all imitation policies share
    """
    return dict(
        n_obs_steps=STEPS,
        horizon=STEPS,
        n_action_steps=STEPS,
        ema_decay=Optionally(SHARE),
        noise_lifetime=Choice(("episode", "chunk")),
        base=Optionally(SpecOfBase(make, kind)),
        **EXTRACTOR_SETTINGS,
        cloud_scaling=Choice(("axes", "none")),
        image_shift=Optionally(Whole(0, 10_000)),
    )


DIFFTORI_SETTINGS: dict[str, Setting] = dict(
    objective=Choice(("chunk", "latent")),
    trajectory_optimizer=TRAJECTORY_OPTIMIZER,
    init=Choice(("base_policy", "zero", "random")),
    latent_dim=Whole(0, 1 << 16),
    num_latents=Whole(1, 1000),
    net_arch=SIZES,
    activation_fn=ACTIVATION,
    discount=SHARE,
    start_noise=Number(0.0, 100.0),
    action_coef=WEIGHT,
    kl_coef=WEIGHT,
)
