"""The policies of finished runs as ONNX files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from difftori_gym.card.trained import Trained, find_trained
from difftori_gym.comparison.run_record import read_runs
from difftori_gym.envs import make_vec_env
from difftori_gym.exports import export_onnx
from difftori_gym.video.film import steps_a_second

FILE = "policy.onnx"


def export_runs(out: Path) -> Iterator[Path | str]:
    """
    Write the newest model of every run as a file, with its description beside it.

    :param out: folder of the results
    :return: the files, and what stood in the way of others, the same reason once
    """
    told: set[str] = set()
    for run in read_runs(out).values():
        folder = out / "runs" / run.name
        if run.kind == "collect":
            continue
        try:
            trained = find_trained(folder)
            yield export_onnx(trained.load("cpu"), folder / FILE, control_hz=_rate(trained))
        except ImportError as error:
            yield f"no ONNX files: {error}"
            return
        except (ValueError, OSError) as error:
            if str(error) not in told:
                yield f"{folder.name}: {error}"
            told.add(str(error))


def _rate(trained: Trained) -> float | None:
    """Actions a second, None where the environment does not tell."""
    if trained.env is None:
        return None
    env = make_vec_env(trained.env, 1, **trained.environment)
    try:
        return steps_a_second(env)
    finally:
        env.close()
