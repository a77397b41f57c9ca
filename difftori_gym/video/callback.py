"""Films during training."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import gymnasium as gym
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import TensorBoardOutputFormat
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, sync_envs_normalization

from difftori_gym.training_environment import collects_from
from difftori_gym.video.files import FORMATS, as_gif
from difftori_gym.video.film import Overlay, check_drawing, check_overlay, check_request, film_speed, record_video
from difftori_gym.video.forecast import WatchedPolicy

# An event file grows by every film.
_MAX_TENSORBOARD_IMAGES = 100


class VideoCallback(BaseCallback):
    """
    Film the policy every so many agent steps.

    Films are ``FOLDER/PREFIX-000010000.mp4``, with the number of agent steps in the name. ``video/path`` goes to the
    log's text, and where the model logs to tensorboard the film itself appears among its images.

    :param eval_env: environment of its own, made with ``render_mode="rgb_array"``
    :param folder: folder of the films
    :param render_freq: agent steps between films, summed over the training environments, at least 1
    :param n_eval_episodes: episodes per film, one after the other
    :param max_steps: agent steps after which an episode is cut. None: whole episodes
    :param seed: seed of each film's first episode, so that all show the same start. None: the environment's own stream
    :param deterministic: no exploration
    :param captions: whether to write on the pictures
    :param overlay: see :func:`~difftori_gym.record_video`
    :param name_prefix: how the files' names begin
    :param format: ``.mp4`` or ``.gif``
    :param tensorboard: whether films go to tensorboard, too
    :param verbose: 0 none, 1 tells of every film
    :raises ValueError: on numbers below 1, another format or another overlay
    :raises ImportError: if the packages that write films are missing
    """

    def __init__(
        self,
        eval_env: gym.Env[Any, Any] | VecEnv,
        folder: str | os.PathLike[str],
        *,
        render_freq: int = 10_000,
        n_eval_episodes: int = 1,
        max_steps: int | None = None,
        seed: int | None = None,
        deterministic: bool = True,
        captions: bool = True,
        overlay: Overlay = "none",
        name_prefix: str = "film",
        format: str = ".mp4",
        tensorboard: bool = True,
        verbose: int = 0,
    ) -> None:
        super().__init__(verbose)
        if render_freq < 1:
            raise ValueError(f"VideoCallback needs render_freq >= 1, got {render_freq}.")
        if format not in FORMATS:
            raise ValueError(f"Unknown format {format!r} of VideoCallback. Choices: {', '.join(FORMATS)}.")
        self.eval_env = eval_env if isinstance(eval_env, VecEnv) else DummyVecEnv([lambda: eval_env])
        self.folder = Path(folder)
        check_request(self.folder / f"{name_prefix}{format}", n_eval_episodes, max_steps, None, overlay)
        self.render_freq, self.tensorboard = render_freq, tensorboard
        self.name_prefix, self.format = name_prefix, format
        self._film: dict[str, Any] = dict(
            n_episodes=n_eval_episodes,
            max_steps=max_steps,
            seed=seed,
            deterministic=deterministic,
            captions=captions,
            overlay=overlay,
        )
        self._filmed_at = 0

    def _on_training_start(self) -> None:
        """
        :raises ValueError: if the environment cannot draw, or the overlay cannot be given, before anything is learned
        """
        if collects_from(self.model, self.eval_env):
            raise ValueError(
                "VideoCallback needs an environment of its own, got the one that is learned in: build a second one "
                "with the same make_env or make_vec_env."
            )
        if self._film["overlay"] == "plan":
            check_overlay(WatchedPolicy(self.model), self.eval_env)
        check_drawing(self.eval_env)
        self._filmed_at = self.num_timesteps

    def _on_step(self) -> bool:
        if self.num_timesteps - self._filmed_at >= self.render_freq:
            self._filmed_at = self.num_timesteps
            self.film()
        return True

    def film(self) -> Path:
        """Film the policy as it is now, into the file that is returned."""
        if self.model.get_vec_normalize_env() is not None:
            sync_envs_normalization(self.training_env, self.eval_env)
        path = self.folder / f"{self.name_prefix}-{self.num_timesteps:09d}{self.format}"
        record_video(self.model, self.eval_env, path, **self._film)
        self.logger.record("video/path", str(path), exclude="tensorboard")
        if self.tensorboard:
            self._show(path)
        if self.verbose:
            self.logger.log(f"filmed {path}")
        return path

    def _show(self, path: Path) -> None:
        """
        Put a film among the images of every tensorboard log.

        Stable-Baselines3's ``Video`` would do so by moviepy, which turns it into the same gif.
        """
        for output in self.logger.output_formats:
            if isinstance(output, TensorBoardOutputFormat):
                from tensorboard.compat.proto.summary_pb2 import Summary

                gif = as_gif(path, film_speed(self.eval_env), _MAX_TENSORBOARD_IMAGES)
                image = Summary.Image(encoded_image_string=gif, colorspace=3)
                summary = Summary(value=[Summary.Value(tag=f"video/{self.name_prefix}", image=image)])
                output.writer._get_file_writer().add_summary(summary, self.num_timesteps)
