"""
What an update costs at least: the products and convolutions that it makes, by phase and by network, and their time.

    python benchmarks/update_floor.py --out results/benchmarks

Every product and convolution of one round of updates, in which all that recurs has happened, is recorded as it is made,
and then made again on tensors of the same shapes and layouts that lie ready: that is the floor.
Prints the multiple of it for every learner, width and batch, and where products and time go, by phase and network.
From states the widths vary; images (finger-spin, 64 x 64 grey) and imitation (states of MetaWorld's size) are presets.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from imitation import make_models, state_demonstrations
from tables import Job, machine, medians, save_table
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from difftori_gym import DiffTORI, make_vec_env
from difftori_gym.baselines.methods import get_method
from difftori_gym.il import ImitationAlgorithm
from difftori_gym.rl import update

TASK, PIXEL_TASK = "dm_control/walker-walk", "dm_control/finger-spin"
WIDTHS, BATCHES = (128, 256, 512), (128, 256)
#: Methods of compare.py, and learners of benchmarks/imitation.py.
LEARNERS = {"DiffTORI": "difftori", "TD-MPC": "tdmpc"}
IMAGES = {f"{name}, images": method for name, method in LEARNERS.items()}
IMITATION = {"DiffTORIImitation": "difftori", "BC": "bc"}
PRESET_BATCHES = {**dict.fromkeys(IMAGES, 64), **dict.fromkeys(IMITATION, 128)}
Learner = DiffTORI | ImitationAlgorithm
_aten = torch.ops.aten
_FACTORS = {_aten.mm: (0, 1), _aten.addmm: (1, 2), _aten.bmm: (0, 1), _aten.baddbmm: (1, 2)}
_OTHER = "encoding and the rest"
# Functions and methods whose calls are a phase, in the module of the update, in its class and in the replay.
_PHASES = {
    "td_target": "targets",
    "model_loss": "model loss, forward",
    "_gradients": "model loss, backward",
    "prior_loss": "prior",
    "_step": "optimisers",
}
_PHASES_OF_UPDATER = {
    "_plan": "policy gradient",
    "_add_policy_gradient": "policy gradient",
    "_update_raw_critic": "Q-tilde",
    "_update_targets": "moving averages",
}
_PHASES_OF_REPLAY = {"sample_sequences": "sampling", "update_priorities": "sampling"}
_WITHIN = {"_gradients", "_descend"}  # inside of another phase it belongs to that


@dataclass(frozen=True)
class Product:
    """A product that was made: what makes it again, its operations, and where it belongs."""

    again: Callable[[], object]
    flop: float
    phase: str
    network: str


class Phases:
    """Where a call is, and the processor time of each phase without that of the phases inside."""

    def __init__(self) -> None:
        self.stack = [_OTHER]
        self.seconds: Counter[str] = Counter()
        self._since = time.process_time()

    def _charge(self) -> None:
        now = time.process_time()
        self.seconds[self.stack[-1]] += now - self._since
        self._since = now

    def wrapped(self, name: str, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """:return: the function, whose calls are that phase"""

        def call(*args: Any, **kwargs: Any) -> Any:
            inside = name in _WITHIN and self.stack[-1] != _OTHER
            self._charge()
            self.stack.append(self.stack[-1] if inside else phase)
            try:
                return function(*args, **kwargs)
            finally:
                self._charge()
                self.stack.pop()

        return call

    @contextmanager
    def of(self, model: Learner) -> Iterator[None]:
        """Calls are attributed as long as this is open."""
        places: list[tuple[Any, dict[str, str]]] = []
        if isinstance(model, DiffTORI):
            places = [
                (update, _PHASES),
                (model._updater, {**_PHASES_OF_UPDATER, "_descend": "prior"}),
                (model.replay_buffer, _PHASES_OF_REPLAY),
            ]
        before = [(place, name, vars(place).get(name)) for place, names in places for name in names]
        for place, names in places:
            for name, phase in names.items():
                setattr(place, name, self.wrapped(name, phase, getattr(place, name)))
        self._since = time.process_time()
        try:
            yield
        finally:
            self._charge()
            for place, name, own in before:
                delattr(place, name) if own is None else setattr(place, name, own)


class Recorder(TorchDispatchMode):
    """Notes every product and convolution."""

    def __init__(self, model: Learner, phases: Phases) -> None:
        super().__init__()
        self.products: list[Product] = []
        self._phases = phases
        # By the place of its weights a product is known, and by that of its input the product of their gradient.
        self._weights = {p.data_ptr(): name for name, each in _networks(model).items() for p in each.parameters()}
        self._inputs: dict[int, str] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        packet = func.overloadpacket
        if packet in _FACTORS:
            left, right = (args[place] for place in _FACTORS[packet])
            one, other, into = _like(left), _like(right), torch.empty(*left.shape[:-1], right.shape[-1])
            multiplied = torch.bmm if left.dim() == 3 else torch.mm
            self._note(partial(multiplied, one, other, out=into), 2.0 * left.numel() * right.shape[-1], left, right)
        elif packet in (_aten.convolution, _aten.convolution_backward):
            values = [_like(value) if isinstance(value, Tensor) else value for value in args]
            backward = packet is _aten.convolution_backward
            image, weight = args[1:3] if backward else args[:2]
            pixels = (args[0] if backward else out).numel() / weight.shape[0]  # of the output, over the batch
            flop = 2.0 * pixels * weight.numel() * (sum(args[-1][:2]) if backward else 1)
            self._note(partial(func, *values), flop, image, weight)
        return out

    def _note(self, again: Callable[[], object], flop: float, left: Tensor, right: Tensor) -> None:
        network = next((self._weights[x.data_ptr()] for x in (left, right) if x.data_ptr() in self._weights), None)
        if network is None:
            network = next((self._inputs[x.data_ptr()] for x in (left, right) if x.data_ptr() in self._inputs), None)
        else:
            self._inputs[left.data_ptr()] = network
        self.products.append(Product(again, flop, self._phases.stack[-1], network or "the planner's own copies"))


def _networks(model: Learner) -> dict[str, torch.nn.Module]:
    policy = model.policy
    if isinstance(model, ImitationAlgorithm):
        return dict(policy.network.named_children())
    return {
        "encoder": policy.encoder,
        "dynamics": policy.model.dynamics,
        "reward": policy.model.reward,
        "values": policy.model.critic,
        "prior": policy.model.actor,
        "Q-tilde": policy.raw_critic,
        "encoder, averaged": policy.encoder_target,
        "values, averaged": policy.critic_target,
        "Q-tilde, averaged": policy.raw_critic_target,
    }


def _like(tensor: Tensor) -> Tensor:
    """:return: random numbers of the same shape in the same layout"""
    span = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return torch.randn(span).as_strided(tensor.shape, tensor.stride())


def built(name: str, width: int | None = None) -> Learner:
    """A learner after a few updates: with compare.py's preset, at full horizon, its networks of that width if given."""
    if name in IMITATION:
        return make_models(state_demonstrations())[IMITATION[name]].learn(1)
    changes: dict[str, Any] = dict(learning_starts=600, buffer_size=2000, schedule_steps=0)
    if name in IMAGES:
        method, task, obs = get_method(IMAGES[name], "pixels"), PIXEL_TASK, "pixels"
        env = make_vec_env(task, obs=obs, obs_kwargs=dict(size=64, grey=True), seed=0)
    else:
        method, task, obs = get_method(LEARNERS[name]), TASK, "state"
        env = make_vec_env(task, seed=0)
        changes["policy_kwargs"] = dict(net_arch={head: [width, width] for head in ("pi", "qf", "dynamics", "reward")})
    settings = method.hyperparameters(task, changes, obs)
    model = method.build(env, seed=0, device="cpu", hyperparameters=settings)
    assert isinstance(model, DiffTORI)
    return model.learn(620)


def round_of(model: Learner) -> int:
    """Updates after which all that happens has happened."""
    if not isinstance(model, DiffTORI):
        return 1
    settings = model.update_settings
    return math.lcm(settings.pg_freq, settings.policy_delay, settings.target_update_interval)


def recorded(model: Learner, batch: int) -> list[Product]:
    """Products of one round of updates."""
    phases = Phases()
    with phases.of(model), Recorder(model, phases) as recorder:
        model.train(round_of(model), batch)
    return recorder.products


def multiply(products: list[Product]) -> None:
    """Make them again."""
    with torch.inference_mode():
        for each in products:
            each.again()


def measure(
    name: str, width: int | None, batch: int, seconds: float, rounds: int
) -> tuple[dict[str, object], list[Any]]:
    """Row of the summary, and the rows of where it goes."""
    model = built(name, width)
    count, products = round_of(model), recorded(model, batch)
    jobs: dict[str, Job] = {"products": partial(multiply, products), "update": lambda: model.train(count, batch)}
    times, _ = medians(jobs, seconds, rounds)
    floor, whole = times["products"] / count, times["update"] / count
    flop = sum(each.flop for each in products) / count
    row: dict[str, object] = dict(learner=name, width=width, batch=batch, mflop=flop / 1e6, products_ms=floor)
    row.update(gflops=flop / floor / 1e6, update_ms=whole, ratio=whole / floor)

    phases = Phases()
    with phases.of(model):
        for _ in range(rounds):
            model.train(count, batch)
    spent = {phase: 1e3 * seconds / rounds / count for phase, seconds in phases.seconds.items()}
    parts = [_part("phase", phase, [p for p in products if p.phase == phase], count, ms) for phase, ms in spent.items()]
    for network in dict.fromkeys(each.network for each in products):
        parts.append(_part("network", network, [p for p in products if p.network == network], count, None))
    parts.sort(key=lambda part: (part["by"] == "network", -part["mflop"]))
    return row, parts


def _part(by: str, name: str, products: list[Product], count: int, spent: float | None) -> dict[str, Any]:
    alone = medians({"alone": partial(multiply, products)}, 1.0, 20)[0]["alone"] / count if products else 0.0
    mflop = sum(each.flop for each in products) / count / 1e6
    return {"by": by, "part": name, "mflop": mflop, "products_ms": alone, "ms": "" if spent is None else spent}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"), help="folder of the tables")
    parser.add_argument("--seconds", type=float, default=10.0, help="measuring time per row, about")
    parser.add_argument("--rounds", type=int, default=20, help="greatest number of rounds")
    parser.add_argument("--widths", type=int, nargs="+", default=WIDTHS)
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    every = [*LEARNERS, *IMAGES, *IMITATION]
    parser.add_argument("--learners", nargs="+", choices=every, default=every)
    args = parser.parse_args()

    torch.set_num_threads(1)
    notes = [f"{TASK} at horizon 5, or presets. {machine(torch.device('cpu'))} Medians of interleaved rounds."]
    headings = {
        "learner": "learner",
        "width": "width",
        "batch": "batch",
        "mflop": "MFLOP per update",
        "products_ms": "products alone, ms",
        "gflops": "GFLOP/s of the products",
        "update_ms": "update, ms",
        "ratio": "times the floor",
    }
    part_headings = {
        "by": "by",
        "part": "part",
        "mflop": "MFLOP per update",
        "products_ms": "products alone, ms",
        "ms": "spent, ms",
    }
    rows: list[dict[str, object]] = []
    for name in args.learners:
        sizes = list(product(args.widths, args.batches)) if name in LEARNERS else [(None, PRESET_BATCHES[name])]
        for width, batch in sizes:
            row, parts = measure(name, width, batch, args.seconds, args.rounds)
            rows.append(row)
            table = save_table(rows, headings, notes, args.out, "update_floor")
            where = f"update_floor_{name.replace(', ', '_')}_{width or 'preset'}_{batch}"
            print(save_table(parts, part_headings, [f"{name}, {width or 'preset'}, batch {batch}."], args.out, where))
    print(table)


if __name__ == "__main__":
    main()
