"""The scripted experts of Lift and Can solve their tasks, whatever the agent sees."""

import numpy as np
import pytest

from difftori_gym.collection import CollectionSettings, collect, make_expert
from difftori_gym.envs import parse_task
from difftori_gym.envs.robosuite_experts import scripted_expert
from difftori_gym.il import read_minari

pytest.importorskip("h5py")
pytest.importorskip("robosuite")


def test_lift_while_the_agent_sees_clouds(tmp_path):
    settings = CollectionSettings(
        "robosuite/Lift", tmp_path / "lift", episodes=1, obs="pointcloud", steps_after_success=0, max_attempts=1
    )
    assert collect(settings, make_expert(parse_task("robosuite/Lift"))).successes == 1
    (episode,) = read_minari(tmp_path / "lift").episodes
    assert len(episode) < 80
    assert episode.observations["point_cloud"].shape == (len(episode) + 1, 1024, 3)
    assert episode.rewards[-1] == 1.0


def test_can_from_the_state_alone(tmp_path):
    task = parse_task("robosuite/Can")
    settings = CollectionSettings(str(task), tmp_path / "can", episodes=1, steps_after_success=0, max_attempts=1)
    assert collect(settings, make_expert(task)).successes == 1
    (episode,) = read_minari(tmp_path / "can").episodes
    assert len(episode) < 200
    # A feedback law: asked again, in any order, it answers the same.
    expert = scripted_expert("Can")
    for t in np.random.default_rng(0).permutation(len(episode))[:20]:
        np.testing.assert_allclose(episode.actions[t], expert(episode.observations[t]), atol=1e-5)


def test_other_tasks():
    with pytest.raises(ValueError, match=r"robosuite/Square has no scripted expert. Choices: Lift, Can"):
        scripted_expert("robosuite/Square")
