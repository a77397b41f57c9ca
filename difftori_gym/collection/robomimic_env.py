"""The environment that a robomimic file was recorded in, with robosuite alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym

from difftori_gym.envs import Observation, make_env
from difftori_gym.il import read_env_args

# What a file says about windows, cameras and the length of episodes is make_env's to say here.
_NOT_KEPT = (
    "camera_",
    "env_lang",
    "gripper_visualization",
    "has_",
    "horizon",
    "ignore_done",
    "lang",
    "postprocess_visual_obs",
    "render",
    "seed",
    "use_",
)


def make_robomimic_env(
    path: str | Path, *, obs: Observation = "state", seed: int | None = None, **kwargs: Any
) -> gym.Env[Any, Any]:
    """
    Build the environment of a file's ``env_args``: its task, robots, controllers and rewards.

    :param path: a robomimic file
    :param obs: kind of observation
    :param seed: of the first reset
    :param kwargs: further arguments of ``make_env``, in place of the file's
    :return: the environment
    :raises ValueError: if the file has no ``env_args`` of robosuite, or of a task that is not known here
    :raises ImportError: if h5py or robosuite is not installed
    """
    args = read_env_args(path)
    kept = {key: value for key, value in args.env_kwargs.items() if not key.startswith(_NOT_KEPT)}
    if "controller_configs" in kept:
        kept["controller_configs"] = composite_controllers(kept["controller_configs"])
    return make_env(f"robosuite/{args.env_name}", obs=obs, seed=seed, **{**kept, **kwargs})


def composite_controllers(configs: Any) -> Any:
    """
    Rewrite the controller of an arm, as robosuite up to 1.4 describes it, for robosuite 1.5, which describes a robot.

    Up to 1.4 displacements were along the axes of the world; 1.5 has to be told so.

    :param configs: of one robot, or a list with one for each; those of 1.5 are returned as they are
    :return: the same for robosuite 1.5
    """
    if isinstance(configs, list):
        return [composite_controllers(each) for each in configs]
    if "body_parts" in configs:
        return configs
    arm = {"input_ref_frame": "world", **configs}
    if "control_delta" in arm:
        arm["input_type"] = "delta" if arm.pop("control_delta") else "absolute"
    return {"type": "BASIC", "body_parts": {"right": {**arm, "gripper": {"type": "GRIP"}}}}
