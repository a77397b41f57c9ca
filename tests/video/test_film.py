"""Films: real frames of a real policy, and clear words where there can be none."""

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import SAC
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecFrameStack, VecNormalize

from difftori_gym.envs import make_env, make_vec_env
from difftori_gym.envs.rendering import gl_backend_works, select_gl_backend
from difftori_gym.video import film, record_video
from difftori_gym.video.drawing import Caption, write_caption
from difftori_gym.video.files import as_gif, film_writer
from difftori_gym.wrappers import PixelObservation
from difftori_gym.wrappers.pixel_observation import as_picture

select_gl_backend()  # before the first import of MuJoCo
pytest.importorskip("dm_control")
pytest.importorskip("imageio_ffmpeg")
iio = pytest.importorskip("imageio.v3")

TASK = "dm_control/cartpole-swingup"
# imageio's reader leaves the pipes of its process to the garbage collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <_io.FileIO:pytest.PytestUnraisableExceptionWarning"
)
needs_opengl = pytest.mark.skipif(
    not (gl_backend_works("egl") or gl_backend_works("osmesa")), reason="MuJoCo cannot draw on this machine"
)


@pytest.fixture(scope="module")
def model():
    return SAC("MlpPolicy", make_vec_env(TASK, seed=0), policy_kwargs={"net_arch": [8]}, seed=0, device="cpu")


@pytest.fixture
def env():
    env = make_vec_env(TASK, render_mode="rgb_array", width=96, height=64)
    yield env
    env.close()


def drawn(model, steps, seed):
    """The images an environment gives when it is stepped by hand."""
    env = make_env(TASK, render_mode="rgb_array", width=96, height=64)
    observation, _ = env.reset(seed=seed)
    images = [env.render()]
    for _ in range(steps):
        observation, *_ = env.step(model.predict(observation, deterministic=True)[0])
        images.append(env.render())
    env.close()
    return np.array(images)


@needs_opengl
def test_the_film_shows_the_policys_rollout(model, env, tmp_path):
    path = record_video(model, env, tmp_path / "deep" / "film.mp4", max_steps=20, seed=3, captions=False)
    frames = iio.imread(path)
    expected = drawn(model, 20, seed=3)
    assert frames.shape == expected.shape == (21, 64, 96, 3)
    # Compression may blur; the order and the content must be right.
    assert np.abs(frames.astype(float) - expected).mean() < 4
    assert np.abs(expected[0].astype(float) - expected[20]).mean() > 0
    assert [file.name for file in path.parent.iterdir()] == ["film.mp4"]


@needs_opengl
def test_a_film_plays_at_the_speed_of_the_world(model, env, tmp_path):
    path = record_video(model, env, tmp_path / "film.mp4", max_steps=5)
    assert iio.immeta(path)["fps"] == pytest.approx(25)  # 0.01 s per frame, action repeat 4


@needs_opengl
def test_a_gif_of_several_short_episodes(model, env, tmp_path):
    path = record_video(model, env, tmp_path / "film.gif", n_episodes=2, max_steps=4, seed=0)
    assert iio.imread(path).shape[1:] == (64, 96, 3)
    # Frames that look alike are stored once and shown for longer.
    shown = [iio.immeta(path, index=index)["duration"] for index in range(len(iio.imread(path)))]
    assert sum(shown) == pytest.approx(2 * 5 * min(shown))
    assert len(shown) > 5


@needs_opengl
def test_odd_sizes_and_a_single_environment_are_filmed(model, tmp_path):
    env = make_env(TASK, render_mode="rgb_array", width=75, height=51)
    frames = iio.imread(record_video(model, env, tmp_path / "film.mp4", max_steps=2))
    assert frames.shape == (3, 52, 76, 3)
    env.close()


@needs_opengl
def test_environments_are_tiled(model, tmp_path):
    env = make_vec_env(TASK, 3, seed=0, render_mode="rgb_array", width=64, height=48)
    frames = iio.imread(record_video(model, env, tmp_path / "film.mp4", seed=3, max_steps=6, captions=False))
    assert frames.shape == (7, 2 * 48, 2 * 64, 3)
    for tile, (top, left) in enumerate([(0, 0), (0, 64), (48, 0)]):
        shown = frames[:, top : top + 48, left : left + 64].astype(float)
        alone = make_env(TASK, render_mode="rgb_array", width=64, height=48)
        observation, _ = alone.reset(seed=3 + tile)
        for _ in range(6):
            observation, *_ = alone.step(model.predict(observation, deterministic=True)[0])
        assert np.abs(shown[-1] - alone.render()).mean() < 6
        alone.close()
    assert frames[:, 48:, 64:].max() < 16
    env.close()


class Counting(gym.Env):
    """Draws the number of its step as a brightness, and ends after ``length`` of them, solved at its second one."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012
    observation_space = gym.spaces.Box(0, 100, (1,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    render_mode = "rgb_array"

    def __init__(self, length):
        self.length = length

    def reset(self, *, seed=None, options=None):
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        info = {"is_success": self.steps == 2}
        return np.full(1, self.steps, np.float32), 1.5, self.steps >= self.length, False, info

    def render(self):
        return np.full((64, 64, 3), 20 * self.steps, np.uint8)


class Still:
    """A policy without a critic."""

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return np.zeros((len(observation), 1), np.float32), None


def test_an_episode_that_is_over_keeps_its_last_picture_until_all_are(tmp_path):
    env = DummyVecEnv([lambda: Counting(3), lambda: Counting(6)])
    frames = iio.imread(record_video(Still(), env, tmp_path / "film.mp4", captions=False)).astype(float)
    left, right = frames[:, 10:54, 10:54].mean((1, 2, 3)) / 20, frames[:, 10:54, 74:118].mean((1, 2, 3)) / 20
    np.testing.assert_allclose(left, [0, 1, 2, 2, 2, 2, 2], atol=0.2)
    np.testing.assert_allclose(right, [0, 1, 2, 3, 4, 5, 5], atol=0.2)


def test_captions_tell_step_return_and_success_once_latched(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(film, "write_caption", lambda image, caption: written.append(caption) or image)
    record_video(Still(), DummyVecEnv([lambda: Counting(3), lambda: Counting(4)]), tmp_path / "film.mp4")
    first, second = written[::2], written[1::2]
    assert [caption.step for caption in first] == [0, 1, 2, 3, 3]
    assert [caption.total for caption in second] == [0, 1.5, 3, 4.5, 6]
    assert [caption.solved for caption in first] == [False, False, True, True, True]
    assert {caption.value for caption in written} == {None}  # nothing expects anything here
    assert written[0].words() == ["step 0", "return 0.0"]
    assert second[-1].words() == ["step 4", "return 6.0", "success"]


def test_returns_are_the_environments_own_under_vec_normalize(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(film, "write_caption", lambda image, caption: written.append(caption) or image)
    record_video(Still(), VecNormalize(DummyVecEnv([lambda: Counting(4)])), tmp_path / "film.mp4", max_steps=2)
    assert [caption.total for caption in written] == [0, 1.5, 3]


def test_captions_are_drawn_and_fit():
    image = np.full((84, 84, 3), 200, np.uint8)
    plain = write_caption(image, Caption(3, 12.0))
    solved = write_caption(image, Caption(3, 12.0, "plan", 41.5, solved=True))
    assert (image == 200).all()
    assert plain.shape == solved.shape == image.shape
    assert (plain[60:] == 200).all()
    assert (solved[60:] == 200).all()
    # More lines, and green letters for the success.
    assert (solved != 200).any(-1).sum() > (plain != 200).any(-1).sum()
    green = (solved[..., 1].astype(int) - solved[..., 0] > 60).sum()
    assert green > 10
    assert (plain[..., 1].astype(int) - plain[..., 0] > 60).sum() == 0


@needs_opengl
def test_a_failure_leaves_no_file(env, tmp_path):
    class Broken:
        def predict(self, *args, **kwargs):
            raise RuntimeError("broken policy")

    with pytest.raises(RuntimeError, match="broken policy"):
        record_video(Broken(), env, tmp_path / "film.mp4")
    assert list(tmp_path.iterdir()) == []


class Untouched:
    """Fails the test when it is asked for an action."""

    def predict(self, *args, **kwargs):
        raise AssertionError("the rollout began")


def test_an_environment_that_cannot_draw_is_refused_before_the_rollout(tmp_path):
    with pytest.raises(ValueError, match=r"render_mode='rgb_array', got render_mode=None\. Use make_env"):
        record_video(Untouched(), make_vec_env(TASK), tmp_path / "film.mp4")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("film.avi", {}, r"writes \.mp4 or \.gif, got 'film\.avi'"),
        ("film", {}, r"writes \.mp4 or \.gif, got 'film'"),
        ("film.mp4", {"n_episodes": 0}, "n_episodes >= 1, got 0"),
        ("film.mp4", {"max_steps": 0}, "max_steps >= 1 or None, got 0"),
        ("film.mp4", {"fps": 0}, "fps > 0, got 0"),
        ("film.mp4", {"overlay": "path"}, "Unknown overlay 'path'. Choices: none, plan"),
        ("film.mp4", {"overlay": "plan"}, r"needs a policy that plans \(DiffTORI, TDMPC, TDMPC2\)"),
    ],
)
def test_requests_that_cannot_be_are_refused_before_the_rollout(tmp_path, name, arguments, message):
    with pytest.raises(ValueError, match=message):
        record_video(Untouched(), make_vec_env(TASK, render_mode="rgb_array"), tmp_path / name, **arguments)


WRAPPED = {
    "itself": lambda env: DummyVecEnv([lambda: env]),
    "VecNormalize": lambda env: VecNormalize(DummyVecEnv([lambda: env])),
    "frames stacked": lambda env: VecFrameStack(VecNormalize(DummyVecEnv([lambda: env])), 2),
    "own processes": lambda env: VecNormalize(SubprocVecEnv([lambda: env], start_method="fork")),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_a_film_takes_its_time_behind_every_wrapper(name):
    env = WRAPPED[name](Counting(3))
    assert film.film_speed(env) == 10
    env.close()


def test_a_film_takes_its_time_where_wrappers_of_others_skip_frames():
    skipping = gym.wrappers.MaxAndSkipObservation(Counting(3), skip=5)
    assert film.film_speed(VecNormalize(DummyVecEnv([lambda: skipping]))) == 2


@pytest.mark.parametrize("fps", [12.5, 30, 80, 100])
@pytest.mark.parametrize("ending", [".mp4", ".gif"])
def test_gifs_take_as_long_as_the_film(tmp_path, fps, ending):
    path = tmp_path / f"film{ending}"
    with film_writer(path, fps) as writer:
        for brightness in np.arange(60) * 4:
            writer.append_data(np.full((32, 32, 3), brightness, np.uint8))
    gifs = [as_gif(path, fps, 100), as_gif(path, fps, 20), *([path.read_bytes()] if ending == ".gif" else [])]
    for gif in gifs:
        durations = [
            iio.immeta(gif, extension=".gif", index=index)["duration"]
            for index in range(len(iio.imread(gif, extension=".gif")))
        ]
        assert min(durations) >= 20  # less is shown for longer
        assert sum(durations) / 1000 == pytest.approx(60 / fps, abs=0.02)


class Drawing(Counting):
    """Draws what it is given."""

    def __init__(self, image):
        super().__init__(2)
        self.image = image

    def render(self):
        return self.image


@pytest.mark.parametrize(
    "image",
    [
        np.full((16, 16, 3), 128, np.uint8),
        np.full((16, 16, 3), 128, np.int64),
        np.full((16, 16, 3), 128, np.uint16),
        np.full((16, 16, 3), 0.5, np.float32),
        np.full((16, 16, 3), 0.5, np.float64),
        np.full((16, 16, 3), 0.5, np.float16),
    ],
    ids=lambda image: image.dtype.name,
)
def test_pictures_of_every_kind_of_number(image, tmp_path):
    frames = iio.imread(record_video(Still(), Drawing(image), tmp_path / "film.gif", captions=False))
    assert np.abs(frames.astype(float) - 128).max() <= 2
    seen = PixelObservation(Drawing(image), size=16)
    observation, _ = seen.reset()
    assert np.abs(observation.astype(float) - 128).max() <= 1


def test_truth_values_and_rounded_ends_are_pictures():
    np.testing.assert_array_equal(as_picture(np.ones((2, 2, 3), bool)), 255)
    np.testing.assert_array_equal(as_picture(np.full((2, 2, 3), 1.0001, np.float32)), 255)
    np.testing.assert_array_equal(as_picture(np.full((2, 2, 3), -0.0001, np.float32)), 0)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.full((16, 16, 3), 128.0), r"floats in \[0, 1\], got float64 from 128.0 to 128.0: return uint8"),
        (np.full((16, 16, 3), -0.5), r"got float64 from -0.5"),
        (np.full((16, 16, 3), np.nan), r"got float64 from nan"),
        (np.full((16, 16, 3), 300), r"whole numbers 0 to 255 or floats in \[0, 1\], got int64 from 300 to 300"),
        (np.full((16, 16, 3), -1), r"got int64 from -1"),
        (np.full((16, 16, 3), "a"), r"images of numbers, got <U1"),
        (np.full((16, 16), 3, np.uint8), r"shape \[height, width, 3\], got \[16, 16\]"),
        (None, r"shape \[height, width, 3\], got no image"),
    ],
)
def test_pictures_that_would_be_wrong_are_refused(image, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        record_video(Untouched(), Drawing(image), tmp_path / "film.gif")
    with pytest.raises(ValueError, match=message):
        PixelObservation(Drawing(image), size=16).reset()


def test_a_seed_may_be_numpys(tmp_path):
    assert record_video(Still(), Counting(2), tmp_path / "film.gif", seed=np.int64(3)).exists()
    with pytest.raises(ValueError, match="record_video needs seed >= 0, or None, got -1"):
        record_video(Untouched(), Counting(2), tmp_path / "film.gif", seed=-1)
