"""Clouds against the simulator: a known object's surface lies where MuJoCo says."""

import importlib.util
import warnings

import gymnasium as gym
import numpy as np
import pytest

from difftori_gym.envs import SUITES, make_env
from difftori_gym.envs.rendering import select_gl_backend
from difftori_gym.wrappers import PointCloudObservation

select_gl_backend()  # before the first import of MuJoCo

# id -> shape to look at, cameras, size of the depth image
OBJECTS = {
    "dm_control/cartpole-swingup": ("cart", (0, 1), 128),
    "dm_control/reacher-easy": ("finger", (0,), 240),
    "metaworld/reach": ("objGeom", ("corner2", "topview"), 160),
    "robosuite/Lift": ("cube_g0_vis", ("agentview", "sideview"), 160),
}
TOLERANCE = 0.005  # metres


def require(id):
    for package in SUITES[id.partition("/")[0]].packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{id} needs {package}")


def simulation(env):
    return env.get_wrapper_attr("cameras")._simulation()


def distance_to_surface(points, kind, size):
    """Distance of points in a shape's own axes to its surface."""
    if kind == "box":
        outside = np.abs(points) - size
    elif kind == "sphere":
        return np.abs(np.linalg.norm(points, axis=-1) - size[0])
    elif kind == "capsule":
        along = np.clip(points[:, 2], -size[1], size[1])
        return np.abs(np.linalg.norm(points - np.stack([0 * along, 0 * along, along], -1), axis=-1) - size[0])
    else:
        assert kind == "cylinder"
        outside = np.stack([np.linalg.norm(points[:, :2], axis=-1) - size[0], np.abs(points[:, 2]) - size[1]], -1)
    return np.abs(np.linalg.norm(np.maximum(outside, 0), axis=-1) + np.minimum(outside.max(-1), 0))


@pytest.mark.parametrize("id", OBJECTS)
def test_an_objects_surface_lies_where_the_simulator_has_it(id):
    require(id)
    import mujoco

    name, cameras, size = OBJECTS[id]
    env = make_env(id, seed=2, action_repeat=1)
    env.reset()
    for _ in range(3):
        env.step(env.action_space.sample())
    model, data = simulation(env)
    shape = model.geom(name).id
    center, axes = data.geom_xpos[shape].copy(), data.geom_xmat[shape].reshape(3, 3).copy()
    kind = mujoco.mjtGeom(model.geom_type[shape]).name.removeprefix("mjGEOM_").lower()
    # Only what belongs to the object: everything else is made invisible, so that the whole cloud must lie on it.
    model.geom_rgba[np.arange(model.ngeom) != shape, 3] = 0.0
    model.geom_matid[:] = -1
    model.site_rgba[:, 3] = 0.0
    for camera in cameras:
        clouds = PointCloudObservation(env, cameras=(camera,), num_points=64, size=size)
        points = clouds.observation(None)["point_cloud"].astype(np.float64)
        assert len(np.unique(points, axis=0)) >= 20, camera
        error = distance_to_surface((points - center) @ axes, kind, model.geom_size[shape])
        assert error.max() < TOLERANCE, (camera, error.max())
        # and they are spread over the object, not one spot of it
        assert np.ptp(points, axis=0).max() > 0.5 * model.geom_size[shape][: 2 if kind != "sphere" else 1].min()
    env.close()


def box_around(env, name, margin):
    model, data = simulation(env)
    shape = model.geom(name).id
    reach = model.geom_rbound[shape] + margin
    return tuple(data.geom_xpos[shape] - reach), tuple(data.geom_xpos[shape] + reach)


@pytest.fixture
def env():
    require("dm_control/cartpole-swingup")
    env = make_env("dm_control/cartpole-swingup", seed=0)
    env.reset()
    yield env
    env.close()


def test_colours_belong_to_their_points(env):
    low, high = box_around(env, "cart", 0.0)
    cloud = PointCloudObservation(env, cameras=(0,), num_points=200, crop_low=low, crop_high=high, color=True)
    seen = cloud.observation(None)["point_cloud"]
    assert seen.shape == (200, 6)
    assert cloud.observation_space["point_cloud"].contains(seen)
    model, data = simulation(env)
    model.geom_matid[model.geom("cart").id] = -1
    model.geom_rgba[model.geom("cart").id] = (0.0, 1.0, 0.0, 1.0)
    seen = cloud.observation(None)["point_cloud"]
    inner = np.abs((seen[:, :3] - data.geom("cart").xpos) / model.geom("cart").size)
    on_cart = seen[(inner < 1.01).all(-1) & (inner[:, 2] < 0.5)]
    assert len(on_cart) > 10
    assert (on_cart[:, 4] > on_cart[:, 3] + 0.1).all()


def test_the_cloud_stays_in_its_box_and_has_no_point_twice(env):
    low, high = box_around(env, "cart", 0.1)
    cloud = PointCloudObservation(env, cameras=(0,), num_points=100, crop_low=low, crop_high=high)
    observation, _ = cloud.reset(seed=0)
    assert cloud.observation_space.contains(observation)
    assert len(np.unique(observation["point_cloud"], axis=0)) == 100
    np.testing.assert_array_equal(observation["point_cloud"], cloud.observation(None)["point_cloud"])
    np.testing.assert_allclose(observation["agent_pos"], simulation(env)[1].qpos, rtol=1e-6)


def test_an_empty_box_gives_the_same_padding_every_time_and_one_warning(env):
    box = {"crop_low": (5.0, 5.0, 5.0), "crop_high": (6.0, 7.0, 8.0)}
    cloud = PointCloudObservation(env, cameras=(0,), num_points=10, color=True, **box)
    with pytest.warns(UserWarning, match=r"cameras 0 see no point in CropBox\(low=\(5\.0, 5\.0, 5\.0\)"):
        first, _ = cloud.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        second = cloud.step(np.zeros(1, np.float32))[0]
    expected = np.tile(np.array([5.5, 6.0, 6.5, 0.0, 0.0, 0.0], np.float32), (10, 1))
    np.testing.assert_array_equal(first["point_cloud"], expected)
    np.testing.assert_array_equal(second["point_cloud"], expected)
    assert cloud.observation_space.contains(first)


def test_settings_may_be_lists_or_arrays_and_one_camera_a_name(env):
    low, high = box_around(env, "cart", 0.1)
    expected = PointCloudObservation(env, cameras=("fixed",), num_points=10, crop_low=low, crop_high=high)
    found = PointCloudObservation(
        env, cameras="fixed", num_points=10, size=[84, 84], crop_low=list(low), crop_high=np.array(high)
    )
    assert found.observation_space == expected.observation_space
    np.testing.assert_array_equal(found.reset(seed=0)[0]["point_cloud"], expected.reset(seed=0)[0]["point_cloud"])


def test_bad_settings_are_refused(env):
    with pytest.raises(ValueError, match=r"needs three numbers, x, y and z, got \(0, 0\)"):
        PointCloudObservation(env, cameras=(0,), crop_low=(0, 0))
    with pytest.raises(ValueError, match="num_points >= 1, got 0"):
        PointCloudObservation(env, cameras=(0,), num_points=0)
    with pytest.raises(ValueError, match="at least one camera, got none"):
        PointCloudObservation(env, cameras=())
    with pytest.raises(ValueError, match="crop_low < crop_high"):
        PointCloudObservation(env, cameras=(0,), crop_low=(1.0, 0.0, 0.0), crop_high=(0.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="at least 1 pixel"):
        PointCloudObservation(env, cameras=(0,), size=(84, 0))
    for size in ("84", 84.0, (84,), (84, 84, 3), (84.0, 84)):
        with pytest.raises(ValueError, match="a size of one whole number or of two, height and width, got "):
            PointCloudObservation(env, cameras=(0,), size=size)
    with pytest.raises(ValueError, match=r"^Unknown camera 'moon'\. Choices: fixed, lookatcart"):
        PointCloudObservation(env, cameras=("moon",))


def test_an_environment_without_cameras_is_refused():
    with pytest.raises(ValueError, match=r"attribute 'cameras' .* got Pendulum-v1"):
        PointCloudObservation(gym.make("Pendulum-v1"), cameras=(0,))
