"""Push-T: push a T-shaped block onto its outline with a disc (Florence et al. 2021; gym-pusht)."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar, Literal

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from difftori_gym.envs.observations import checked_obs_kwargs
from difftori_gym.envs.suite import Suite
from difftori_gym.wrappers.pixel_observation import image_size

_TASK = "PushT"


class _Pixels(gym.ObservationWrapper[Any, Any, Any]):
    """Images with the channels first, alone or beside the disc's position (float32 ``[2]``)."""

    def __init__(self, env: gym.Env[Any, Any], state: Literal["none", "agent"]) -> None:
        super().__init__(env)
        assert isinstance(env.observation_space, spaces.Dict)
        height, width, channels = env.observation_space["pixels"].shape or ()
        self._state = state
        pixels = spaces.Box(0, 255, (channels, height, width), np.uint8)
        position = spaces.Box(0.0, 512.0, (2,), np.float32)
        self.observation_space = pixels if state == "none" else spaces.Dict({"pixels": pixels, "state": position})

    def observation(self, observation: dict[str, np.ndarray]) -> Any:
        pixels = np.ascontiguousarray(observation["pixels"].transpose(2, 0, 1))
        if self._state == "none":
            return pixels
        return {"pixels": pixels, "state": observation["agent_pos"].astype(np.float32)}


class PushT(Suite):
    """
    ``pusht/PushT``: an episode ends with success, when 95 % of the block cover the outline, or after 300 steps.

    The action is where the disc shall go, in [0, 512]; the reward is the covered part, in [0, 1].
    """

    name: ClassVar[str] = "pusht"
    extra: ClassVar[str | None] = "pusht"
    packages: ClassVar[tuple[str, ...]] = ("gym_pusht", "pymunk", "pygame")
    own_observations: ClassVar[tuple[str, ...]] = ("pixels",)

    def tasks(self) -> list[str]:
        return [_TASK]

    def canonical_task(self, task: str) -> str | None:
        """Takes ``PushT``, ``PushT-v0`` or ``push-t``."""
        return _TASK if task.lower().removesuffix("-v0").replace("-", "") == "pusht" else None

    def make(
        self,
        task: str,
        *,
        seed: int | None,
        render_mode: str | None,
        obs: str = "state",
        obs_kwargs: dict[str, Any] | None = None,
        **env_kwargs: Any,
    ) -> gym.Env[Any, Any]:
        """
        Build the task, which truncates itself; resets seed it.

        :param obs: ``state`` (positions of disc and block, angle of the block) or ``pixels``
        :param obs_kwargs: of pixels: ``size`` (96 by default) and ``state`` (``none`` or ``agent``)
        :param env_kwargs: those of gym-pusht, such as ``visualization_width``
        :raises ValueError: for an unknown setting of the observation
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of what gym-pusht imports
            import gym_pusht  # noqa: F401  (registers the task)

        if obs == "state":
            return self._build(render_mode=render_mode, obs_type="state", **env_kwargs)
        settings: dict[str, Any] = {"size": 96, "state": "none"}
        settings.update(checked_obs_kwargs(obs_kwargs, settings, obs))
        if settings["state"] not in ("none", "agent"):
            raise ValueError(f"Unknown state {settings['state']!r} of Push-T's pixels. Choices: none, agent.")
        height, width = image_size(settings["size"], "Push-T")
        env = self._build(
            render_mode="rgb_array",  # its images of observations are drawn in this mode only
            obs_type="pixels_agent_pos",
            observation_width=width,
            observation_height=height,
            **env_kwargs,
        )
        return _Pixels(env, settings["state"])

    @staticmethod
    def _build(**kwargs: Any) -> gym.Env[Any, Any]:
        return gym.make("gym_pusht/PushT-v0", disable_env_checker=True, **kwargs)
