"""The policies of finished runs as ONNX files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from difftori_gym.card.trained import find_trained
from difftori_gym.comparison.run_record import read_runs
from difftori_gym.envs import make_vec_env
from difftori_gym.exports import export_onnx
from difftori_gym.video.film import steps_a_second

FILE = "policy.onnx"


def export_runs(out: Path) -> Iterator[Path | str]:
    """
    Write the newest model of every run as a file, with its description beside it.

    :return: the files, and what stood in the way of others, the same reason once
    """
    told: set[str] = set()
    for run in read_runs(out).values():
        if run.kind == "collect":
            continue
        folder = out / "runs" / run.name
        try:
            trained = find_trained(folder)
            with contextlib.closing(make_vec_env(str(run.task_id), 1, **trained.environment)) as env:
                rate = steps_a_second(env)  # None where the environment does not tell
            yield export_onnx(trained.load("cpu"), folder / FILE, control_hz=rate)
        except ImportError as error:
            yield f"no ONNX files: {error}"
            return
        except (ValueError, OSError) as error:
            if str(error) not in told:
                yield f"{folder.name}: {error}"
            told.add(str(error))
