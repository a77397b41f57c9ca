"""
Write a model card.

    python -m difftori_gym.card model.safetensors --env dm_control/cartpole-swingup --episodes 10 --curve monitor.csv
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from difftori_gym.card.trained import NAMES
from difftori_gym.card.write import CardRequest, write_card
from difftori_gym.envs.observations import Observation


def parse(arguments: Sequence[str]) -> CardRequest:
    parser = argparse.ArgumentParser(
        prog="python -m difftori_gym.card", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "model",
        type=Path,
        help="file of export(); or of save(), or folder of a run of compare.py, which are unpickled: only your own",
    )
    parser.add_argument("--out", type=Path, help="folder of the card; default: MODEL's name with -card, beside it")
    parser.add_argument("--env", help="suite/task or Gymnasium id to evaluate on, default: the run's")
    parser.add_argument(
        "--obs", choices=get_args(Observation), help="what the model sees, default: the run's, or state"
    )
    parser.add_argument("--obs-kwargs", type=json.loads, help="settings of the observation as json, default: the run's")
    parser.add_argument("--action-repeat", type=int, help="frames per agent step, default: the run's or the preset")
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--film", default="film.mp4", help=".mp4 or .gif; 'none' for no film")
    parser.add_argument("--curve", type=Path, help="Monitor's csv, evaluations.npz or results.csv of the training")
    parser.add_argument("--algo", dest="algorithm", choices=NAMES, help="what a zip is that does not tell")
    found = vars(parser.parse_args(arguments))
    found["out"] = found["out"] or found["model"].with_name(f"{found['model'].stem}-card")
    found["film"] = None if found["film"] == "none" else found["film"]
    return CardRequest(**found)


def main(arguments: Sequence[str]) -> int:
    """:return: exit status"""
    request = parse(arguments)
    try:
        card = write_card(request, shlex.join(["python", "-m", "difftori_gym.card", *arguments]))
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write(f"{card}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
