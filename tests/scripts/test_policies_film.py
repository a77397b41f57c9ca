"""``scripts/policies_film.py``: a film of the length and size that was asked for, in which something moves."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "scripts" / "policies_film.py"


def test_a_policy_is_filmed(tmp_path):
    imageio = pytest.importorskip("imageio.v3")
    pytest.importorskip("imageio_ffmpeg")
    pytest.importorskip("dm_control")
    wanted = ["--policies", "reacher-easy", "--seconds", "1", "--fps", "4", "--size", "64", "48"]
    subprocess.run([sys.executable, PROGRAM, *wanted, "--out", tmp_path / "film.gif"], check=True)
    images = imageio.imread(tmp_path / "film.gif").astype(int)
    assert images.shape[:3] == (4, 48, 64)
    assert np.abs(np.diff(images, axis=0)).max(axis=(1, 2, 3)).min() > 10
