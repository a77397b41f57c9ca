"""Films: real frames of a real policy, and clear words where there can be none."""

import numpy as np
import pytest
from stable_baselines3 import SAC

from difftori_gym.envs import make_env, make_vec_env
from difftori_gym.envs.rendering import gl_backend_works, select_gl_backend
from difftori_gym.video import record_video

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
    path = record_video(model, env, tmp_path / "deep" / "film.mp4", max_steps=20, seed=3)
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
def test_environments_are_shown_side_by_side(model, tmp_path):
    env = make_vec_env(TASK, 2, render_mode="rgb_array", width=64, height=64)
    frames = iio.imread(record_video(model, env, tmp_path / "film.mp4", max_steps=2))
    assert frames.shape[0] == 3
    assert frames.shape[1] * frames.shape[2] == 2 * 64 * 64
    env.close()


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
    ],
)
def test_requests_that_cannot_be_are_refused_before_the_rollout(tmp_path, name, arguments, message):
    with pytest.raises(ValueError, match=message):
        record_video(Untouched(), make_vec_env(TASK, render_mode="rgb_array"), tmp_path / name, **arguments)
