"""
What the latent states of models of cartpole-swingup from pixels contain: position, angle and velocities.

    python benchmarks/latent_readout.py --models results/cartpole-pixels/runs/*/checkpoint-*/model.zip

Random play in which the cart stays in the picture, drawn as the long run of docs/results_pixels.md sees it. Of the
first five sixths a ridge regression with 300 random features of the latent states is fitted to the simulator's state;
the table has R2 on the last sixth. Beside the models there is one that was not trained, and the preset's convolutions,
trained to name these numbers.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from gymnasium import spaces
from tables import save_table
from torch import Tensor, nn

from difftori_gym import DiffTORI, make_env
from difftori_gym.models import ImageEncoder

QUANTITIES = ("position", "cosine of the angle", "sine", "velocity of the cart", "of the pole")
OBS_KWARGS = {"size": 64, "grey": True, "antialias": 3}
CONVOLUTIONS = {"kernels": [8, 4, 3], "strides": [4, 2, 1], "whiten": True, "squash": True}


def random_play(count: int) -> tuple[Tensor, Tensor]:
    """:return: images ``[count, 3, 64, 64]``, uint8, and the quantities ``[count, 5]``, of unit variance"""
    env = make_env("dm_control/cartpole-swingup", obs="pixels", obs_kwargs=OBS_KWARGS, seed=0)
    physics = env.get_wrapper_attr("_physics")
    rng = np.random.default_rng(0)
    images, states = [], []
    push, steps = 0.0, 60
    while len(images) < count:
        if steps == 60:  # another place to start from
            env.reset()
            with physics.reset_context():
                physics.data.qpos[:] = rng.uniform(-1, 1), rng.uniform(-np.pi, np.pi)
                physics.data.qvel[:] = rng.uniform(-1, 1), rng.uniform(-6, 6)
            steps = 0
        position, velocity = physics.data.qpos[0], physics.data.qvel[0]
        push = 0.8 * push + 0.6 * rng.normal()
        action = np.clip(push - position - 0.5 * velocity, -1, 1)  # towards the middle
        image, *_ = env.step(np.array([action], np.float32))
        steps += 1
        position, angle = physics.data.qpos
        if steps > 3 and abs(position) < 1.6:  # all frames of the stack are of this play
            images.append(image)
            states.append([position, np.cos(angle), np.sin(angle), *physics.data.qvel])
    env.close()
    known = torch.tensor(np.array(states), dtype=torch.float32)
    return torch.from_numpy(np.array(images)), (known - known.mean(0)) / known.std(0)


def r_squared(predicted: Tensor, known: Tensor) -> list[float]:
    """:return: share of the variance that is explained, for each column"""
    return (1 - (predicted - known).square().mean(0) / known.var(0)).tolist()


@torch.no_grad()
def read_out(encode: Callable[[Tensor], Tensor], images: Tensor, known: Tensor) -> list[float]:
    """:return: R2 of a regression on latent states and random features of them"""
    z = torch.cat([encode(part) for part in images.split(250)])
    z = (z - z.mean(0)) / (z.std(0) + 1e-6)
    generator = torch.Generator().manual_seed(0)
    mixed = z @ torch.randn(z.shape[1], 300, generator=generator) / z.shape[1] ** 0.5
    phase = 2 * torch.pi * torch.rand(300, generator=generator)
    features = torch.cat([z, torch.cos(mixed + phase), torch.ones(len(z), 1)], dim=1)
    train = 5 * len(z) // 6
    fitted = features[:train]
    weights = torch.linalg.solve(fitted.T @ fitted + torch.eye(fitted.shape[1]), fitted.T @ known[:train])
    return r_squared(features[train:] @ weights, known[train:])


def of_model(model: DiffTORI, images: Tensor, known: Tensor) -> list[float]:
    """:return: R2 of what its latent states contain"""
    policy = model.policy
    policy.set_training_mode(False)
    return read_out(lambda part: policy.encoder(policy.preprocess(part.to(model.device))).cpu(), images, known)


def supervised(images: Tensor, known: Tensor, updates: int) -> list[float]:
    """:return: R2 of convolutions that were trained to name the quantities, 64 images per update"""
    torch.manual_seed(0)
    encoder = ImageEncoder(spaces.Box(0, 255, tuple(images.shape[1:]), np.uint8), **CONVOLUTIONS)
    network = nn.Sequential(encoder, nn.Linear(encoder.features_dim, 256), nn.ELU(), nn.Linear(256, known.shape[1]))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    train = 5 * len(images) // 6
    for _ in range(updates):
        rows = torch.randint(0, train, (64,))
        loss = (network(images[rows].float() / 255) - known[rows]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()
    with torch.no_grad():
        named = torch.cat([network(part.float() / 255) for part in images[train:].split(250)])
    return r_squared(named, known[train:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, nargs="*", default=[], help="saved by DiffTORI, of images as above")
    parser.add_argument("--images", type=int, default=6000)
    parser.add_argument("--updates", type=int, default=500, help="of the supervised convolutions")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"), help="default: results/benchmarks")
    args = parser.parse_args()
    images, known = random_play(args.images)
    env = make_env("dm_control/cartpole-swingup", obs="pixels", obs_kwargs=OBS_KWARGS, seed=0)
    untrained = DiffTORI(
        "CnnPolicy", env, buffer_size=10, seed=0, policy_kwargs={"features_extractor_kwargs": CONVOLUTIONS}
    )
    found = {"not trained": of_model(untrained, images, known)}
    for path in args.models:
        found[str(path.parent.name)] = of_model(DiffTORI.load(path), images, known)
    found[f"supervised, {args.updates} updates"] = supervised(images, known, args.updates)
    rows = [{"model": name, **dict(zip(QUANTITIES, values, strict=True))} for name, values in found.items()]
    headings = {name: name for name in ("model", *QUANTITIES)}
    print(save_table(rows, headings, [f"R2 on a sixth of {args.images} images."], args.out, "latent_readout"))


if __name__ == "__main__":
    main()
