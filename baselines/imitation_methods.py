"""The imitation methods that can be compared: learner, label, and hyper-parameters by size and observation."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from ..il import CosineSchedule, Demonstrations, DiffTORIImitation, ImitationAlgorithm
from ..learning import refuse_unknown
from .bc import BC
from .bc_rnn import BCRNN
from .diffusion_policy import DiffusionPolicy
from .flow_matching import FlowMatching
from .ibc import IBC
from .methods import Hyperparameters, keyword_names, merged, policy_name
from .mip import MIP
from .residual import Residual

SizeName = Literal["published", "small"]
SIZES: tuple[str, ...] = get_args(SizeName)

#: Gradient steps unless told otherwise. Both numbers are ours.
STEPS: dict[str, int] = {"published": 50_000, "small": 5_000}

#: Share of its first value that ``cosine_learning_rate`` ends at.
FINAL_SHARE = 0.01

# The window of DiffTORI's release and of DP3: a base policy, its correction and DiffTORI plan the same chunk.
_WINDOW: Hyperparameters = dict(n_obs_steps=2, horizon=4, n_action_steps=3)
_SHIFT: Hyperparameters = dict(policy_kwargs=dict(image_shift=None))
_SHIFTED: Mapping[str, Hyperparameters] = {"pixels": _SHIFT}

# Flow matching and MIP have Diffusion Policy's networks, and DP3's from point clouds.
_UNET: Hyperparameters = dict(_WINDOW, batch_size=128)
_UNET_OBS: Mapping[str, Hyperparameters] = {**_SHIFTED, "pointcloud": dict(size="dp3")}

# Ours, for a few thousand steps on one core. What every point of a cloud goes through is most of a step's time.
_SMALL_CLOUD: Hyperparameters = dict(
    batch_size=64,
    policy_kwargs=dict(features_extractor_kwargs=dict(point_cloud_kwargs=dict(hidden_dims=[32, 64, 128]))),
)
_SMALL_OBS: Mapping[str, Hyperparameters] = {"pixels": dict(batch_size=64), "pointcloud": _SMALL_CLOUD}
_SMALL_RATE: Hyperparameters = dict(cosine_learning_rate=1e-3)
_SMALL_UNET: Hyperparameters = dict(size="small", **_SMALL_RATE)
_SMALL_IBC: Hyperparameters = dict(
    batch_size=64, policy_kwargs=dict(depth=4, num_counter_examples=64, num_action_samples=1024)
)
# Reasons in docs/imitation.md: a base policy that is exact on its demonstrations teaches nothing without noise; larger
# steps fit them in few iterations; one scripted expert has one mode.
_SMALL_DIFFTORI: Hyperparameters = dict(
    _SMALL_RATE,
    start_noise=0.2,
    latent_dim=0,
    planner_kwargs=dict(step_size=1e-2, max_iterations=3, backward_num_iterations=3),
)


@dataclass(frozen=True)
class ImitationMethod:
    """
    An imitation learner with its hyper-parameters: the class's keywords, and ``cosine_learning_rate`` for a rate that
    falls along a cosine to a hundredth.

    :param name: name on the command line and in tables
    :param label: name in figures
    :param published: in published sizes; ``published_obs`` is what differs by kind of observation
    :param small: what differs from these two in the small size; ``small_obs`` is what differs by kind of observation
    :param needs_base: whether it starts from a base policy
    """

    name: str
    label: str
    learner: Callable[[], type[ImitationAlgorithm]]
    published: Hyperparameters
    published_obs: Mapping[str, Hyperparameters] = field(default_factory=lambda: _SHIFTED)
    small: Hyperparameters = field(default_factory=dict)
    small_obs: Mapping[str, Hyperparameters] = field(default_factory=lambda: _SMALL_OBS)
    needs_base: bool = False

    def hyperparameters(
        self, obs: str = "state", size: SizeName = "published", overrides: Mapping[str, Any] | None = None
    ) -> Hyperparameters:
        """
        Keywords of the learner for a kind of observation and a size; where two layers hold a dictionary, it is merged.

        :param size: ``published``, or ``small`` for CPUs
        :param overrides: the user's own choices
        :raises ValueError: on a name that the learner does not have, or an unknown size
        """
        if size not in SIZES:
            raise ValueError(f"Unknown size {size!r}. Choices: {', '.join(SIZES)}.")
        names = keyword_names(self.learner()) - {"policy", "env", "demonstrations", "base_policy"}
        refuse_unknown(overrides or {}, names | {"cosine_learning_rate"}, f"{self.name} has no hyper-parameter")
        layers = [self.published, self.published_obs.get(obs, {})]
        if size == "small":
            layers += [self.small, self.small_obs.get(obs, {})]
        return merged(*layers, overrides or {})

    def build(
        self,
        demonstrations: Demonstrations,
        *,
        base_policy: ImitationAlgorithm | None,
        seed: int,
        device: str,
        hyperparameters: Mapping[str, Any],
    ) -> ImitationAlgorithm:
        """An untrained learner of :meth:`hyperparameters`; ``base_policy`` is a trained one."""
        keywords = copy.deepcopy(dict(hyperparameters))  # Stable-Baselines3 writes into policy_kwargs
        rate = keywords.pop("cosine_learning_rate", None)
        if rate is not None:
            keywords["learning_rate"] = CosineSchedule(float(rate), final=FINAL_SHARE * float(rate))
        if base_policy is not None:
            keywords["base_policy"] = base_policy
        policy = policy_name(demonstrations.observation_space)
        return self.learner()(policy, None, demonstrations, seed=seed, device=device, **keywords)


IMITATION_METHODS: dict[str, ImitationMethod] = {
    method.name: method
    for method in (
        ImitationMethod(
            "bc", "BC", lambda: BC, _WINDOW, small=dict(_SMALL_RATE, policy_kwargs=dict(net_arch=[256, 256]))
        ),
        ImitationMethod(
            "bcrnn",
            "BC-RNN",
            lambda: BCRNN,
            {},
            # robomimic's size for images
            {"pixels": merged(_SHIFT, dict(batch_size=16, policy_kwargs=dict(hidden_dim=1000)))},
            dict(_SMALL_RATE, batch_size=64, policy_kwargs=dict(hidden_dim=100)),
            {"pixels": dict(batch_size=16), "pointcloud": merged(_SMALL_CLOUD, dict(batch_size=16))},
        ),
        ImitationMethod("ibc", "IBC", lambda: IBC, {}, small=_SMALL_IBC),
        ImitationMethod(
            "diffusion",
            "Diffusion Policy",
            lambda: DiffusionPolicy,
            _UNET,
            # From point clouds it is DP3.
            {**_SHIFTED, "pointcloud": dict(size="dp3", prediction="sample")},
            _SMALL_UNET,
        ),
        ImitationMethod("flow", "Flow matching", lambda: FlowMatching, _UNET, _UNET_OBS, _SMALL_UNET),
        ImitationMethod("mip", "MIP", lambda: MIP, _UNET, _UNET_OBS, _SMALL_UNET),
        ImitationMethod("residual", "Residual", lambda: Residual, _WINDOW, small=_SMALL_RATE, needs_base=True),
        ImitationMethod(
            "difftori", "DiffTORI", lambda: DiffTORIImitation, _WINDOW, small=_SMALL_DIFFTORI, needs_base=True
        ),
    )
}


def get_imitation_method(name: str) -> ImitationMethod:
    """The method of that name, or a ``ValueError`` with all names."""
    if name not in IMITATION_METHODS:
        raise ValueError(f"Unknown imitation method {name!r}. Methods: {', '.join(IMITATION_METHODS)}.")
    return IMITATION_METHODS[name]
