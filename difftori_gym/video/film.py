"""Run a policy and film it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import MaxAndSkipObservation
from stable_baselines3.common.atari_wrappers import MaxAndSkipEnv
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from difftori_gym.envs.rendering import GL_REMEDY
from difftori_gym.evaluation import Episode, Predictor, run_episodes
from difftori_gym.training_environment import left_right
from difftori_gym.video.drawing import Caption, draw_path, tile, write_caption
from difftori_gym.video.files import Image, check_format, even_size, film_writer
from difftori_gym.video.forecast import Forecast, WatchedPolicy
from difftori_gym.wrappers.pixel_observation import as_picture
from difftori_gym.wrappers.seed_first_reset import checked_seed

Overlay = Literal["none", "plan"]

#: Method of an environment that tells where its picture would show what planned actions ``[H, A]`` lead to.
PLANNED_PIXELS = "planned_pixels"

_DEFAULT_FPS = 30.0


def record_video(
    model: Predictor,
    env: gym.Env[Any, Any] | VecEnv,
    path: str | os.PathLike[str],
    *,
    n_episodes: int = 1,
    max_steps: int | None = None,
    fps: float | None = None,
    seed: int | None = None,
    deterministic: bool = True,
    captions: bool = True,
    overlay: Overlay = "none",
) -> Path:
    """
    Run a policy and write what the environment draws, one image per agent step and one at the end of an episode.

    The environments of a ``VecEnv`` are tiled in one picture; one whose episode is over shows its last image until
    all are. On each stands the step, the return so far, the discounted return that the plan (DiffTORI, TD-MPC) or the
    critic (SAC, TD3, DDPG, PPO, A2C, DrQ-v2) expects from here on, and ``success`` from the first solved step on. What
    a policy or an environment does not tell is left out. The file appears under its name only when it is complete;
    missing folders are made.

    :param model: model or policy
    :param env: environment made with ``render_mode="rgb_array"``; it is reset
    :param path: file to write, ``.mp4`` or ``.gif``
    :param n_episodes: number of episodes, one after the other, at least 1
    :param max_steps: agent steps after which an episode is cut, at least 1. None: whole episodes
    :param fps: images per second. None: the environment's own speed, 30 where it does not tell
    :param seed: seed of the first episode, later ones get the next numbers. None: the environment's own stream
    :param deterministic: no exploration
    :param captions: whether to write on the pictures
    :param overlay: ``plan`` draws the path that a copy of the simulation takes under the planned actions: of the hand
        in metaworld, of a domain's characteristic body in dm_control. An action wrapper of one's own is not seen
    :return: the path
    :raises ValueError: before anything is run: on another file ending, numbers below 1, an environment that cannot
        draw (made without ``render_mode="rgb_array"``, or no OpenGL on this machine), or an overlay that the policy or
        the environment cannot give
    :raises ImportError: if the packages that write films are missing
    """
    path = Path(path)
    check_request(path, n_episodes, max_steps, fps, overlay)
    seed = checked_seed(seed, "record_video needs")
    vec_env = env if isinstance(env, VecEnv) else DummyVecEnv([lambda: env])
    watched = WatchedPolicy(model)
    if overlay == "plan":
        check_overlay(watched, vec_env)
    with left_right(model, vec_env):
        check_drawing(vec_env)
        with film_writer(path, film_speed(vec_env) if fps is None else fps) as writer:
            for episode in range(n_episodes):
                if seed is not None:
                    vec_env.seed(seed + episode)
                film = _Film(vec_env, watched, writer, captions=captions, overlay=overlay)
                episodes = run_episodes(
                    watched, vec_env, deterministic=deterministic, max_steps=max_steps, on_step=film.shoot
                )
                film.close(episodes)
    return path


class _Film:
    """Pictures of one episode in every environment, each taken when the policy has been asked."""

    def __init__(
        self, vec_env: VecEnv, watched: WatchedPolicy, writer: Any, *, captions: bool, overlay: Overlay
    ) -> None:
        self._vec_env, self._watched, self._writer = vec_env, watched, writer
        self._captions, self._overlay = captions, overlay
        self._images: list[Image] = []

    def shoot(self, episodes: Sequence[Episode]) -> None:
        """Take the picture before a step."""
        running = [index for index, episode in enumerate(episodes) if not episode.finished]
        images = pictures(self._vec_env)
        forecast = self._watched.forecast
        if self._overlay == "plan":
            images = self._with_plans(images, running, forecast)
        # Behind the end of its episode an environment shows the next one.
        self._images = [images[i] if i in running else self._images[i] for i in range(len(images))]
        self._write(episodes, forecast)

    def close(self, episodes: Sequence[Episode]) -> None:
        """
        Take the last picture: an ended episode's last image with its return and success, or the present image of one
        that was cut.
        """
        images = pictures(self._vec_env)
        finished = [episode.finished for episode in episodes]
        self._images = [self._images[i] if finished[i] else images[i] for i in range(len(images))]
        self._write(episodes, Forecast())

    def _with_plans(self, images: list[Image], running: list[int], forecast: Forecast) -> list[Image]:
        assert forecast.plans is not None
        images = list(images)
        for index in running:
            (pixels,) = self._vec_env.env_method(PLANNED_PIXELS, forecast.plans[index], indices=[index])
            images[index] = draw_path(images[index], pixels)
        return images

    def _write(self, episodes: Sequence[Episode], forecast: Forecast) -> None:
        shown = self._images
        if self._captions:
            shown = [
                write_caption(image, _caption(episode, forecast, index))
                for index, (image, episode) in enumerate(zip(shown, episodes, strict=True))
            ]
        self._writer.append_data(even_size(tile(shown)))


def _caption(episode: Episode, forecast: Forecast, index: int) -> Caption:
    value = None if forecast.values is None or episode.finished else float(forecast.values[index])
    return Caption(episode.length, episode.total, forecast.source, value, bool(episode.success))


def film_speed(vec_env: VecEnv) -> float:
    """:return: images per second at which a film plays in real time, 30 where the environments do not tell"""
    return steps_a_second(vec_env, unknown=_DEFAULT_FPS) or _DEFAULT_FPS


def steps_a_second(vec_env: VecEnv, unknown: float | None = None) -> float | None:
    """:return: agent steps a second of the environments' time; where they do not tell, as if frames were ``unknown``"""
    innermost = vec_env.unwrapped  # a wrapper tells nothing of what it wraps
    own_fps: Any = innermost.metadata.get("render_fps")
    if own_fps is None:  # environments in other processes
        try:
            own_fps = innermost.get_attr("metadata", 0)[0].get("render_fps")
        except (AttributeError, NotImplementedError):
            own_fps = None
    fps: Any = own_fps or unknown
    if fps is None:
        return None
    speed = float(fps)
    if any(innermost.env_is_wrapped(kind, indices=0)[0] for kind in (MaxAndSkipObservation, MaxAndSkipEnv)):
        speed /= innermost.get_attr("_skip", 0)[0]  # which these two do not tell in their metadata
    return speed


def check_drawing(vec_env: VecEnv) -> None:
    """
    Draw once, before a rollout that may take long. The environments are reset.

    :raises ValueError: if they cannot draw
    """
    if vec_env.render_mode != "rgb_array":
        raise ValueError(
            f"record_video needs an environment made with render_mode='rgb_array', got render_mode="
            f"{vec_env.render_mode!r}. Use make_env(id, render_mode='rgb_array')."
        )
    vec_env.reset()
    try:
        pictures(vec_env)
    except gym.error.DependencyNotInstalled as error:  # names the package and its remedy itself
        raise ValueError(f"record_video needs an environment that can draw: {error}") from error
    except Exception as error:  # drawing fails in a different way on every machine
        reason = f"{type(error).__name__}: {error}".rstrip(".")
        raise ValueError(f"record_video needs an environment that can draw, got {reason}. {GL_REMEDY}") from error


def pictures(vec_env: VecEnv) -> list[Image]:
    """
    :return: one image ``[height, width, 3]`` per environment
    :raises ValueError: if they draw nothing, or images of another kind or of different sizes
    """
    images = [as_picture(image) for image in vec_env.get_images()]
    shapes = {image.shape for image in images}
    if len(shapes) != 1:
        raise ValueError(f"render() must give images of one shape [height, width, 3], got {sorted(map(str, shapes))}.")
    return [np.ascontiguousarray(image) for image in images]


def check_request(path: Path, n_episodes: int, max_steps: int | None, fps: float | None, overlay: str) -> None:
    """
    :raises ValueError: if one of the arguments of :func:`record_video` cannot be
    :raises ImportError: if a package for the file's format is missing
    """
    check_format(path)
    if n_episodes < 1:
        raise ValueError(f"record_video needs n_episodes >= 1, got {n_episodes}.")
    if max_steps is not None and max_steps < 1:
        raise ValueError(f"record_video needs max_steps >= 1 or None, got {max_steps}.")
    if fps is not None and not fps > 0:
        raise ValueError(f"record_video needs fps > 0, got {fps}.")
    if overlay not in get_args(Overlay):
        raise ValueError(f"Unknown overlay {overlay!r}. Choices: {', '.join(get_args(Overlay))}.")


def check_overlay(watched: WatchedPolicy, vec_env: VecEnv) -> None:
    """:raises ValueError: if the policy has no plan, or the environments cannot tell where it leads"""
    if not watched.plans:
        raise ValueError(
            "overlay='plan' needs a policy that plans (DiffTORI, TDMPC, TDMPC2), got one that does not. "
            "Use overlay='none'."
        )
    if not vec_env.has_attr(PLANNED_PIXELS):
        raise ValueError(
            "overlay='plan' needs an environment that can follow a plan in a copy of its simulation: metaworld/* and "
            "the common domains of dm_control/* (not playground, robosuite, maniskill, pusht). Use overlay='none'."
        )
