"""The half hour at a GPU, rehearsed: every stage at tiny sizes on a CPU, what is gone on with, and what is missing."""

import argparse
import csv
import os
import subprocess
import sys
from pathlib import Path

import gpu_evidence
import pytest
import torch
from gpu_stages import needs
from gpu_stages.seeds import side_by_side
from gpu_stages.stage import Stage
from gpu_stages.tables import Budget, Table
from gpu_stages.tree import make_importable
from studies.carrying import import_from
from studies.queue import Places
from studies.trees import tree_of

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = str(ROOT / "scripts" / "gpu_evidence.py")
CPU = torch.device("cpu")


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def stage(folder, seconds=60.0, smoke=True):
    return Stage(CPU, smoke, Budget(seconds), folder / "work", folder / "out")


@pytest.mark.slow
def test_every_stage_runs_at_tiny_sizes_and_is_not_measured_again(tmp_path, monkeypatch):
    if needs.missing("abcdef"):
        pytest.skip("not everything is installed")
    pytest.importorskip("fcntl", reason="locks of files")
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")  # compiles longer than it computes
    command = [sys.executable, SCRIPT, "--smoke", "--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    first = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert first.returncode == 0, first.stdout[-2000:] + first.stderr[-2000:]
    assert "cannot run" not in first.stdout
    tables = {path.stem: rows(path) for path in (tmp_path / "out").glob("*.csv")}
    names = "a_plans a_updates b_acting b_training b_updates c_frames c_returns d_seeds e_updates"
    assert set(tables) == set(names.split())
    assert all(tables.values())
    assert {row["way"] for row in tables["a_plans"]} == {"graph", "eager"}
    assert float(tables["b_training"][0]["hours_per_million_frames"]) > 0
    if (ROOT / ".git").exists():
        assert rows(tmp_path / "out" / "evidence" / "smoke.csv")

    again = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert again.returncode == 0, again.stdout[-2000:] + again.stderr[-2000:]
    assert {path.stem: rows(path) for path in (tmp_path / "out").glob("*.csv")} == tables


def test_rows_are_on_the_disk_and_are_gone_on_with(tmp_path):
    made = Table(tmp_path / "work", "t", ("device", "batch"), ("ms",), [tmp_path / "out"])
    made.add(device="CPU", batch=1, ms=1.23456789)
    later = Table(tmp_path / "work", "t", ("device", "batch"), ("ms",), [tmp_path / "out"])
    assert later.has(device="CPU", batch=1)
    assert not later.has(device="H100", batch=1)
    later.add(device="H100", batch=1)
    assert [row["ms"] for row in rows(tmp_path / "out" / "t.csv")] == ["1.2346", ""]
    assert "| H100 | 1 |  |" in (tmp_path / "out" / "t.md").read_text()
    with pytest.raises(ValueError, match="move it away"):
        Table(tmp_path / "work", "t", ("device",), ("ms",))


def test_a_row_is_measured_once_if_the_time_allows_and_its_failure_stops_no_other(tmp_path, capsys):
    here = stage(tmp_path)
    table = here.table("t", ("batch",), ("ms",))
    calls = []

    def measure():
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("out of something\nand more")
        return dict(ms=1.0)

    for batch in (1, 1, 2, 3):
        here.row(table, measure, 1.0, batch=batch)
    assert [row["batch"] for row in table.rows] == ["1", "3"]
    assert "cannot run: out of something" in capsys.readouterr().out

    late = stage(tmp_path, seconds=0.0, smoke=False)
    assert not late.row(table, measure, 1.0, batch=4)
    assert "no time for" in capsys.readouterr().out
    with pytest.raises(RuntimeError, match="CUDA error"):
        here.row(table, lambda: (_ for _ in ()).throw(RuntimeError("CUDA error: gone")), 1.0, batch=5)


def test_what_is_missing_is_named_with_what_to_bring(monkeypatch):
    monkeypatch.setattr(needs, "_is_there", lambda module: module not in ("mujoco", "jax"))
    assert needs.told("af") == ["missing mujoco: bring mujoco, absl-py, etils (without it not: f)"]
    assert len(needs.told("abcdef")) == 2
    assert "torch " in needs.versions()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_that_is_not_there_is_one_line(capsys):
    assert gpu_evidence.main(["--stages", "a"]) == 2
    assert "finds no CUDA device here" in capsys.readouterr().err
    assert gpu_evidence.main(["--stages", "a", "--device", "cpu"]) == 2
    assert "needs --smoke" in capsys.readouterr().err


def test_a_stage_that_cannot_run_says_so_in_one_line(tmp_path, monkeypatch, capsys):
    def refuse(name):
        raise ModuleNotFoundError("No module named 'jax'\nmore")

    monkeypatch.setattr(gpu_evidence.importlib, "import_module", refuse)
    values = argparse.Namespace(device="cpu", smoke=True, minutes=1.0, work=tmp_path, out=tmp_path)
    assert not gpu_evidence.run_stage("c", values)
    assert capsys.readouterr().out == "stage c cannot run: No module named 'jax'\n"


def test_a_stage_without_time_measures_nothing(tmp_path, capfd):
    values = argparse.Namespace(device="cpu", minutes=0.0, work=tmp_path / "work", out=tmp_path / "out")
    assert gpu_evidence.run_apart("d", values)
    assert "no time for" in capfd.readouterr().out
    assert not (tmp_path / "work" / "d_seeds.csv").exists()


def test_a_stage_that_is_late_is_ended(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(gpu_evidence, "LATE_S", 0.1)
    values = argparse.Namespace(device="cpu", minutes=0.0, work=tmp_path / "work", out=tmp_path / "out")
    assert not gpu_evidence.run_apart("d", values)
    assert "was late and was ended" in capfd.readouterr().out


def test_a_checkout_is_imported_without_an_installation(tmp_path, monkeypatch):
    for part in ("difftori_gym/models", "wrappers", "baselines"):
        (tmp_path / part).mkdir(parents=True)
        (tmp_path / part / "__init__.py").write_text(f"name = {part!r}")
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    for _ in range(2):
        place = make_importable(tmp_path)
        assert (place / "difftori_gym" / "wrappers" / "__init__.py").read_text() == "name = 'wrappers'"
        assert {path.name for path in (place / "difftori_gym").iterdir()} == {"models", "wrappers", "baselines"}
    assert sys.path[0] == str(place)
    assert os.environ["PYTHONPATH"].split(os.pathsep) == [str(place), str(place), "/elsewhere"]


def test_the_output_folder_is_that_of_the_environment(monkeypatch):
    monkeypatch.setenv("OUT", "/somewhere")
    assert gpu_evidence.parse_arguments([]).out == Path("/somewhere")
    monkeypatch.delenv("OUT")
    assert gpu_evidence.parse_arguments([]).out == ROOT / "results" / "gpu"
    assert gpu_evidence.parse_arguments(["--smoke"]).device == "cpu"


def test_seeds_side_by_side_learn_what_each_learns_alone():
    together, inputs = side_by_side(3, 16, 4, CPU, horizon=2)
    alone = [side_by_side(3, 16, 4, CPU, horizon=2)[0] for _ in range(3)]
    for _ in range(3):
        (losses,) = together(inputs)
        for seed, step in enumerate(alone):
            # What the others see must not matter.
            own = [tensor.clone() for tensor in inputs]
            for tensor in own:
                tensor[[other for other in range(3) if other != seed]] *= 0.5
            torch.testing.assert_close(step(own)[0][seed], losses[seed])
    assert len({round(float(loss), 6) for loss in losses}) == 3


def test_a_tree_that_was_carried_without_its_links_gets_them(tmp_path):
    tree = tmp_path / "export" / "trees" / "0123456789ab"
    for part in ("difftori_gym", "wrappers", "baselines"):
        (tree / part).mkdir(parents=True)
        (tree / part / "__init__.py").touch()
    (tmp_path / "export" / "data").mkdir()
    places = Places(tmp_path, tmp_path / "data", tmp_path / "work")
    import_from(tmp_path / "export", [], places)
    assert tree_of("0123456789ab", tmp_path, places.trees) == places.trees / tree.name
    assert (places.trees / tree.name / "difftori_gym" / "baselines" / "__init__.py").exists()
