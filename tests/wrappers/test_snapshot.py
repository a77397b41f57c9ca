"""The state of an environment in the middle of an episode comes back, or it is said why it cannot."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils import EzPickle

from difftori_gym import make_env
from difftori_gym.wrappers.snapshot import NotRestorableError, restore_env, save_env


def same_future(env, other, actions):
    for action in actions:
        step, other_step = env.step(action), other.step(action)
        np.testing.assert_array_equal(step[0], other_step[0])
        assert step[1:4] == other_step[1:4]
        if step[2] or step[3]:
            np.testing.assert_array_equal(env.reset()[0], other.reset()[0])


# Their physics: constraints; contacts; a model that changes at random; a site that the task moves.
@pytest.mark.parametrize(
    ("id", "kwargs"),
    [
        ("Pendulum-v1", {}),
        ("MountainCarContinuous-v0", {}),
        ("Pendulum-v1", dict(frame_stack=3)),
        ("dm_control/cheetah-run", dict(action_repeat=8)),
        ("dm_control/reacher-easy", dict(action_repeat=25)),
        ("dm_control/hopper-stand", dict(action_repeat=8)),
        ("Ant-v5", {}),
        ("metaworld/hammer", dict(max_episode_steps=70)),
    ],
)
def test_what_follows_is_the_same_also_in_later_episodes(id, kwargs):
    env = make_env(id, seed=3, **kwargs)
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(160)]
    env.reset()
    for action in actions[:30]:
        env.step(action)
    state = save_env(env)
    other = make_env(id, seed=9, **kwargs)  # another episode, another target
    other.reset()
    for action in actions[:5]:
        other.step(action)
    restore_env(other, state)
    same_future(env, other, actions[30:] * 2)
    assert len(state) < 200_000
    restore_env(env, state)  # and back again
    restore_env(other, state)
    same_future(env, other, actions[:20])


class Forgetful(gym.Env, EzPickle):
    def __init__(self):
        EzPickle.__init__(self)


class Unpicklable(gym.Env):
    def __init__(self):
        self.generator = (i for i in range(3))


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (Forgetful(), "Forgetful defines its own pickling, which need not keep its state"),
        (Unpicklable(), "Unpicklable cannot be pickled: cannot pickle 'generator' object"),
    ],
)
def test_what_cannot_be_saved_says_why(env, message):
    with pytest.raises(NotRestorableError, match=message):
        save_env(env)


def test_other_wrappers_are_refused():
    state = save_env(make_env("Pendulum-v1"))
    with pytest.raises(ValueError, match="Expected an environment with the wrappers it was saved with"):
        restore_env(make_env("Pendulum-v1", seed=0), state)
