"""The policies that a file may name, and the kind of each setting that decides how one acts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy

from difftori_gym.baselines.bc import HEADS, BCPolicy
from difftori_gym.baselines.bc_rnn import BCRNNPolicy
from difftori_gym.baselines.diffusion_policy import DiffusionUnetPolicy
from difftori_gym.baselines.drqv2 import DrQv2Policy
from difftori_gym.baselines.flow_matching import FlowUnetPolicy
from difftori_gym.baselines.ibc import COUNTER_EXAMPLES, IBCPolicy
from difftori_gym.baselines.mip import MIPUnetPolicy
from difftori_gym.baselines.residual import ResidualPolicy
from difftori_gym.baselines.tdmpc2_planning import TDMPC2Planner
from difftori_gym.baselines.tdmpc2_policies import SIZES as TDMPC2_SIZES
from difftori_gym.baselines.tdmpc2_policies import TDMPC2CnnPolicy, TDMPC2MultiInputPolicy, TDMPC2Policy
from difftori_gym.baselines.unet_policy import SIZES as UNET_SIZES
from difftori_gym.exports.classes import ACTIVATION, EXTRACTOR_SETTINGS, HEAD_SIZES, PRIOR_SAMPLES, TRAJECTORY_OPTIMIZER
from difftori_gym.exports.settings import (
    FLAG,
    MAX_ITERATIONS,
    SAMPLES,
    SHARE,
    SIZE,
    SIZES,
    STEPS,
    WEIGHT,
    Number,
    Optionally,
    Setting,
    Table,
    Whole,
    choice,
    unwritable,
)
from difftori_gym.exports.spaces import space_from_json, space_to_json
from difftori_gym.exports.strict_json import refusal
from difftori_gym.il.difftori import DiffTORIImitationPolicy
from difftori_gym.il.policies import ImitationPolicy, PolicySpec
from difftori_gym.rl.planning import Init, Planner
from difftori_gym.rl.policies import CnnPolicy, DiffTORIPolicy, MultiInputPolicy

#: Constructor arguments that say nothing about how a policy acts.
_NOT_WRITTEN = ("observation_space", "action_space", "lr_schedule", "optimizer_class", "optimizer_kwargs")


class _SpecOfBase:
    """A policy inside a policy: the base policy whose actions it starts from."""

    def to_json(self, value: PolicySpec, where: str) -> dict[str, Any]:
        return parameters_to_json(value.policy_class, value.parameters, where)

    def from_json(self, value: Any, where: str, budget: int) -> PolicySpec:
        cls, parameters = parameters_from_json(value, where, budget)
        if not issubclass(cls, ImitationPolicy):
            raise refusal(where, "an imitation policy", cls.__name__)
        return PolicySpec(cls, parameters)


#: Without ``compile``, which changes how fast a plan is found and not which: a loaded policy does not compile.
_PLANNER = Table(
    dict(optimizer=TRAJECTORY_OPTIMIZER, init=choice(get_args(Init)), discount=SHARE, num_prior_samples=PRIOR_SAMPLES),
    build=Planner,
)
_DIFFTORI: dict[str, Setting] = dict(
    net_arch=Optionally(HEAD_SIZES),
    activation_fn=ACTIVATION,
    **EXTRACTOR_SETTINGS,
    normalize_images=FLAG,
    n_critics=Whole(1, 32),
    latent_dim=SIZE,
    planner=_PLANNER,
    horizon=STEPS,
    exploration_std=Number(0.0, 100.0),
    image_shift=Optionally(Whole(0, 10_000)),
    slow_targets=FLAG,
    layer_norm=FLAG,
    norm_obs=FLAG,
)
_TDMPC2: dict[str, Setting] = dict(
    size=choice(tuple(TDMPC2_SIZES)),
    net_arch=HEAD_SIZES,
    activation_fn=ACTIVATION,
    **EXTRACTOR_SETTINGS,
    normalize_images=FLAG,
    n_critics=Whole(1, 32),
    latent_dim=SIZE,
    planner=Table(
        dict(optimizer=TRAJECTORY_OPTIMIZER, discount=SHARE, num_prior_samples=PRIOR_SAMPLES), build=TDMPC2Planner
    ),
    horizon=STEPS,
    exploration_std=Number(0.0, 100.0),
    image_shift=Optionally(Whole(0, 10_000)),
    norm_obs=FLAG,
    dropout=SHARE,
    simnorm_dim=SIZE,
    num_bins=Whole(2, 10_000),
    encoder_lr_scale=WEIGHT,
)
_IMITATION: dict[str, Setting] = dict(
    n_obs_steps=STEPS,
    horizon=STEPS,
    n_action_steps=STEPS,
    ema_decay=Optionally(SHARE),
    noise_lifetime=choice(("episode", "chunk")),
    base=Optionally(_SpecOfBase()),
    **EXTRACTOR_SETTINGS,
    cloud_scaling=choice(("axes", "none")),
    image_shift=Optionally(Whole(0, 10_000)),
)
_HEAD: dict[str, Setting] = dict(head=choice(HEADS), num_modes=Whole(1, 1000))
_UNET_SIZE = choice(tuple(UNET_SIZES))
_NETWORK: dict[str, Setting] = dict(net_arch=SIZES, activation_fn=ACTIVATION)

#: Class and kinds of the settings of each policy, by the name that files have for it.
POLICIES: Mapping[str, tuple[type[BasePolicy], Mapping[str, Setting]]] = {
    "rl.DiffTORIPolicy": (DiffTORIPolicy, _DIFFTORI),
    "rl.CnnPolicy": (CnnPolicy, _DIFFTORI),
    "rl.MultiInputPolicy": (MultiInputPolicy, _DIFFTORI),
    "baselines.TDMPC2Policy": (TDMPC2Policy, _TDMPC2),
    "baselines.TDMPC2CnnPolicy": (TDMPC2CnnPolicy, _TDMPC2),
    "baselines.TDMPC2MultiInputPolicy": (TDMPC2MultiInputPolicy, _TDMPC2),
    "il.DiffTORIImitationPolicy": (
        DiffTORIImitationPolicy,
        dict(
            **_IMITATION,
            **_NETWORK,
            objective=choice(("chunk", "latent")),
            trajectory_optimizer=TRAJECTORY_OPTIMIZER,
            init=choice(("base_policy", "zero", "random")),
            latent_dim=Whole(0, 1 << 16),
            num_latents=Whole(1, 1000),
            discount=SHARE,
            start_noise=Number(0.0, 100.0),
            action_coef=WEIGHT,
            kl_coef=WEIGHT,
        ),
    ),
    "baselines.BCPolicy": (BCPolicy, dict(**_IMITATION, **_HEAD, **_NETWORK)),
    "baselines.BCRNNPolicy": (BCRNNPolicy, dict(**_IMITATION, **_HEAD, hidden_dim=SIZE, num_layers=Whole(1, 16))),
    "baselines.IBCPolicy": (
        IBCPolicy,
        dict(
            **_IMITATION,
            sampling=choice(tuple(COUNTER_EXAMPLES)),
            width=SIZE,
            depth=Whole(2, 64),
            num_counter_examples=SAMPLES,
            num_action_samples=SAMPLES,
            num_iterations=Whole(1, MAX_ITERATIONS),
        ),
    ),
    "baselines.DiffusionUnetPolicy": (
        DiffusionUnetPolicy,
        dict(
            **_IMITATION,
            size=_UNET_SIZE,
            num_train_steps=Whole(1, MAX_ITERATIONS),
            num_inference_steps=Whole(1, MAX_ITERATIONS),
            prediction=choice(("epsilon", "sample")),
        ),
    ),
    "baselines.FlowUnetPolicy": (
        FlowUnetPolicy,
        dict(**_IMITATION, size=_UNET_SIZE, num_inference_steps=Whole(1, MAX_ITERATIONS)),
    ),
    "baselines.MIPUnetPolicy": (MIPUnetPolicy, dict(**_IMITATION, size=_UNET_SIZE, t_star=SHARE)),
    "baselines.ResidualPolicy": (ResidualPolicy, dict(**_IMITATION, **_NETWORK)),
    "baselines.DrQv2Policy": (
        DrQv2Policy,
        dict(
            net_arch=SIZES,
            features_dim=SIZE,
            **EXTRACTOR_SETTINGS,
            normalize_images=FLAG,
            n_critics=Whole(1, 32),
            exploration_std=Number(0.0, 100.0),
        ),
    ),
}


def parameters_to_json(cls: type[BasePolicy], parameters: Mapping[str, Any], where: str) -> dict[str, Any]:
    """JSON of a policy's class and of the arguments of its constructor."""
    name = next((name for name, (known, _) in POLICIES.items() if known is cls), None)
    if name is None:
        raise unwritable(where, f"a policy of the classes {', '.join(POLICIES)}", cls)
    settings = {key: value for key, value in parameters.items() if key not in _NOT_WRITTEN}
    return {
        "class": name,
        "observation_space": space_to_json(parameters["observation_space"], f"{where}.observation_space"),
        "action_space": space_to_json(parameters["action_space"], f"{where}.action_space"),
        "settings": Table(POLICIES[name][1]).to_json(settings, where),
    }


def parameters_from_json(value: Any, where: str, budget: int) -> tuple[type[BasePolicy], dict[str, Any]]:
    """Class of a policy and arguments of its constructor in JSON from a file of ``budget`` bytes."""
    keys = {"class", "observation_space", "action_space", "settings"}
    if not isinstance(value, dict) or set(value) != keys:
        raise refusal(where, f"the keys {sorted(keys)}", value)
    name = value["class"]
    if not isinstance(name, str) or name not in POLICIES:
        raise refusal(f"{where}: class", f"one of {', '.join(POLICIES)}", name)
    action_space = space_from_json(value["action_space"], f"{where}: action_space", budget)
    if not isinstance(action_space, spaces.Box) or not action_space.is_bounded():
        raise refusal(f"{where}: action_space", "a Box with finite bounds", action_space)
    parameters: dict[str, Any] = {
        "observation_space": space_from_json(value["observation_space"], f"{where}: observation_space", budget),
        "action_space": action_space,
        "lr_schedule": BasePolicy._dummy_schedule,
    }
    cls, kinds = POLICIES[name]
    return cls, {**parameters, **Table(kinds).from_json(value["settings"], f"{where}: settings", budget)}
