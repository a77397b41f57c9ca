"""Everything of a card: evaluation, film, curve, text."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from difftori_gym.card.text import Run, card_text
from difftori_gym.card.trained import check_seen, environment_of, find_trained, read_subject
from difftori_gym.envs import make_vec_env
from difftori_gym.envs.observations import Observation
from difftori_gym.evaluation import evaluate
from difftori_gym.exports import export_onnx
from difftori_gym.video import record_video
from difftori_gym.video.film import steps_a_second

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CardRequest:
    """
    :param model: file of ``export`` or of ``save``, or folder of a run of examples/compare.py
    :param out: folder; README.md, the exported policy, as an ONNX file too, film and figure are written there
    :param env: ``suite/task`` or Gymnasium id to evaluate on; None: the run's, or a card without figures and film
    :param obs: kind of observation; None, here and for the next two: as in the model's run, else ``state`` and presets
    :param obs_kwargs: settings of the observation, as in ``make_env``
    :param action_repeat: environment frames per agent step
    :param episodes: evaluated, at least 1
    :param seed: of the first episode
    :param film: name of the film, ``.mp4`` or ``.gif``; None for none
    :param curve: csv of Monitor, evaluations.npz or results.csv of the training; None for no figure
    :param algorithm: name of a zip's algorithm, for zips that do not tell
    """

    model: Path
    out: Path
    env: str | None = None
    obs: Observation | None = None
    obs_kwargs: dict[str, Any] | None = None
    action_repeat: int | None = None
    episodes: int = 10
    seed: int = 0
    film: str | None = "film.mp4"
    curve: Path | None = None
    algorithm: str | None = None


def write_card(request: CardRequest, command: str) -> Path:
    """
    :param request: what to write
    :param command: that asked for it, which the card tells
    :return: the card, ``README.md`` in the folder
    :raises ValueError: if the model or the curve cannot be read, or the environment is unknown
    """
    trained = find_trained(request.model, request.algorithm)
    request.out.mkdir(parents=True, exist_ok=True)
    subject = read_subject(trained, request.out)
    files: dict[str, str] = {}
    run, rate = None, None
    env_id = request.env or trained.env
    if env_id is not None:
        asked = {"obs": request.obs, "obs_kwargs": request.obs_kwargs, "action_repeat": request.action_repeat}
        environment, guessed = environment_of(trained, asked, subject.about.observation_space, env_id)
        env = make_vec_env(env_id, 1, **environment)
        check_seen(subject.about.observation_space, env.observation_space, env_id)
        rate = steps_a_second(env)
        evaluation = evaluate(subject.policy, env, n_episodes=request.episodes, seed=request.seed)
        env.close()
        run = Run(env_id, environment, request.seed, evaluation, guessed)
        if request.film is not None:
            shown = make_vec_env(env_id, 1, render_mode="rgb_array", **environment)
            record_video(subject.policy, shown, request.out / request.film, seed=request.seed)
            shown.close()
            files["film"] = request.film
    try:
        files["onnx"] = export_onnx(subject.policy, subject.about.path.with_suffix(".onnx"), control_hz=rate).name
    except (ImportError, ValueError) as error:  # the package is missing, or the policy has no such file
        _logger.warning("no ONNX file: %s", error)
    if request.curve is not None:
        from difftori_gym.card.curve import draw_curve, read_curve  # matplotlib, which the rest does not need

        title = (subject.about.algorithm or "policy") + (f", {env_id}" if env_id else "")
        draw_curve(read_curve(request.curve), title, request.out / "curve.png")
        files["curve"] = "curve.png"
    card = request.out / "README.md"
    card.write_text(card_text(subject, run, files, command), encoding="utf-8")
    return card
