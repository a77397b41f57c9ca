"""PixelObservation with and without cameras of the suite."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from difftori_gym.wrappers import PixelObservation
from difftori_gym.wrappers.cameras import CameraPose


class Screen(gym.Env):
    """Draws its counter: red grows with it, the left half is black."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(self, render_mode="rgb_array", dtype=np.float32):
        self.render_mode = render_mode
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), dtype)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return np.zeros(2, self.observation_space.dtype), {}

    def step(self, action):
        self.count += 1
        return np.full(2, self.count, self.observation_space.dtype), 0.0, False, False, {}

    def render(self):
        image = np.zeros((12, 20, 3), np.uint8)
        image[:, 10:, 0] = 10 * (self.count + 1)
        return image


class Filmed(Screen):
    """Has two cameras, named by the grey they show, and knows where it is."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.cameras = self

    def names(self):
        return ("10", "20")

    def image(self, camera, height, width):
        return np.full((height, width, 3), int(camera), np.uint8)

    def depth(self, camera, height, width):
        return np.ones((height, width), np.float32)

    def pose(self, camera):
        return CameraPose(np.eye(3), np.zeros(3), 45.0)

    def agent_position(self):
        return np.array([1.0, 2.0, 3.0])


def test_without_a_camera_it_is_what_render_shows_averaged_over_areas():
    env = PixelObservation(Screen(), size=(6, 4))
    observation, _ = env.reset()
    assert env.observation_space == spaces.Box(0, 255, (3, 6, 4), np.uint8)
    assert env.observation_space.contains(observation)
    np.testing.assert_array_equal(observation[0], np.tile([0, 0, 10, 10], (6, 1)))
    assert not observation[1:].any()
    np.testing.assert_array_equal(env.step(np.zeros(1))[0][0], np.tile([0, 0, 20, 20], (6, 1)))


def test_cameras_are_stacked_along_the_channels():
    env = PixelObservation(Filmed(render_mode=None), size=8, camera=("20", "10"))
    observation, _ = env.reset()
    assert observation.shape == env.observation_space.shape == (6, 8, 8)
    assert (observation[:3] == 20).all()
    assert (observation[3:] == 10).all()


@pytest.mark.parametrize("camera", ["10", ["20", "10"], ("20", "10")])
@pytest.mark.parametrize("size", [8, [8, 6], np.int64(8)])
def test_cameras_and_sizes_may_come_from_json(camera, size):
    env = PixelObservation(Filmed(render_mode=None), size=size, camera=camera)
    observation, _ = env.reset()
    assert env.observation_space.contains(observation)
    assert observation.shape == (3 if camera == "10" else 6, 8, 6 if isinstance(size, list) else 8)


@pytest.mark.parametrize("size", [(8,), (8, 8, 3), 8.0, "8"])
def test_sizes_that_are_none_are_refused(size):
    with pytest.raises(ValueError, match="a size of one whole number or of two, height and width, got"):
        PixelObservation(Filmed(), size=size, camera="10")


def test_grey_is_the_mean_of_three_colours():
    env = PixelObservation(Filmed(render_mode=None), size=8, camera=("20", "10"), grey=True)
    observation, _ = env.reset()
    assert observation.shape == env.observation_space.shape == (2, 8, 8)
    assert observation.dtype == np.uint8
    assert (observation[0] == 20).all()
    assert (observation[1] == 10).all()
    red = PixelObservation(Screen(), size=(6, 4), grey=True)
    np.testing.assert_array_equal(red.reset()[0], np.tile([0, 0, 3, 3], (1, 6, 1)))


class Edge(Filmed):
    """White up to four tenths of the width."""

    def image(self, camera, height, width):
        row = np.where(np.arange(width) < 0.4 * width, 255, 0).astype(np.uint8)
        return np.broadcast_to(row[None, :, None], (height, width, 3))


@pytest.mark.parametrize(("antialias", "row"), [(1, [255, 255, 0, 0]), (5, [255, 153, 0, 0])])
def test_edges_lie_within_a_pixel_when_it_is_drawn_larger_and_averaged(antialias, row):
    env = PixelObservation(Edge(render_mode=None), size=4, camera="10", antialias=antialias)
    observation, _ = env.reset()
    np.testing.assert_array_equal(observation, np.tile(row, (3, 4, 1)))


@pytest.mark.parametrize(
    ("antialias", "camera", "message"),
    [
        (0, "10", "antialias to be a whole number of at least 1, got 0"),
        (1.5, "10", "antialias to be a whole number of at least 1, got 1.5"),
        (2, None, "antialias=2 needs a camera"),
    ],
)
def test_antialiasing_that_cannot_be_is_refused(antialias, camera, message):
    with pytest.raises(ValueError, match=message):
        PixelObservation(Edge(), size=4, camera=camera, antialias=antialias)


@pytest.mark.parametrize(("state", "expected"), [("observation", [1.0, 1.0]), ("agent", [1.0, 2.0, 3.0])])
def test_a_state_may_stand_beside_it(state, expected):
    env = PixelObservation(Filmed(), size=8, camera="10", state=state)
    env.reset()
    observation = env.step(np.zeros(1))[0]
    assert env.observation_space.contains(observation)
    np.testing.assert_array_equal(observation["state"], expected)
    assert observation["state"].dtype == np.float32
    assert (observation["pixels"] == 10).all()


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match=r"render_mode='rgb_array', got render_mode=None"):
        PixelObservation(Screen(render_mode=None))
    with pytest.raises(ValueError, match="attribute 'cameras'"):
        PixelObservation(Screen(), camera="10")


def test_states_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match=r"method agent_position\(\), got Screen"):
        PixelObservation(Screen(), state="agent")
    with pytest.raises(ValueError, match="float32 vector"):
        PixelObservation(Screen(dtype=np.float64), state="observation")
    with pytest.raises(ValueError, match=r"^Unknown state 'all'\. Choices: none, observation, agent\.$"):
        PixelObservation(Screen(), state="all")
