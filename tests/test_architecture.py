"""
The import ladder of docs/architecture.md, checked on the source: arrows between parts, and no circles of files.

Every import statement counts, also inside functions and under TYPE_CHECKING, as does
``importlib.import_module`` with a constant name.
"""

import ast
from collections.abc import Container, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "difftori_gym"
# folder in the repository -> package it is installed as
FOLDERS = {"difftori_gym": PACKAGE, "wrappers": f"{PACKAGE}.wrappers", "baselines": f"{PACKAGE}.baselines"}

# area -> the other areas it may import. An area is a folder or module directly under difftori_gym.
OBSERVATIONS = {"observations"}
LEARNING = {"learning", "models", "trajopt", *OBSERVATIONS}
MAY_IMPORT: dict[str, set[str]] = {
    "trajopt": set(),
    "observations": set(),
    "models": OBSERVATIONS,
    "learning": {"trajopt", "observations"},
    "data": set(),
    "wrappers": OBSERVATIONS,
    "checkpointing": {"wrappers"},
    "rl": LEARNING,
    "il": LEARNING,
    "baselines": {"rl", "il", "wrappers", *LEARNING},
    "exports": {"baselines", "checkpointing", "il", "rl", *LEARNING},
    "envs": {"observations", "wrappers"},
    "training_environment": set(),
    "evaluation": {"envs", "training_environment", "wrappers"},
    "video": {"envs", "evaluation", "training_environment", "wrappers"},
    "collection": {"baselines", "envs", "il", "observations", "wrappers"},
    "comparison": {
        "baselines",
        "card",
        "checkpointing",
        "collection",
        "data",
        "envs",
        "evaluation",
        "exports",
        "il",
        "rl",
        "video",
        "wrappers",
        *LEARNING,
    },
    "card": {"baselines", "checkpointing", "envs", "evaluation", "exports", "il", "observations", "rl", "video"},
    "zoo": {"baselines", "envs"},
    # difftori_gym/__init__.py gathers the public names.
    "": {
        "baselines",
        "checkpointing",
        "comparison",
        "envs",
        "evaluation",
        "exports",
        "il",
        "rl",
        "video",
        "wrappers",
        *LEARNING,
    },
}

# third-party package -> where alone it may be imported: module names below difftori_gym, with all
# that lies under them. A package that is not listed may be imported anywhere but in trajopt.
MUJOCO_SUITES = (
    "envs.mujoco_cameras",
    "envs.planned_path",
    "envs.mujoco_state",
    "envs.dm_control",
    "envs.metaworld",
    "envs.robosuite",
    "envs.gymnasium",
    "envs.playground_batch",
)
ONLY_IN: dict[str, tuple[str, ...]] = {
    "theseus": ("trajopt.theseus_backend",),
    "torchlie": ("trajopt.theseus_backend",),
    "dm_control": ("envs.dm_control",),
    "dm_env": ("envs.dm_control",),
    "shimmy": ("envs.dm_control",),
    "mujoco": MUJOCO_SUITES,
    "metaworld": ("envs.metaworld",),
    "mani_skill": ("envs.maniskill", "envs.maniskill_experts"),
    "sapien": ("envs.maniskill",),
    "robosuite": ("envs.robosuite",),
    "gym_pusht": ("envs.pusht",),
    "h5py": ("il.formats.hdf5",),
    "mujoco_playground": ("envs.playground",),
    "jax": ("envs.playground_batch",),
    "imageio": ("video",),
    "rl_zoo3": ("zoo",),
    "optuna": ("zoo",),
    "yaml": ("zoo",),
    "matplotlib": ("comparison", "card"),
    "pandas": ("comparison",),
    "plotly": ("comparison.page",),
    "onnx": ("exports.onnx", "exports.export_onnx"),
    "ray": ("comparison.engines.ray", "comparison.engines.node"),
    "submitit": ("comparison.engines.slurm", "comparison.engines.node"),
    "fsspec": ("comparison.engines.storage",),
}
# trajopt is torch and the standard library.
NOT_IN_TRAJOPT = {"gymnasium", "numpy", "scipy", "stable_baselines3"}
NEVER = {"examples", "benchmarks", "tests", "scripts"}
BARE = {"wrappers", "baselines"}
FORBIDDEN_NAMES = {"util", "utils", "helper", "helpers", "misc", "common"}
MAX_MODULE_LINES = 400


class Import(NamedTuple):
    path: Path
    line: int
    importer: str
    target: str


def modules(root: Path) -> Iterator[tuple[Path, str]]:
    """The library's files with the names they are imported by."""
    for folder, package in FOLDERS.items():
        for path in sorted((root / folder).rglob("*.py")):
            parts = path.relative_to(root / folder).with_suffix("").parts
            yield path, ".".join([package, *(part for part in parts if part != "__init__")])


def imports_of(path: Path, module: str) -> Iterator[Import]:
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), filename=str(path))):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                anchor = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*anchor, *([base] if base else [])])
            # "from package import name" may name a module or something inside the package.
            targets = [f"{base}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in {
            "importlib.import_module",
            "import_module",
            "__import__",
        }:
            targets = [
                arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant) and isinstance(arg.value, str)
            ]
        else:
            continue
        for target in targets:
            yield Import(path, node.lineno, module, target)


def area_of(module: str) -> str:
    """The part of the package a module lies in; "" is the package's own ``__init__``."""
    return [*module.split("."), ""][1]


def inside(module: str, places: tuple[str, ...]) -> bool:
    below = module.removeprefix(f"{PACKAGE}.")
    return any(below == place or below.startswith(f"{place}.") for place in places)


def fault_of(found: Import) -> str | None:
    """What is wrong with an import, or None."""
    top = found.target.split(".")[0]
    source = area_of(found.importer)
    if source not in MAY_IMPORT:
        return f"{source!r} has no place on the ladder yet: give it one here and in docs/architecture.md"
    if top != PACKAGE:
        if top in NEVER:
            return f"nobody imports {top}"
        if top in BARE:
            return f"write {PACKAGE}.{top}: the bare name exists only in the repository's root"
        if top in ONLY_IN and not inside(found.importer, ONLY_IN[top]):
            return f"{top} may be imported only in {', '.join(ONLY_IN[top])}"
        if source == "trajopt" and top in NOT_IN_TRAJOPT:
            return f"trajopt stands on torch alone, not on {top}"
        return None
    target = area_of(found.target)
    if target == source:
        return None
    if not target or target not in MAY_IMPORT:
        return f"{found.target}: import from the module that defines it; {PACKAGE} itself is for users"
    if target not in MAY_IMPORT[source]:
        return f"{source or PACKAGE} may not import {target}"
    return None


def faults(root: Path) -> list[str]:
    found = []
    for path, module in modules(root):
        for each in imports_of(path, module):
            fault = fault_of(each)
            if fault:
                found.append(f"{path.relative_to(root)}:{each.line}: {fault}")
    return found


def circles(root: Path) -> list[list[str]]:
    """Groups of files of which each is reached from each other one, in one part of the package or across parts."""
    known = {module: path for path, module in modules(root)}
    arrows = {
        module: {file_of(found.target, known) for found in imports_of(path, module)} - {"", module}
        for module, path in known.items()
    }
    reached = {module: reachable(module, arrows) for module in known}
    groups = {tuple(sorted(other for other in reached[module] if module in reached[other])) for module in known}
    return [list(group) for group in sorted(groups) if len(group) > 1]


def file_of(target: str, known: Container[str]) -> str:
    """The file an import reads: the module itself, or the one that defines the name; "" for none of ours."""
    while target and target not in known:
        target = target.rpartition(".")[0]
    return target


def reachable(module: str, arrows: dict[str, set[str]]) -> set[str]:
    seen, waiting = set(), [module]
    while waiting:
        for target in arrows[waiting.pop()] - seen:
            seen.add(target)
            waiting.append(target)
    return seen


def prints(root: Path) -> list[str]:
    return [
        f"{path.relative_to(root)}:{node.lineno}: print in the library"
        for path, _ in modules(root)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]


def vague_names(root: Path) -> list[str]:
    return [module for _, module in modules(root) if FORBIDDEN_NAMES & set(module.split("."))]


def long_modules(root: Path) -> list[str]:
    lengths = {module: len(path.read_text(encoding="utf-8").splitlines()) for path, module in modules(root)}
    return [f"{module}: {lines} lines" for module, lines in lengths.items() if lines > MAX_MODULE_LINES]


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_the_tree_is_seen():
    seen = {module for _, module in modules(ROOT)}
    assert {PACKAGE, f"{PACKAGE}.trajopt", f"{PACKAGE}.rl", f"{PACKAGE}.wrappers", f"{PACKAGE}.baselines"} <= seen


def test_no_import_leaves_the_ladder():
    assert faults(ROOT) == []


def test_no_files_import_each_other_in_a_circle():
    assert circles(ROOT) == []


def test_the_library_does_not_print():
    assert prints(ROOT) == []


def test_no_vague_module_names():
    assert vague_names(ROOT) == []


def test_modules_stay_readable():
    assert long_modules(ROOT) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("difftori_gym/trajopt/solver.py", "import gymnasium"),
        ("difftori_gym/trajopt/solver.py", "from stable_baselines3.common import policies"),
        ("difftori_gym/trajopt/solver.py", "import theseus as th"),
        ("difftori_gym/trajopt/solver.py", "from difftori_gym.models import latent"),
        ("difftori_gym/trajopt/solver.py", "from ..models.latent import LatentModel"),
        ("difftori_gym/trajopt/solver.py", "from .. import models"),
        ("difftori_gym/trajopt/__init__.py", "from ..models import latent"),
        ("difftori_gym/models/latent.py", "from difftori_gym.trajopt import TrajectoryOptimizer"),
        ("difftori_gym/models/latent.py", "from difftori_gym import TrajectoryOptimizer"),
        ("difftori_gym/models/latent.py", "import difftori_gym"),
        ("difftori_gym/rl/difftori.py", "from difftori_gym.il import losses"),
        ("difftori_gym/il/difftori.py", "from difftori_gym.rl import losses"),
        ("difftori_gym/rl/difftori.py", "def f():\n    from difftori_gym.envs import make_env\n    return make_env"),
        ("difftori_gym/rl/difftori.py", "if TYPE_CHECKING:\n    from difftori_gym.baselines import TDMPC"),
        ("difftori_gym/rl/difftori.py", "import importlib\nimportlib.import_module('difftori_gym.envs')"),
        ("difftori_gym/rl/difftori.py", "import difftori_gym.wrappers.repeat"),
        ("difftori_gym/rl/difftori.py", "import dm_control"),
        ("difftori_gym/rl/difftori.py", "from tests import conftest"),
        ("difftori_gym/rl/difftori.py", "import wrappers"),
        ("difftori_gym/rl/difftori.py", "from matplotlib import pyplot"),
        ("difftori_gym/envs/make.py", "import shimmy"),
        ("difftori_gym/envs/make.py", "from difftori_gym.rl import DiffTORI"),
        ("difftori_gym/envs/make.py", "from difftori_gym.baselines import TDMPC"),
        ("difftori_gym/comparison/run.py", "from examples import compare"),
        ("difftori_gym/brand_new.py", "import torch"),
        ("wrappers/repeat.py", "from difftori_gym.rl import DiffTORI"),
        ("wrappers/repeat.py", "from ..models import latent"),
        ("wrappers/repeat.py", "import mujoco"),
        ("baselines/tdmpc.py", "from difftori_gym.envs import make_env"),
        ("baselines/tdmpc/__init__.py", "from ...comparison import run"),
    ],
)
def test_a_forbidden_arrow_is_found(tmp_path, name, text):
    write(tmp_path, name, text)
    assert len(faults(tmp_path)) == 1


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("difftori_gym/trajopt/theseus_backend.py", "def f():\n    import theseus\n    return theseus"),
        ("difftori_gym/trajopt/solver.py", "import torch\nfrom .solution import Solution\nfrom ..trajopt import mppi"),
        ("difftori_gym/rl/difftori.py", "from ..models import latent\nfrom difftori_gym.trajopt import Solution"),
        ("difftori_gym/envs/dm_control.py", "import shimmy\nfrom difftori_gym.wrappers import ActionRepeat"),
        ("difftori_gym/comparison/plots.py", "import matplotlib\nfrom difftori_gym.baselines import TDMPC"),
        ("difftori_gym/__init__.py", "from .rl import DiffTORI\nfrom difftori_gym.video import record_video"),
        ("wrappers/__init__.py", "from .repeat import ActionRepeat\nimport gymnasium"),
        ("baselines/tdmpc/policies.py", "from ...rl import DiffTORI\nfrom . import mppi"),
    ],
)
def test_an_allowed_arrow_passes(tmp_path, name, text):
    write(tmp_path, name, text)
    assert faults(tmp_path) == []


@pytest.mark.parametrize(
    "last",
    [
        "from difftori_gym.rl import losses",
        "from . import losses",
        "from difftori_gym.rl.losses import Loss",
        "if TYPE_CHECKING:\n    from difftori_gym.rl.losses import Loss",
        "def f():\n    from .losses import Loss\n    return Loss",
    ],
)
def test_a_circle_is_found(tmp_path, last):
    write(tmp_path, "difftori_gym/rl/__init__.py", "from difftori_gym.rl.difftori import DiffTORI")
    write(tmp_path, "difftori_gym/rl/difftori.py", "import torch\nfrom difftori_gym.rl.policies import Policy")
    write(tmp_path, "difftori_gym/rl/losses.py", "from difftori_gym.rl.policies import Policy")
    write(tmp_path, "difftori_gym/rl/policies.py", "from torch import nn")
    assert circles(tmp_path) == []
    write(tmp_path, "difftori_gym/rl/policies.py", last)
    assert circles(tmp_path) == [["difftori_gym.rl.losses", "difftori_gym.rl.policies"]]


def test_a_room_that_imports_itself_by_its_public_names_is_a_circle(tmp_path):
    write(tmp_path, "difftori_gym/rl/__init__.py", "from .difftori import DiffTORI")
    write(tmp_path, "difftori_gym/rl/difftori.py", "from difftori_gym.rl import DiffTORI")
    assert circles(tmp_path) == [["difftori_gym.rl", "difftori_gym.rl.difftori"]]


def test_the_other_rules_can_fail(tmp_path):
    write(tmp_path, "difftori_gym/rl/utils.py", "def f():\n    print('hello')\n")
    write(tmp_path, "wrappers/long.py", "x = 1\n" * (MAX_MODULE_LINES + 1))
    assert prints(tmp_path) == ["difftori_gym/rl/utils.py:2: print in the library"]
    assert vague_names(tmp_path) == ["difftori_gym.rl.utils"]
    assert long_modules(tmp_path) == ["difftori_gym.wrappers.long: 401 lines"]
