"""Everything of a card: evaluation, film, curve, text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from difftori_gym.card.subject import read_subject
from difftori_gym.card.text import Run, card_text
from difftori_gym.envs import make_vec_env
from difftori_gym.envs.observations import Observation
from difftori_gym.evaluation import evaluate
from difftori_gym.video import record_video


@dataclass(frozen=True)
class CardRequest:
    """
    :param model: file of ``export``, or of ``save``
    :param out: folder; README.md, the exported policy, film and figure are written there
    :param env: ``suite/task`` or Gymnasium id to evaluate on; None for a card without figures and film
    :param obs: kind of observation
    :param episodes: evaluated, at least 1
    :param seed: of the first episode
    :param film: name of the film, ``.mp4`` or ``.gif``; None for none
    :param curve: csv of Monitor, evaluations.npz or results.csv of the training; None for no figure
    :param algorithm: name of a zip's algorithm, for zips that do not tell
    """

    model: Path
    out: Path
    env: str | None = None
    obs: Observation = "state"
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
    request.out.mkdir(parents=True, exist_ok=True)
    subject = read_subject(request.model, request.out, request.algorithm)
    files: dict[str, str] = {}
    run = None
    if request.env is not None:
        env = make_vec_env(request.env, 1, obs=request.obs)
        evaluation = evaluate(subject.policy, env, n_episodes=request.episodes, seed=request.seed)
        env.close()
        run = Run(request.env, request.obs, request.seed, evaluation)
        if request.film is not None:
            shown = make_vec_env(request.env, 1, obs=request.obs, render_mode="rgb_array")
            record_video(subject.policy, shown, request.out / request.film, seed=request.seed)
            shown.close()
            files["film"] = request.film
    if request.curve is not None:
        from difftori_gym.card.curve import draw_curve, read_curve  # matplotlib, which the rest does not need

        title = f"{subject.algorithm or 'policy'}" + (f", {request.env}" if request.env else "")
        draw_curve(read_curve(request.curve), title, request.out / "curve.png")
        files["curve"] = "curve.png"
    card = request.out / "README.md"
    card.write_text(card_text(subject, run, files, command), encoding="utf-8")
    return card
