"""
Runs Stable-Baselines3's and sb3-contrib's own tests on the algorithms of this package.

    python scripts/run_sb3_tests.py                       # DiffTORI and TDMPC, writes docs/sb3_tests.md
    python scripts/run_sb3_tests.py --algo DiffTORI --files test_run contrib_test_run

The tests come from the source distributions of the installed packages (``--sdist`` and ``--contrib-sdist`` name ones
that are there already). Copies of them are edited by the tables of ``sb3_tests/edits.py``, which put the algorithm
where an off-policy algorithm for continuous actions is meant; their assertions stay. What cannot be asked of it is in
``sb3_tests/not_applicable.py``, with the reason. A test that is neither run, nor listed there, nor another algorithm's
variant of such a test, is an error.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sb3_tests.edits import edited
from sb3_tests.report import report
from sb3_tests.subjects import ALGORITHMS, SMALL, SUBJECT, default

FILES = (
    "test_run",
    "test_save_load",
    "test_predict",
    "test_deterministic",
    "test_spaces",
    "test_identity",
    "test_train_eval_mode",
    "test_callbacks",
    "test_dict_env",
    "test_cnn",
    "test_vec_normalize",
    *(
        f"contrib_{name}"
        for name in (
            "test_run",
            "test_save_load",
            "test_deterministic",
            "test_train_eval_mode",
            "test_dict_env",
            "test_cnn",
        )
    ),
)
ROOT = Path(__file__).resolve().parents[1]
DOC = ROOT / "docs" / "sb3_tests.md"


def fetch_tests(package: str, sdist: Path | None, work: Path, target: Path) -> None:
    """
    :param package: whose tests are fetched, in its installed version
    :param sdist: its source distribution, None to download it
    :param work: folder for what is downloaded
    :param target: folder that the tests are copied to; the package's settings of pytest go beside it, the first ones
    """
    place = work / f"{package}-sdist"
    place.mkdir()
    if sdist is None:
        options = ["--no-binary", ":all:", "--no-deps", "--no-build-isolation", "--quiet", "--dest", str(place)]
        subprocess.run(
            [sys.executable, "-m", "pip", "download", *options, f"{package}=={version(package)}"], check=True
        )
        (sdist,) = place.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(place, filter="data")
    (tests,) = place.glob("*/tests")
    shutil.copytree(tests, target)
    if not (work / "pyproject.toml").exists():
        shutil.copy(tests.parent / "pyproject.toml", work)


def run(folder: Path, algorithm: str, files: list[str]) -> dict[str, Any]:
    """:return: for each file the outcomes of its tests, see :class:`Outcomes`"""
    work = Path(tempfile.mkdtemp(prefix=f"{algorithm}-", dir=folder))
    small = SMALL[algorithm]
    full = {name: default(algorithm, name) for name in small if name != "learning_starts"}
    module = ALGORITHMS[algorithm]
    (work / "sb3_subject.py").write_text(SUBJECT.format(module=module, name=algorithm, small=small, full=full))
    for name in files:
        test = name.removeprefix("contrib_")
        source = (folder / ("contrib" if test != name else "sb3") / f"{test}.py").read_text(encoding="utf-8")
        (work / f"{name}.py").write_text(edited(name, source, algorithm), encoding="utf-8")
    paths = os.pathsep.join([str(work), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": paths, "SB3_SUBJECT": algorithm}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "sb3_tests.plugin", "-c", str(folder / "pyproject.toml")]
    command += ["--rootdir", str(work), "-p", "no:cacheprovider", "--durations=5", "--tb=short"]
    subprocess.run([*command, *(f"{name}.py" for name in files)], cwd=work, env=environment, check=False)
    return json.loads((work / "outcomes.json").read_text())  # type: ignore[no-any-return]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algo", nargs="+", choices=ALGORITHMS, default=list(ALGORITHMS))
    parser.add_argument("--files", nargs="+", choices=FILES, default=list(FILES))
    parser.add_argument("--sdist", type=Path, help="a stable_baselines3-*.tar.gz that is here already")
    parser.add_argument("--contrib-sdist", type=Path, help="a sb3_contrib-*.tar.gz that is here already")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        fetch_tests("stable-baselines3", arguments.sdist, folder, folder / "sb3")
        if any(name.startswith("contrib_") for name in arguments.files):
            fetch_tests("sb3-contrib", arguments.contrib_sdist, folder, folder / "contrib")
        outcomes = {name: run(folder, name, arguments.files) for name in arguments.algo}
    failures = 0
    for name, files in outcomes.items():
        for file, found in files.items():
            failures += len(found["failed"])
            reasons = "; ".join(f"{count} {reason}" for reason, count in found["not_applicable"].items())
            total = sum(found["not_applicable"].values())
            print(f"{name} {file}: {found['passed']} passed, {len(found['failed'])} failed, {total} n/a ({reasons})")
            for test in found["failed"]:
                print(f"    failed: {test}")
    if arguments.algo == list(ALGORITHMS) and arguments.files == list(FILES):
        DOC.write_text(report(outcomes), encoding="utf-8")
        print(f"wrote {DOC.relative_to(ROOT)}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
