"""Films of a policy at work, with what it has earned, expects and plans drawn on them."""

from difftori_gym.video.callback import VideoCallback
from difftori_gym.video.film import record_video

__all__ = ["VideoCallback", "record_video"]
