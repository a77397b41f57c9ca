"""The demonstrations of a comparison: collected once, or found where the user says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from gymnasium import spaces

from difftori_gym.collection import CollectionReport, CollectionSettings, collect, make_expert
from difftori_gym.comparison.engines import Progress
from difftori_gym.comparison.files import read_json
from difftori_gym.comparison.run_record import Run
from difftori_gym.envs import TaskId
from difftori_gym.il import Demonstrations, read_maniskill, read_minari, read_robomimic

_METADATA = Path("data") / "metadata.json"


def num_collected(folder: Path) -> int:
    """:return: number of episodes in a data set of Minari's layout, which may be missing"""
    path = folder / _METADATA
    return int(read_json(path).get("total_episodes", 0)) if path.exists() else 0


def collect_demonstrations(run: Run, out: Path, report: Callable[[Progress], None]) -> None:
    """Do what is left of a collection in the folder ``out`` of all results."""
    folder = run.demonstrations_path(out)

    def tell(progress: CollectionReport) -> None:
        report(Progress("collect", progress.episodes, 0, 100.0 * progress.success_rate))

    obs: Any = run.obs
    append = (folder / _METADATA).exists()
    settings = CollectionSettings(str(run.task_id), folder, run.amount, obs=obs, append=append)
    collect(settings, make_expert(run.task_id), tell)


def find_dataset(path: Path, task: TaskId, obs: str, *, alone: bool) -> Path:
    """
    :param path: a data set in Minari's layout, an HDF5 file of robomimic or ManiSkill, or a folder that holds data sets
        named ``TASK-OBS`` or ``TASK``
    :param alone: whether it is the only task, so that ``path`` may be the data set itself
    :raises ValueError: if there is none
    """
    names = (f"{task.slug}-{obs}", task.slug, f"{task.slug}.hdf5", f"{task.slug}.h5")
    for place in (path, *(path / name for name in names)):
        if place.is_file() or (place / _METADATA).exists():
            if place == path and not alone:
                raise ValueError(f"--demos-from {path} is one data set, which serves one task: give one to --tasks.")
            return place
    raise ValueError(
        f"--demos-from {path}: expected a data set of {task}, or a folder with one named {task.slug}-{obs} or "
        f"{task.slug}, found none. examples/collect_demos.py makes them."
    )


def read_demonstrations(run: Run, out: Path, action_space: spaces.Space[Any]) -> Demonstrations:
    """
    What a run learns from, in the bounds of ``action_space`` where a file holds none.

    :raises ValueError: if there are fewer than asked for, an action lies outside the space, an episode to leave out is
        not there, they are of another task or kind of observation, or one began where an evaluation episode begins
    """
    assert isinstance(action_space, spaces.Box)  # it was checked
    path = run.demonstrations_path(out)
    if path.is_dir():
        found = read_minari(path, num_episodes=run.demos, leave_out=run.leave_out)
        if found.env_id and found.env_id != str(run.task_id):
            raise ValueError(f"{path}: expected demonstrations of {run.task_id}, got {found.env_id}.")
    else:
        # ManiSkill writes a description beside each file, robomimic writes it into the file.
        read = read_maniskill if path.with_suffix(".json").exists() else read_robomimic
        found = read(path, action_space=action_space, leave_out=run.leave_out)
        found = found if run.demos is None else found.take(run.demos)
    if found.obs and found.obs != run.obs:
        raise ValueError(f"{path}: expected obs={run.obs!r}, got {found.obs!r}: collect them again, or change --obs.")
    first, last = run.evaluation_seed, run.evaluation_seed + run.eval_episodes - 1
    if shared := [seed for seed in found.seeds if seed is not None and first <= seed <= last]:
        raise ValueError(
            f"{found.source}: expected demonstrations from other seeds than those of the evaluation, {first} to "
            f"{last}, got {shared}. Collect them with another --seed."
        )
    return found
