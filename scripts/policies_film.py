"""
Film trained policies of examples/policies side by side, each from its own start, in real time.

    python scripts/policies_film.py --out docs/figures/policies.gif
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import imageio.v3 as imageio
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from difftori_gym.video.drawing import tile, write_caption

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
POLICIES = ["cheetah-run", "quadruped-run", "walker-run", "quadruped-walk", "reacher-easy", "cartpole-swingup-sparse"]
COLORS = 128


def filmed(policy: str, args: argparse.Namespace, folder: str) -> NDArray[np.uint8]:
    """:return: images ``[N, height, width, 3]`` of a policy, so many a second as asked for"""
    path = Path(folder, f"{policy}.mp4")
    command = [sys.executable, EXAMPLES / "record_video.py", "--policy", policy, "--out", path, "--no-captions"]
    command += ["--pretty", "--width", args.size[0], "--height", args.size[1], "--max-steps", 50 * args.seconds]
    subprocess.run([str(word) for word in command], check=True)
    images, fps = imageio.imread(path), imageio.immeta(path)["fps"]
    wanted = np.arange(args.seconds * args.fps) * fps / args.fps
    caption: Any = SimpleNamespace(words=lambda: [policy])
    return np.stack([write_caption(images[min(int(number), len(images) - 1)], caption) for number in wanted])


def main(arguments: list[str]) -> None:
    """:param arguments: command line without the program"""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policies", nargs="+", default=POLICIES, metavar="NAME", help=" ".join(POLICIES))
    parser.add_argument("--out", type=Path, required=True, help="gif to write")
    parser.add_argument("--seconds", type=int, default=4, help="length of the film")
    parser.add_argument("--fps", type=int, default=10, help="images per second")
    parser.add_argument("--size", type=int, nargs=2, default=(160, 120), metavar=("W", "H"), help="of one picture")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        films = [filmed(policy, args, folder) for policy in args.policies]
    pictures = [tile(images) for images in zip(*films, strict=True)]
    # One palette and no dithering: what stands still is stored once.
    palette = Image.fromarray(np.concatenate(pictures[:: args.fps])).quantize(COLORS)
    first, *others = [
        Image.fromarray(picture).quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures
    ]
    first.save(args.out, save_all=True, append_images=others, duration=1000 / args.fps, loop=0, optimize=True)
    print(args.out)


if __name__ == "__main__":
    main(sys.argv[1:])
