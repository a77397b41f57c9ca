"""What is installed is what lies in the tree, and importing it asks for nothing optional."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {"difftori_gym": "difftori_gym", "wrappers": "difftori_gym.wrappers", "baselines": "difftori_gym.baselines"}
OPTIONAL = ("dm_control", "imageio", "matplotlib", "mujoco", "pandas", "plotly", "shimmy", "theseus")


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A wheel, built from a copy: a build leaves files behind that a later one would pack."""
    source = tmp_path_factory.mktemp("source")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    out = tmp_path_factory.mktemp("wheel")
    arguments = ["--no-build-isolation", "--no-deps", "--no-index", "--wheel-dir", str(out), str(source)]
    run([sys.executable, "-m", "pip", "wheel", "--quiet", *arguments])
    (built,) = out.glob("*.whl")
    return built


def run(command: list[str], **settings) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **settings)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_list_of_packages_is_the_tree(project):
    tree = set()
    for folder, package in FOLDERS.items():
        for directory in {path.parent for path in (ROOT / folder).rglob("*.py")}:
            assert (directory / "__init__.py").exists(), f"{directory} holds modules but no __init__.py"
            tree.add(".".join([package, *directory.relative_to(ROOT / folder).parts]))
    assert sorted(project["tool"]["setuptools"]["packages"]) == sorted(tree)


def test_the_wheel_holds_every_file(wheel):
    packed = set(zipfile.ZipFile(wheel).namelist())
    for folder, package in FOLDERS.items():
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in {".css", ".csv", ".html", ".js", ".py", ".typed"}:
                assert f"{package.replace('.', '/')}/{path.relative_to(ROOT / folder)}" in packed
    assert "difftori_gym/py.typed" in packed
    assert not [name for name in packed if name.startswith(("wrappers/", "baselines/", "tests/"))]


def test_the_wheel_works_away_from_the_repository(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    program = (
        "import difftori_gym, difftori_gym.wrappers as w, difftori_gym.baselines as b; print(w.__file__, b.__file__)"
    )
    out = run([sys.executable, "-c", program], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert out.split() == [str(tmp_path / "difftori_gym" / name / "__init__.py") for name in ("wrappers", "baselines")]


def test_the_core_import_needs_no_extra():
    program = (
        "import sys, difftori_gym, difftori_gym.wrappers, difftori_gym.baselines\n"
        f"print([name for name in {OPTIONAL} if name in sys.modules])"
    )
    assert run([sys.executable, "-c", program], cwd="/") == "[]\n"


def test_versions_agree(project):
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"version: {project['project']['version']}\n" in citation


def test_constraints_pin_every_requirement_of_the_extras(project):
    pinned = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE))
    extras = project["project"]["optional-dependencies"]
    for requirement in [*project["project"]["dependencies"], *(each for extra in extras.values() for each in extra)]:
        name = re.split(r"[\[<>=]", requirement)[0]
        assert name in pinned | {"difftori-gym"}, f"{requirement} is not in constraints.txt: run make constraints"


def test_torch_is_pinned_without_a_local_version():
    assert re.search(r"^torch==\d+\.\d+\.\d+$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize(
    ("user", "sudo", "expected"),
    [
        ("0", False, "apt-get could not install them"),
        ("1000", False, "needs root"),
        ("1000", True, "could not install"),
    ],
)
def test_missing_system_packages_are_named_in_a_line_each(tmp_path, user, sudo, expected):
    """Without the libraries, and with an apt-get that fails, the set-up goes on."""
    for name, body in {
        "ldconfig": "exit 0",
        "uname": "echo Linux",
        "id": f"echo {user}",
        "apt-get": "exit 100",
        "sudo": 'shift; exec "$@"' if sudo else "exit 1",
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        ["sh", str(ROOT / "scripts" / "system_packages.sh")],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    drawing, vulkan = done.stderr.splitlines()
    assert "libgl1 libegl1 libglib2.0-0 libx11-6" in drawing
    assert "libvulkan1 and mesa-vulkan-drivers" in vulkan
    assert expected in drawing
    assert expected in vulkan
