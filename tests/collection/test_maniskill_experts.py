"""ManiSkill's motion planner demonstrates; needs a Vulkan device."""

import pytest

from difftori_gym.collection import CollectionSettings, collect, make_expert
from difftori_gym.envs import parse_task
from difftori_gym.envs.maniskill_experts import motion_planner
from difftori_gym.envs.rendering import VULKAN_REMEDY, vulkan_works
from difftori_gym.il import read_minari

pytest.importorskip("h5py")
pytest.importorskip("mplib")


@pytest.mark.skipif(not vulkan_works("cpu"), reason=f"no Vulkan device on this machine. {VULKAN_REMEDY}")
@pytest.mark.filterwarnings("ignore")  # many of ManiSkill, sapien and the planner
def test_push_cube(tmp_path):
    task = parse_task("maniskill/PushCube")
    settings = CollectionSettings(str(task), tmp_path / "push", episodes=1, max_attempts=2)
    collect(settings, make_expert(task))
    demonstrations = read_minari(tmp_path / "push")
    assert demonstrations.action_space.shape == (8,)
    (episode,) = demonstrations.episodes
    assert episode.success is True
    assert 10 < len(episode) < 300


def test_other_tasks():
    with pytest.raises(ValueError, match=r"maniskill/PushT has no motion-planning solution. Choices: LiftPegUpright"):
        motion_planner("PushT")
