"""
Damage exported policies in thousands of ways, and load what comes out.

    python scripts/fuzz_export.py --files 12000

Every file must either be loaded or be refused with a ValueError, in little time and little memory. Prints one line per
kind of damage, and fails if anything else happened. File k of a seed is always the same.
"""

from __future__ import annotations

import argparse
import json
import pickle
import resource
import struct
import sys
import tempfile
import time
import warnings
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

import difftori_gym
from difftori_gym.baselines.bc import BCPolicy
from difftori_gym.baselines.diffusion_policy import DiffusionUnetPolicy
from difftori_gym.baselines.flow_matching import FlowUnetPolicy
from difftori_gym.baselines.mip import MIPUnetPolicy
from difftori_gym.baselines.tdmpc2_policies import TDMPC2Policy
from difftori_gym.il import DiffTORIImitationPolicy
from difftori_gym.il.policies import PolicySpec
from difftori_gym.rl import CnnPolicy, DiffTORIPolicy, MultiInputPolicy
from difftori_gym.rl.planning import Planner
from difftori_gym.trajopt import TrajectoryOptimizer

MAX_MIB = 64
"""Greatest growth of the process's memory over all files."""
MAX_SECONDS = 2.0
"""Greatest processor time of one file."""
KEY = "difftori_gym"
NUMBERS: tuple[Any, ...] = (
    *(0, 1, -1, 2, 7, 255, 2**16, 2**20, 2**31, 2**32, 2**62, 2**63, 2**64, 10**30, 10**400, -(2**63)),
    *(0.5, -0.5, 1e-300, 1e300, -1e300),
)
OTHERS: tuple[Any, ...] = (
    *(None, True, False, "", "x", "nan", "inf", "../../etc/passwd", "/dev/zero", "os.system", "\ud800", "a.b", "\x00"),
    *([], {}, [[]], [1], [10**9] * 3, {"a": 1}, ["x"] * 50, "x" * 5000, list(range(3000))),
)
WORDS = ("rl.CnnPolicy", "baselines.BCPolicy", "NatureCNN", "builtins.eval", "theseus", "mppi", "latent", "Box", "Dict")


class Payload:
    """What a pickle would run."""

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return (print, ("a pickle was run",))


def policies() -> list[Any]:
    """:return: small untrained policies of several kinds"""
    vector, action = spaces.Box(-8.0, np.inf, (3,)), spaces.Box(-2.0, 2.0, (1,))
    image = spaces.Box(0, 255, (1, 36, 36), np.uint8)
    both = spaces.Dict(state=vector, pixels=image)
    small: dict[str, Any] = dict(net_arch=[8], latent_dim=4)
    tdmpc = Planner(TrajectoryOptimizer(solver="mppi", num_samples=16, num_elites=4), init="warm", num_prior_samples=2)

    def schedule(_: float) -> float:
        return 1e-3

    window: dict[str, Any] = dict(n_obs_steps=2, horizon=4, n_action_steps=3)
    base = BCPolicy(vector, action, schedule, net_arch=[8], head="gmm", num_modes=2, **window)
    return [
        DiffTORIPolicy(vector, action, schedule, **small),
        DiffTORIPolicy(vector, action, schedule, planner=tdmpc, **small),
        CnnPolicy(image, action, schedule, **small),
        MultiInputPolicy(both, action, schedule, **small),
        base,
        DiffTORIImitationPolicy(
            vector, action, schedule, base=PolicySpec.of(base), init="base_policy", net_arch=[8], latent_dim=3, **window
        ),
        *(
            cls(vector, action, schedule, size="small", ema_decay=0.9, **window)
            for cls in (DiffusionUnetPolicy, FlowUnetPolicy, MIPUnetPolicy)
        ),
        TDMPC2Policy(vector, action, schedule, size="small", net_arch=[8], latent_dim=8, num_bins=5),
    ]


def split(data: bytes) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """:return: header without metadata, description, and tensors of a file"""
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    return header, json.loads(header.pop("__metadata__")[KEY]), data[8 + length :]


def join(header: dict[str, Any], description: Any, tensors: bytes) -> bytes:
    """:return: the file again"""
    text = description if isinstance(description, str) else json.dumps(description)
    return raw(json.dumps({"__metadata__": {KEY: text}, **header}), tensors)


def raw(header: str, tensors: bytes) -> bytes:
    """:return: a file with this text as its header"""
    encoded = header.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(encoded)) + encoded + tensors


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """:return: paths of all parts of a JSON value, itself not included"""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [each for key, part in items for each in [(*path, key), *places(part, (*path, key))]]


def any_value(rng: np.random.Generator) -> Any:
    """:return: something that hardly ever belongs there"""
    pool = (NUMBERS, OTHERS, WORDS)[rng.integers(3)]
    return pool[rng.integers(len(pool))]


def edit(value: Any, rng: np.random.Generator) -> None:
    """Replace, remove, add, rename or double one part of a JSON value."""
    path = (found := places(value))[rng.integers(len(found))]
    parent = value
    for key in path[:-1]:
        parent = parent[key]
    key, kind = path[-1], rng.integers(6)
    if kind == 0:
        del parent[key]
    elif kind == 1 and isinstance(parent, dict):
        parent[str(any_value(rng))[:50]] = parent.pop(key)
    elif kind == 2 and isinstance(parent, dict):
        parent["extra"] = any_value(rng)
    elif kind == 3 and isinstance(parent[key], int) and not isinstance(parent[key], bool):
        parent[key] += int(rng.integers(-3, 4))
    elif kind == 4:
        parent[key] = [parent[key]] if rng.random() < 0.5 else {"a": parent[key]}
    else:
        parent[key] = any_value(rng)


def of_description(data: bytes, rng: np.random.Generator) -> bytes:
    """One to three parts of spaces and settings."""
    header, description, tensors = split(data)
    for _ in range(rng.integers(1, 4)):
        edit(description, rng)
    return join(header, description, tensors)


def of_sizes(data: bytes, rng: np.random.Generator) -> bytes:
    """Numbers of the description only, by which networks of another size are asked for."""
    header, description, tensors = split(data)
    found = []
    for path in places(description):
        part = description
        for key in path:
            part = part[key]
        if type(part) in (int, float):
            found.append(path)
    path = found[rng.integers(len(found))]
    parent = description
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = NUMBERS[rng.integers(len(NUMBERS))] if rng.random() < 0.7 else int(rng.integers(1, len(data)))
    return join(header, description, tensors)


def of_header(data: bytes, rng: np.random.Generator) -> bytes:
    """Names, types, shapes and offsets of tensors."""
    header, description, tensors = split(data)
    for _ in range(rng.integers(1, 4)):
        edit(header, rng)
    return join(header, description, tensors)


def of_text(data: bytes, rng: np.random.Generator) -> bytes:
    """The text of the header: doubled keys, depth, words that are no JSON, characters."""
    header, description, tensors = split(data)
    text = json.dumps({"__metadata__": {KEY: json.dumps(description)}, **header})
    inner = json.dumps(description)
    kind = rng.integers(8)
    if kind == 0:
        name = list(header)[rng.integers(len(header))]
        return raw(text[:-1] + f", {json.dumps(name)}: {json.dumps(header[name])}}}", tensors)
    if kind == 1:
        return join(header, inner[:-1] + ', "version": 1}', tensors)
    depth = int(rng.integers(20, 200_000))
    if kind == 2:
        return raw('{"a":' * depth + "1" + "}" * depth, tensors)
    if kind == 3:
        return join(header, inner.replace('"settings": {', '"settings": ' + "[" * depth + "{", 1), tensors)
    if kind == 4:
        return join(header, inner.replace("1", ("NaN", "Infinity", "1e999", "9" * 5000)[rng.integers(4)], 2), tensors)
    if kind == 5:
        return raw(text + " " * int(rng.integers(1, 2_000_000)), tensors)
    position, word = int(rng.integers(len(text))), str(any_value(rng))
    return raw(text[:position] + word + text[position + (kind == 6) :], tensors)


def of_bytes(data: bytes, rng: np.random.Generator) -> bytes:
    """Single bytes anywhere, more often in the header."""
    changed = bytearray(data)
    header = 8 + struct.unpack("<Q", data[:8])[0]
    for _ in range(rng.integers(1, 9)):
        changed[rng.integers(header if rng.random() < 0.6 else len(data))] = rng.integers(256)
    return bytes(changed)


def of_length(data: bytes, rng: np.random.Generator) -> bytes:
    """Cut, continued, or another length of the header."""
    kind = rng.integers(4)
    if kind == 0:
        return data[: rng.integers(len(data))]
    if kind == 1:
        return data + rng.bytes(int(rng.integers(1, 5000)))
    if kind == 2:
        begin, count = int(rng.integers(len(data))), int(rng.integers(1, 200))
        return data[:begin] + data[begin + count :]
    return struct.pack("<Q", int(rng.integers(2**63)) >> int(rng.integers(63))) + data[8:]


def of_kind(data: bytes, rng: np.random.Generator) -> bytes:
    """Another kind of file, or one inside."""
    header, description, tensors = split(data)
    program = pickle.dumps(Payload())
    archive = BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("data", program)
        file.writestr("../../policy.pth", program)
    choices: list[Callable[[], bytes]] = [
        lambda: program,
        archive.getvalue,
        lambda: data[:8] + program + data[8 + len(program) :],
        lambda: join(header, program.decode("latin-1"), tensors),
        lambda: join(header, description, program.ljust(len(tensors), b"\0")[: len(tensors)]),
        lambda: join({f"../{name}": entry for name, entry in header.items()}, description, tensors),
        lambda: b"",
        lambda: rng.bytes(int(rng.integers(1, 4000))),
    ]
    return choices[rng.integers(len(choices))]()


DAMAGES = {
    damage.__name__: damage for damage in (of_description, of_sizes, of_header, of_text, of_bytes, of_length, of_kind)
}


@dataclass
class Findings:
    """
    :param counts: by damage, how many were loaded, refused, or something else
    :param faults: what else happened
    :param seconds: processor time of the slowest file
    """

    counts: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def note(self, index: int, damage: str, outcome: str, seconds: float) -> None:
        """Note one file."""
        known = outcome in ("loaded", "refused")
        self.counts[damage][outcome if known else "fault"] += 1
        if not known or seconds > MAX_SECONDS:
            self.faults.append(f"file {index} ({damage}): {outcome}, {seconds:.1f} s")
        self.seconds = max(self.seconds, seconds)


def judge(path: Path) -> str:
    """:return: what became of a file"""
    try:
        difftori_gym.load_export(path, device="cpu")
    except ValueError:
        return "refused"
    except BaseException as error:  # whatever it is, it is what is looked for
        return f"{type(error).__name__}: {str(error)[:200]}"
    return "loaded"


def peak_mib() -> float:
    """:return: greatest resident memory of this process so far"""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def fuzz(folder: Path, files: int, seed: int = 0, progress: Callable[[str], None] = lambda text: None) -> Findings:
    """
    :param folder: where files are written
    :param files: how many
    :param seed: of the damage
    :param progress: told how far it is
    :return: what happened
    """
    kinds = policies()
    whole = [(policy, False) for policy in kinds]
    acting = [(policy, True) for policy in kinds if getattr(policy, "training_networks", ())]
    seeds = [
        difftori_gym.export(policy, folder / f"seed{index}", acting_only=acting_only).read_bytes()
        for index, (policy, acting_only) in enumerate(whole + acting)
    ]
    for index in range(len(seeds)):
        outcome = judge(folder / f"seed{index}.safetensors")
        if outcome != "loaded":
            raise SystemExit(f"error: an undamaged file was {outcome}.")
    findings, path = Findings(), folder / "damaged.safetensors"
    for index in range(files):
        rng = np.random.default_rng([seed, index])
        name = list(DAMAGES)[index % len(DAMAGES)]
        path.write_bytes(DAMAGES[name](seeds[rng.integers(len(seeds))], rng))
        start = time.process_time()
        outcome = judge(path)
        findings.note(index, name, outcome, time.process_time() - start)
        if index % 1000 == 999:
            progress(f"{index + 1} files, {len(findings.faults)} faults")
    return findings


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=12_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        fuzz(Path(folder), len(DAMAGES), arguments.seed)  # what is imported at the first file is no file's memory
        before = peak_mib()
        findings = fuzz(Path(folder), arguments.files, arguments.seed, lambda text: print(text, flush=True))
        growth = peak_mib() - before
    print("| damage | loaded | refused | anything else |\n|---|---:|---:|---:|")
    for name, counts in findings.counts.items():
        print(f"| {DAMAGES[name].__doc__} | {counts['loaded']} | {counts['refused']} | {counts['fault']} |")
    print(f"slowest file {findings.seconds:.2f} s, memory grew by {growth:.0f} MiB (peak)")
    for fault in findings.faults[:50]:
        print(fault)
    return 1 if findings.faults or growth > MAX_MIB else 0


if __name__ == "__main__":
    sys.exit(main())
