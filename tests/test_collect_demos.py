"""The program itself, on a real task."""

import subprocess
import sys
from pathlib import Path

import pytest

from difftori_gym.il import read_minari

pytest.importorskip("h5py")
pytest.importorskip("metaworld")

SCRIPT = Path(__file__).resolve().parents[1] / "examples" / "collect_demos.py"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)


def test_states_of_a_scripted_expert(tmp_path):
    out = tmp_path / "reach"
    done = run("--task", "metaworld/reach", "--episodes", 2, "--steps-after-success", 0, "--out", out)
    assert done.returncode == 0, done.stderr
    assert f"2 episodes in {out}; expert solved 2 of 2 (100.0 %)" in done.stdout
    demonstrations = read_minari(out)
    assert demonstrations.seeds == (0, 1)
    assert all(episode.success for episode in demonstrations.episodes)
    again = run("--task", "metaworld/reach", "--episodes", 2, "--out", out)
    assert again.returncode == 2
    assert "expected no dataset, found one" in again.stderr
