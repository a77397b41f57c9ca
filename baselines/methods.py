"""The methods that can be compared: learner, label, and hyper-parameters by suite, task, observation and size."""

from __future__ import annotations

import copy
import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
from gymnasium import spaces
from stable_baselines3 import PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from ..il import CosineSchedule, Demonstrations, DiffTORIImitation
from ..learning import refuse_unknown
from ..models import CombinedEncoder, ImageEncoder, observation_kind
from ..rl import DiffTORI
from ..rl.frame_replay import DictFrameReplayBuffer, FrameReplayBuffer
from . import BC, BCRNN, IBC, MIP, TDMPC, TDMPC2, DiffusionPolicy, DrQv2, FlowMatching, Residual, presets
from .presets import Hyperparameters, Layers, merged

Kind = Literal["rl", "imitation"]
SizeName = Literal["published", "small"]
SIZES: tuple[str, ...] = get_args(SizeName)

#: Gradient steps of imitation unless told otherwise. Both numbers are ours.
STEPS: dict[str, int] = {"published": 50_000, "small": 5_000}


@dataclass(frozen=True)
class Method:
    """
    A learner with its hyper-parameters: the class's keywords; in reinforcement learning also ``action_noise_std`` for a
    Gaussian exploration noise of that standard deviation, in imitation ``cosine_learning_rate`` for a rate that falls
    along a cosine to a hundredth.
    """

    name: str  # on the command line and in tables
    label: str  # in figures
    learner: Callable[[], type[BaseAlgorithm]]  # returns the class
    default: Hyperparameters  # for every task, in published sizes
    # What differs from it, later ones winning: by suite/*, suite/task, kind of observation, size, and "size obs".
    layers: Layers = field(default_factory=dict)
    fixed: Hyperparameters = field(default_factory=dict)  # what makes the method what it is; wins over everything else
    obs: tuple[str, ...] = ("state", "pixels", "pointcloud")  # kinds of observation it learns from
    kind: Kind = "rl"  # what it learns by; two methods of different kinds may have one name
    needs_base: bool = False  # whether it starts from a base policy

    def hyperparameters(
        self, task: str, overrides: Mapping[str, Any] | None = None, obs: str = "state", size: SizeName = "published"
    ) -> Hyperparameters:
        """
        Keywords of the learner for a task ``suite/task``, with the user's own choices, all layers :func:`merged`.

        :param size: ``published``, or ``small`` for CPUs, which changes imitation alone
        :raises ValueError: on a name that the learner does not have, one that the method fixes, or an unknown size
        """
        if size not in SIZES:
            raise ValueError(f"Unknown size {size!r}. Choices: {', '.join(SIZES)}.")
        overrides = dict(overrides or {})
        refuse_unknown(overrides, self.hyperparameter_names(), f"{self.name} has no hyper-parameter")
        for name, value in overrides.items():
            if name in self.fixed and value != self.fixed[name]:
                raise ValueError(f"{self.name} is defined by {name}={self.fixed[name]!r}, got {value!r}.")
        suite = task.partition("/")[0]
        layers = [self.layers.get(key, {}) for key in (f"{suite}/*", task, obs, size, f"{size} {obs}")]
        return merged(self.default, *layers, overrides, self.fixed)

    def hyperparameter_names(self) -> set[str]:
        """Names that :meth:`build` understands."""
        names = keyword_names(self.learner()) - {"policy", "env", "demonstrations", "base_policy"}
        own = {"cosine_learning_rate"} if self.kind == "imitation" else set()
        return names | own | ({"action_noise_std"} if "action_noise" in names else set())

    def build(
        self,
        source: VecEnv | Demonstrations,
        *,
        seed: int,
        device: str,
        hyperparameters: Mapping[str, Any],
        base_policy: BaseAlgorithm | None = None,
    ) -> BaseAlgorithm:
        """
        An untrained learner of :meth:`hyperparameters`, in imitation from demonstrations.

        :param base_policy: a trained one, if :attr:`needs_base`
        """
        keywords = copy.deepcopy(dict(hyperparameters))  # Stable-Baselines3 writes into policy_kwargs
        if isinstance(source, Demonstrations):
            env, keywords["demonstrations"] = None, source
            if (rate := keywords.pop("cosine_learning_rate", None)) is not None:
                keywords["learning_rate"] = CosineSchedule(float(rate), final=0.01 * float(rate))
            if base_policy is not None:
                keywords["base_policy"] = base_policy
        else:
            env = source
            _complete(keywords, self.learner(), env)
        policy = policy_name(source.observation_space)
        return self.learner()(policy, env, seed=seed, device=device, verbose=0, **keywords)


def _complete(keywords: dict[str, Any], learner: type[BaseAlgorithm], env: VecEnv) -> None:
    """Put in what only the environment's spaces tell: noise, and encoders and a memory of our own."""
    if (noise_std := keywords.pop("action_noise_std", None)) is not None:
        zeros = np.zeros(env.action_space.shape or ())
        keywords["action_noise"] = NormalActionNoise(zeros, zeros + float(noise_std))
    policy = policy_name(env.observation_space)
    is_dict = policy == "MultiInputPolicy"
    if policy != "MlpPolicy" and learner.__module__.startswith(("stable_baselines3.", "sb3_contrib.")):
        # The encoders of our own, and a memory that keeps each image frame once.
        encoder = CombinedEncoder if is_dict else ImageEncoder
        keywords["policy_kwargs"] = {"features_extractor_class": encoder, **(keywords.get("policy_kwargs") or {})}
        if issubclass(learner, OffPolicyAlgorithm):
            keywords.setdefault("replay_buffer_class", DictFrameReplayBuffer if is_dict else FrameReplayBuffer)
    extractor = keywords.get("policy_kwargs", {}).get("features_extractor_kwargs", {})
    if is_dict and "kernels" in extractor:  # beside a state, an image has its own encoder
        keywords["policy_kwargs"]["features_extractor_kwargs"] = {"image_kwargs": extractor}


def keyword_names(learner: type[BaseAlgorithm]) -> set[str]:
    """
    What a learner's constructor understands, parents that keywords are passed on to included, without what every
    learner is given: seed, device and verbosity.
    """
    names: set[str] = set()
    for cls in learner.__mro__:
        parameters = inspect.signature(cls).parameters
        names |= {name for name, parameter in parameters.items() if parameter.kind is not parameter.VAR_KEYWORD}
        if "kwargs" not in parameters:
            break  # this class passes nothing on to its base
    return names - {"seed", "device", "verbose", "_init_setup_model"}


def policy_name(space: spaces.Space[Any]) -> str:
    """Stable-Baselines3's name of the policy that reads these observations."""
    if isinstance(space, spaces.Dict):
        return "MultiInputPolicy"
    return "CnnPolicy" if observation_kind(space) == "image" else "MlpPolicy"


def _contrib(name: str) -> Any:
    return lambda: getattr(importlib.import_module("sb3_contrib"), name)


_DIFFTORI = Method("difftori", "DiffTORI", lambda: DiffTORI, presets.DIFFTORI, presets.DIFFTORI_LAYERS)
_RL = (
    _DIFFTORI,
    replace(_DIFFTORI, name="difftori_nopg", label="DiffTORI, no policy gradient", fixed=dict(pg_coef=0.0)),
    Method("tdmpc", "TD-MPC", lambda: TDMPC, presets.PLANNER, presets.PLANNER_LAYERS),
    Method("tdmpc2", "TD-MPC2", lambda: TDMPC2, presets.TDMPC2, presets.TDMPC2_LAYERS, obs=("state", "pixels")),
    Method("drqv2", "DrQ-v2", lambda: DrQv2, presets.DRQV2, obs=("pixels",)),
    Method("sac", "SAC", lambda: SAC, presets.SAC, presets.OFF_POLICY_LAYERS),
    Method("td3", "TD3", lambda: TD3, presets.TD3, presets.OFF_POLICY_LAYERS),
    Method("tqc", "TQC", _contrib("TQC"), presets.SAC, presets.OFF_POLICY_LAYERS),
    Method("crossq", "CrossQ", _contrib("CrossQ"), presets.CROSSQ, obs=("state",)),
    Method("ppo", "PPO", lambda: PPO, presets.PPO, presets.PPO_LAYERS),
)
_IMITATION = (
    Method("bc", "BC", lambda: BC, presets.WINDOW, presets.BC_LAYERS),
    Method("bcrnn", "BC-RNN", lambda: BCRNN, {}, presets.BCRNN_LAYERS),
    Method("ibc", "IBC", lambda: IBC, {}, presets.IBC_LAYERS),
    Method("diffusion", "Diffusion Policy", lambda: DiffusionPolicy, presets.UNET, presets.DIFFUSION_LAYERS),
    Method("flow", "Flow matching", lambda: FlowMatching, presets.UNET, presets.UNET_LAYERS),
    Method("mip", "MIP", lambda: MIP, presets.UNET, presets.UNET_LAYERS),
    Method("residual", "Residual", lambda: Residual, presets.WINDOW, presets.RESIDUAL_LAYERS, needs_base=True),
    Method("difftori", "DiffTORI", lambda: DiffTORIImitation, presets.WINDOW, presets.PLANNED_LAYERS, needs_base=True),
)
#: All methods, by kind and name.
METHODS: dict[Kind, dict[str, Method]] = {
    "rl": {method.name: method for method in _RL},
    "imitation": {method.name: replace(method, kind="imitation") for method in _IMITATION},
}


def get_method(name: str, obs: str = "state", kind: Kind = "rl") -> Method:
    """:raises ValueError: if there is no such method, or it does not learn from ``obs``"""
    if name not in METHODS[kind]:
        word = "imitation method" if kind == "imitation" else "method"
        raise ValueError(f"Unknown {word} {name!r}. Methods: {', '.join(METHODS[kind])}.")
    method = METHODS[kind][name]
    if obs not in method.obs:
        raise ValueError(f"{name} learns from {' or '.join(method.obs)} observations, got obs={obs!r}.")
    return method
