"""ManiSkill 3: manipulation and control tasks, batched on a GPU, one at a time on a CPU."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, ClassVar, NoReturn

import gymnasium as gym
import torch

from difftori_gym.envs.maniskill_batch import ManiSkillBatch
from difftori_gym.envs.maniskill_observation import PixelView, PointCloudView, StateView, View
from difftori_gym.envs.observations import checked_obs_kwargs
from difftori_gym.envs.rendering import VULKAN_REMEDY, is_vulkan_error, select_gl_backend
from difftori_gym.envs.suite import Suite
from difftori_gym.wrappers import BatchedEnv
from difftori_gym.wrappers.pixel_observation import image_size

_VIEWS: dict[str, type[View]] = {"state": StateView, "pixels": PixelView, "pointcloud": PointCloudView}

#: Tasks with one robot that need no download, tried one by one with ManiSkill 3.0.1.
TASKS: tuple[str, ...] = (
    *("DrawTriangle", "FMBAssembly1Easy", "LiftPegUpright", "MS-AntRun", "MS-AntWalk", "MS-CartpoleBalance"),
    *("MS-CartpoleSwingUp", "MS-HopperHop", "MS-HopperStand", "MS-HumanoidRun", "MS-HumanoidStand", "MS-HumanoidWalk"),
    *("PegInsertionSide", "PickCube", "PickCubeSO100", "PlaceSphere", "PlugCharger", "PokeCube", "PullCube"),
    *("PullCubeTool", "PushCube", "PushT", "RollBall"),
    *(f"RotateSingleObjectInHandLevel{level}" for level in range(2)),
    *(f"RotateValveLevel{level}" for level in range(5)),
    *("SO100GraspCube", "StackCube", "StackPyramid", "TableTopFreeDraw"),
    *(f"TriFingerRotateCubeLevel{level}" for level in range(5)),
    *("UnitreeG1PlaceAppleInBowl", "UnitreeG1Stand", "UnitreeG1TransportBox"),
)


@functools.cache
def _registered() -> dict[str, Any]:
    """:return: ManiSkill's record of every registered id"""
    select_gl_backend()  # ManiSkill imports MuJoCo, for which it has to be settled before
    import mani_skill.envs  # noqa: F401  (registers the tasks)
    from mani_skill.utils.registration import REGISTERED_ENVS

    return dict(REGISTERED_ENVS)


def _missing_assets(task: str) -> list[str]:
    """Names of downloads that the task declares and that are not there."""
    from mani_skill.utils import assets

    missing = []
    for name in _registered()[f"{task}-v1"].asset_download_ids or []:
        parts = [name]
        if name in assets.DATA_GROUPS:
            parts = list(assets.expand_data_group_into_individual_data_source_ids(name))
        if not all(assets.is_data_source_downloaded(part) for part in parts):
            missing.append(name)
    return missing


class ManiSkill(Suite):
    """Tasks of ManiSkill 3 under its names, with or without the version: ``PickCube``, ``PickCube-v1``."""

    name: ClassVar[str] = "maniskill"
    extra: ClassVar[str | None] = "maniskill"
    packages: ClassVar[tuple[str, ...]] = ("mani_skill", "sapien")
    batched: ClassVar[bool] = True

    def tasks(self) -> list[str]:
        """:return: canonical names of the tasks that need no download"""
        return list(TASKS)

    def canonical_task(self, task: str) -> str | None:
        """Takes ``PickCube`` or ``PickCube-v1``; tasks that need a download are found, too."""
        name = task.removesuffix("-v1")
        return name if f"{name}-v1" in _registered() else None

    def make_batch(
        self,
        task: str,
        num_envs: int,
        *,
        obs: str = "state",
        obs_kwargs: dict[str, Any] | None = None,
        seed: int | None = None,
        action_repeat: int = 1,
        render_mode: str | None = None,
        sim_backend: str | None = None,
        render_backend: str | None = None,
        **env_kwargs: Any,
    ) -> BatchedEnv | None:
        """
        Build environments that step together.

        :param obs_kwargs: arguments of :class:`PixelView` or :class:`PointCloudView`
        :param seed: not used: ManiSkill is seeded at reset
        :param sim_backend: ``physx_cpu`` or ``physx_cuda``; None: the GPU if there is one
        :param render_backend: ``cpu`` or ``gpu``; None: the GPU if there is one
        :param env_kwargs: those of ManiSkill, such as ``control_mode``, ``reward_mode`` and ``max_episode_steps``
        :return: the environments; None where the CPU simulates and several are wanted, which it does one by one
        :raises ValueError: for an unknown kind of observation or setting, or a task whose assets are not there
        :raises RuntimeError: without a Vulkan device, with the remedy
        """
        view = _view_of(obs, obs_kwargs)
        sim_backend = sim_backend or ("physx_cuda" if torch.cuda.is_available() else "physx_cpu")
        render_backend = render_backend or ("gpu" if torch.cuda.is_available() else "cpu")
        if num_envs > 1 and "cpu" in sim_backend:
            return None
        missing = _missing_assets(task)
        if missing:
            commands = "; ".join(f"python -m mani_skill.utils.download_asset {name}" for name in missing)
            raise ValueError(f"maniskill/{task} needs assets that are not on this machine. Run: {commands}")
        if not isinstance(view, StateView):
            height, width = image_size(view.size, "ManiSkill")
            env_kwargs = {"sensor_configs": {"height": height, "width": width}, **env_kwargs}
        try:
            source = gym.make(
                f"{task}-v1",
                num_envs=num_envs,
                obs_mode=view.obs_mode,
                sim_backend=sim_backend,
                render_backend=render_backend,
                render_mode=render_mode,
                disable_env_checker=True,
                **env_kwargs,
            )
        except (Exception, SystemExit) as error:  # what its C++ parts raise; the end after a question answered no
            _explain(task, error, env_kwargs)
        return ManiSkillBatch(source, view, action_repeat=action_repeat, render_mode=render_mode)


def _view_of(obs: str, obs_kwargs: dict[str, Any] | None) -> View:
    """What is made of ManiSkill's observations."""
    if obs not in _VIEWS:
        raise ValueError(f"Unknown obs {obs!r}. Choices: {', '.join(_VIEWS)}.")
    names = [field.name for field in dataclasses.fields(_VIEWS[obs])]
    return _VIEWS[obs](**checked_obs_kwargs(obs_kwargs, names, obs))


def _explain(task: str, error: BaseException, env_kwargs: dict[str, Any]) -> NoReturn:
    """Raise what building a task raised, as an error that says what to do."""
    if is_vulkan_error(error):
        raise RuntimeError(f"maniskill/{task} found no Vulkan device ({error}). {VULKAN_REMEDY}") from error
    if isinstance(error, (FileNotFoundError, EOFError, SystemExit)):  # the latter two after a question
        raise FileNotFoundError(
            f"maniskill/{task} needs assets that are not on this machine ({error}). "
            "See: python -m mani_skill.utils.download_asset --help"
        ) from error
    if isinstance(error, (AssertionError, NotImplementedError)):  # in which ManiSkill puts its refusals
        raise ValueError(f"ManiSkill refuses to build {task} with {env_kwargs}: {error}") from error
    raise error
