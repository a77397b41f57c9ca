"""Films during training."""

import numpy as np
import pytest
from stable_baselines3 import A2C
from stable_baselines3.common.vec_env import VecNormalize

from difftori_gym import VideoCallback
from difftori_gym.envs import make_vec_env

pytest.importorskip("pygame")
pytest.importorskip("imageio_ffmpeg")
iio = pytest.importorskip("imageio.v3")


def test_films_are_made_every_so_many_steps_and_shown_in_tensorboard(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    env = make_vec_env("Pendulum-v1", 2, seed=0)
    eval_env = make_vec_env("Pendulum-v1", render_mode="rgb_array")
    callback = VideoCallback(eval_env, tmp_path / "films", render_freq=20, max_steps=3, seed=5, format=".gif")
    A2C("MlpPolicy", env, seed=0, device="cpu", tensorboard_log=str(tmp_path)).learn(50, callback)
    names = sorted(path.name for path in (tmp_path / "films").iterdir())
    assert names == ["film-000000020.gif", "film-000000040.gif"]
    assert len(iio.imread(tmp_path / "films" / names[0])) == 4
    (run,) = tmp_path.glob("A2C_*")
    events = accumulator.EventAccumulator(str(run), size_guidance={"images": 0}).Reload()
    shown = events.Images("video/film")
    assert [image.step for image in shown] == [20, 40]
    assert all(image.encoded_image_string.startswith(b"GIF89a") for image in shown)
    frames = iio.imread(shown[0].encoded_image_string, extension=".gif")
    assert len(frames) == 4
    assert np.ptp(frames) > 100


def test_it_follows_the_normalisation_of_the_training_environments(tmp_path):
    env = VecNormalize(make_vec_env("Pendulum-v1", seed=0))
    eval_env = VecNormalize(make_vec_env("Pendulum-v1", render_mode="rgb_array"), training=False, norm_reward=False)
    callback = VideoCallback(eval_env, tmp_path, render_freq=30, max_steps=2, tensorboard=False)
    A2C("MlpPolicy", env, seed=0, device="cpu").learn(30, callback)
    assert [path.name for path in tmp_path.iterdir()] == ["film-000000030.mp4"]
    np.testing.assert_allclose(eval_env.obs_rms.mean, env.obs_rms.mean)


def test_an_environment_that_cannot_draw_is_refused_before_training(tmp_path):
    model = A2C("MlpPolicy", make_vec_env("Pendulum-v1"), device="cpu")
    callback = VideoCallback(make_vec_env("Pendulum-v1"), tmp_path / "films")
    with pytest.raises(ValueError, match="render_mode='rgb_array', got render_mode=None"):
        model.learn(10, callback)
    assert model.num_timesteps == 0


def test_an_overlay_that_cannot_be_given_is_refused_before_training(tmp_path):
    model = A2C("MlpPolicy", make_vec_env("Pendulum-v1"), device="cpu")
    callback = VideoCallback(make_vec_env("Pendulum-v1", render_mode="rgb_array"), tmp_path / "films", overlay="plan")
    with pytest.raises(ValueError, match="overlay='plan' needs a policy that plans"):
        model.learn(10, callback)
    assert model.num_timesteps == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"render_freq": 0}, "render_freq >= 1, got 0"),
        ({"n_eval_episodes": 0}, "n_episodes >= 1, got 0"),
        ({"max_steps": 0}, "max_steps >= 1 or None, got 0"),
        ({"overlay": "path"}, r"Unknown overlay 'path'\. Choices: none, plan"),
        ({"format": ".avi"}, r"Unknown format '\.avi' of VideoCallback\. Choices: \.mp4, \.gif"),
    ],
)
def test_requests_that_cannot_be_are_refused(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        VideoCallback(make_vec_env("Pendulum-v1"), tmp_path, **arguments)
