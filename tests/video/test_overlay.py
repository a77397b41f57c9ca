"""Planned paths on films."""

import numpy as np
import pytest

from difftori_gym import DiffTORI, record_video
from difftori_gym.envs import make_vec_env
from difftori_gym.envs.rendering import gl_backend_works, select_gl_backend
from difftori_gym.video import film
from difftori_gym.video.drawing import draw_path

select_gl_backend()  # before the first import of MuJoCo
pytest.importorskip("dm_control")
pytest.importorskip("imageio_ffmpeg")
needs_opengl = pytest.mark.skipif(
    not (gl_backend_works("egl") or gl_backend_works("osmesa")), reason="MuJoCo cannot draw on this machine"
)


def planner(env):
    model = DiffTORI("MlpPolicy", env, horizon=3, policy_kwargs={"net_arch": [8]}, seed=0, device="cpu")
    model.policy.horizon = 3
    return model


@needs_opengl
def test_the_film_shows_where_the_simulator_takes_the_plan(tmp_path, monkeypatch):
    env = make_vec_env("dm_control/cartpole-swingup", 2, seed=0, render_mode="rgb_array", width=96, height=64)
    drawn = []
    monkeypatch.setattr(film, "draw_path", lambda image, pixels: drawn.append(pixels) or draw_path(image, pixels))
    record_video(planner(env), env, tmp_path / "film.gif", max_steps=3, seed=0, overlay="plan")
    assert len(drawn) == 2 * 3
    for pixels in drawn:
        assert pixels.shape == (1 + 3 * 4, 2)  # three actions, each repeated four times
        assert np.isfinite(pixels).all()
    # The first of the three planned actions was executed: the next path begins where it led.
    first, second, third = drawn[::2]
    np.testing.assert_allclose(second[0], first[4], atol=1e-9)
    np.testing.assert_allclose(third[0], second[4], atol=1e-9)
    env.close()


def test_a_path_goes_from_yellow_to_red_and_skips_what_is_out_of_sight():
    image = np.zeros((60, 80, 3), np.uint8)
    path = np.array([[10.0, 30.0], [40.0, 30.0], [70.0, 30.0]])
    drawn = draw_path(image, path)
    assert (image == 0).all()
    assert drawn[30, 20, 1] > drawn[30, 60, 1] > 0
    assert drawn[30, 60, 0] == 255
    assert (drawn[:25] == 0).all()
    assert (drawn[36:] == 0).all()
    assert (draw_path(image, np.full((3, 2), np.nan)) == 0).all()
    assert (draw_path(image, path[:1]) == 0).all()
    assert draw_path(image, np.array([[10.0, 30.0], [1e12, 30.0]]))[30, 70, 0] == 255


def test_a_suite_that_cannot_follow_a_plan_is_refused_before_the_rollout(tmp_path):
    env = make_vec_env("Pendulum-v1", render_mode="rgb_array")
    with pytest.raises(ValueError, match=r"metaworld/\* and the common domains of dm_control/\*"):
        record_video(planner(env), env, tmp_path / "film.mp4", overlay="plan")
    assert list(tmp_path.iterdir()) == []
