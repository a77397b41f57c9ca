"""Differentiable trajectory optimisation as a policy, for Gymnasium and Stable-Baselines3."""

import difftori_gym.baselines  # noqa: F401  (a policy can be loaded once its class is known)
from difftori_gym.checkpointing import ResumeCallback
from difftori_gym.envs import make_env, make_vec_env
from difftori_gym.exports import export, load_export
from difftori_gym.il import DiffTORIImitation
from difftori_gym.rl import DiffTORI, DiffTORIPolicy
from difftori_gym.trajopt import TrajectoryOptimizer
from difftori_gym.video import VideoCallback, record_video

__version__ = "0.1.0"

__all__ = [
    "DiffTORI",
    "DiffTORIImitation",
    "DiffTORIPolicy",
    "ResumeCallback",
    "TrajectoryOptimizer",
    "VideoCallback",
    "export",
    "load_export",
    "make_env",
    "make_vec_env",
    "record_video",
]
