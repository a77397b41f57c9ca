"""Films of a policy at work."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from difftori_gym.envs.rendering import GL_REMEDY
from difftori_gym.evaluation import Predictor, run_episodes

Image = NDArray[np.uint8]

#: file endings and the packages that write them
FORMATS: dict[str, tuple[str, ...]] = {".mp4": ("imageio", "imageio_ffmpeg"), ".gif": ("imageio",)}

# Browsers show a frame of a gif for at least 20 ms.
_GIF_MAX_FPS = 50.0
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
) -> Path:
    """
    Run a policy and write what the environment draws, one image per agent step.

    The environments of a ``VecEnv`` are shown side by side, until the first one's episode is over. The file appears
    under its name only when it is complete; missing folders are made.

    :param model: model or policy
    :param env: environment made with ``render_mode="rgb_array"``; it is reset
    :param path: file to write, ``.mp4`` or ``.gif``
    :param n_episodes: number of episodes, one after the other, at least 1
    :param max_steps: agent steps after which an episode is cut, at least 1. None: whole episodes
    :param fps: images per second. None: the environment's own speed, 30 where it does not tell
    :param seed: seed of the first episode, later ones get the next numbers. None: the environment's own stream
    :param deterministic: no exploration
    :return: the path
    :raises ValueError: before anything is run: on another file ending, numbers below 1, or an environment that cannot
        draw (made without ``render_mode="rgb_array"``, or no OpenGL on this machine)
    :raises ImportError: if the packages that write films are missing
    """
    path = Path(path)
    _check_request(path, n_episodes, max_steps, fps)
    vec_env = env if isinstance(env, VecEnv) else DummyVecEnv([lambda: env])
    _check_drawing(vec_env)
    if fps is None:
        own_fps: Any = vec_env.metadata.get("render_fps")
        fps = float(own_fps or _DEFAULT_FPS)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        with contextlib.closing(_open_writer(unfinished, fps)) as writer:
            for episode in range(n_episodes):
                if seed is not None:
                    vec_env.seed(seed + episode)
                run_episodes(
                    model,
                    vec_env,
                    deterministic=deterministic,
                    max_steps=max_steps,
                    on_step=lambda: writer.append_data(_even(_draw(vec_env))),
                )
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def _check_request(path: Path, n_episodes: int, max_steps: int | None, fps: float | None) -> None:
    """
    :param path: file to write
    :param n_episodes: number of episodes
    :param max_steps: agent steps per episode
    :param fps: images per second
    :raises ValueError: if one of them cannot be
    :raises ImportError: if a package for the file's format is missing
    """
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"record_video writes {' or '.join(FORMATS)}, got {path.name!r}.")
    for package in FORMATS[path.suffix.lower()]:
        if importlib.util.find_spec(package) is None:
            raise ImportError(f'Films need the package {package}. Run: pip install "difftori-gym[video]"')
    if n_episodes < 1:
        raise ValueError(f"record_video needs n_episodes >= 1, got {n_episodes}.")
    if max_steps is not None and max_steps < 1:
        raise ValueError(f"record_video needs max_steps >= 1 or None, got {max_steps}.")
    if fps is not None and not fps > 0:
        raise ValueError(f"record_video needs fps > 0, got {fps}.")


def _check_drawing(vec_env: VecEnv) -> None:
    """
    Draw once, before a rollout that may take long.

    :param vec_env: environments to film
    :raises ValueError: if they cannot draw
    """
    if vec_env.render_mode != "rgb_array":
        raise ValueError(
            f"record_video needs an environment made with render_mode='rgb_array', got render_mode="
            f"{vec_env.render_mode!r}. Use make_env(id, render_mode='rgb_array')."
        )
    vec_env.reset()
    try:
        _draw(vec_env)
    except gym.error.DependencyNotInstalled as error:  # names the package and its remedy itself
        raise ValueError(f"record_video needs an environment that can draw: {error}") from error
    except Exception as error:  # drawing fails in a different way on every machine
        reason = f"{type(error).__name__}: {error}".rstrip(".")
        raise ValueError(f"record_video needs an environment that can draw, got {reason}. {GL_REMEDY}") from error


def _draw(vec_env: VecEnv) -> Image:
    """
    :param vec_env: environments
    :return: image ``[height, width, 3]`` of all of them
    """
    image = vec_env.render()
    if image is None or image.ndim != 3 or image.shape[-1] != 3:
        shape = None if image is None else image.shape
        raise ValueError(f"render() must give images of shape [height, width, 3], got {shape}.")
    return np.ascontiguousarray(image, dtype=np.uint8)


def _even(image: Image) -> Image:
    """
    Repeat the last row or column where their number is odd: the codec halves the resolution of colour.

    :param image: ``[height, width, 3]``
    :return: ``[height, width, 3]``, height and width even
    """
    height, width = image.shape[:2]
    return np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def _open_writer(path: Path, fps: float) -> Any:
    """
    :param path: file to write
    :param fps: images per second
    :return: imageio's writer; as a context manager it would stay open on errors
    """
    import imageio.v2 as imageio

    if path.suffix.lower() == ".gif":
        return imageio.get_writer(path, mode="I", duration=1000.0 / min(fps, _GIF_MAX_FPS), loop=0)
    return imageio.get_writer(path, fps=fps, macro_block_size=2, quality=7)
