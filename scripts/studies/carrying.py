"""Carry unfinished cells and tables to another machine and back."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from difftori_gym.checkpointing.checkpoint import list_checkpoints, steps_of
from studies.plan import Study
from studies.queue import Places, is_held
from studies.rows import add_rows, finished, read_rows
from studies.trees import link_mapped, tree_of


def export_to(folder: Path, studies: Sequence[Study], places: Places) -> None:
    """
    Write tables, unfinished cells, and the trees that they run from.

    :param folder: where to write; what lies there of an earlier export is replaced
    :param studies: of the plan
    :param places: where everything lies
    :raises ValueError: if a cell is running, or a commit is not there
    """
    cells = [cell for study in studies for cell in study.cells()]
    done = finished(cells, places.data)
    open_cells = [cell for cell in cells if cell.name not in done]
    for cell in open_cells:
        if is_held(places.lock(cell)):
            raise ValueError(f"{cell.name} is running: end its queue (SIGTERM) before it is carried away.")
    for study in studies:
        table = places.data / f"{study.name}.csv"
        if table.exists():
            _copy(table, folder / "data" / table.name)
    for name in sorted({cell.folder for cell in open_cells}):
        if (source := places.work / "cells" / name).exists():
            _copy(source, folder / "cells" / name)
    for commit in sorted({cell.study.commit for cell in open_cells}):
        tree = tree_of(commit, places.repository, places.trees)
        _copy(tree, folder / "trees" / tree.name)


def import_from(folder: Path, studies: Sequence[Study], places: Places) -> None:
    """
    Take over what :func:`export_to` wrote, here or on another machine. Of a cell that is on both, the one that is
    further stays.

    :param folder: the export
    :param studies: of the plan
    :param places: where everything lies
    :raises ValueError: if there is no export, or a cell is running
    """
    if not (folder / "cells").exists() and not (folder / "data").exists():
        raise ValueError(f"{folder} holds no export: expected folders cells/ and data/.")
    cells = [cell for study in studies for cell in study.cells()]
    for tree in sorted(folder.glob("trees/*")):
        if not (places.trees / tree.name).exists():
            _copy(tree, places.trees / tree.name)
            if not (places.trees / tree.name / "difftori_gym" / "wrappers").exists():
                link_mapped(places.trees / tree.name)  # not everything that carries files carries links
    for study in studies:
        rows = read_rows(folder / "data" / f"{study.name}.csv")
        known = {cell.key for cell in study.cells()}
        rows = [row for row in rows if row.key in known]
        if rows:
            add_rows(places.data / f"{study.name}.csv", rows, places.work / "rows.lock")
    for name in sorted({cell.folder for cell in cells}):
        source, target = folder / "cells" / name, places.work / "cells" / name
        if source.exists() and _progress(source) > _progress(target):
            held = next(cell for cell in cells if cell.folder == name)
            if is_held(places.lock(held)):
                raise ValueError(f"{name} is running here: end its queue (SIGTERM) before it is replaced.")
            _copy(source, target)


def _progress(cell: Path) -> int:
    """:return: steps of all checkpoints and finished runs in it, -1 if it is not there"""
    if not cell.exists():
        return -1
    runs = [run for run in cell.glob("runs/*") if run.is_dir()]
    newest = [steps_of(list_checkpoints(run)[-1]) for run in runs if list_checkpoints(run)]
    lines = [len((run / "results.csv").read_bytes().splitlines()) for run in runs if (run / "results.csv").exists()]
    return sum(newest) + sum(lines)


def _copy(source: Path, target: Path) -> None:
    """Copy a file or folder; the target is whole or as it was."""
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f"unfinished-{target.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    if source.is_dir():
        shutil.copytree(source, unfinished, symlinks=True, ignore=shutil.ignore_patterns(".git", "__pycache__"))
        shutil.rmtree(target, ignore_errors=True)
    else:
        shutil.copyfile(source, unfinished)
    unfinished.replace(target)
