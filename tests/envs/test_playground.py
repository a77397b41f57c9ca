"""MuJoCo Playground's control suite as batched tensors. One small task is compiled for the whole file."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

# Before JAX is imported: these tests compile longer than they compute.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import numpy as np
import pytest
import torch
from stable_baselines3.common.env_checker import check_env

from difftori_gym.envs import make_env, make_vec_env, parse_task
from difftori_gym.wrappers import SingleEnv, TensorVecEnv

jax = pytest.importorskip("jax")
TASK = "playground/pendulum-swingup"
LENGTH = 7  # frames, with steps of 2: the last step of an episode takes one


@pytest.fixture(scope="module")
def vec_env():
    env = make_vec_env(TASK, n_envs=3, seed=5, action_repeat=2, episode_length=LENGTH, render_mode="rgb_array")
    yield env
    env.close()


@pytest.fixture(autouse=True)
def as_new(request):
    if "vec_env" in request.fixturenames:
        request.getfixturevalue("vec_env").seed(5)


def pushed(vec_env, count):
    return np.full((vec_env.num_envs, 1), 0.3 * (-1) ** count, np.float32)


def test_names_are_those_of_dm_control_and_its_own():
    for name in ("cartpole-swingup", "CartpoleSwingup", "cartpole_swingup"):
        assert str(parse_task(f"playground/{name}")) == "playground/cartpole-swingup"
    assert str(parse_task("playground/BallInCup")) == "playground/cup-catch"
    assert str(parse_task("playground/PointMass")) == "playground/point-mass-easy"
    with pytest.raises(ValueError, match=r"Unknown task 'quadruped-walk' of playground\. Choices: humanoid-walk, "):
        make_env("playground/quadruped-walk")


def test_an_unknown_camera_is_refused_at_once():
    with pytest.raises(ValueError, match=r"Unknown camera 'moon'\. Choices: "):
        make_env(TASK, render_mode="rgb_array", camera_id="moon")


def test_only_the_control_suite_is_imported_and_the_rest_still_can_be():
    code = (
        "import sys, os\n"
        "os.environ['XLA_FLAGS'] = '--xla_force_host_platform_device_count=1'\n"
        "from difftori_gym.envs.playground import Playground\n"
        "assert not {'jax', 'mujoco', 'mujoco_playground'} & set(sys.modules)\n"
        "assert len(Playground().tasks()) == 25\n"
        "assert 'mujoco_playground' not in sys.modules\n"
        "assert not any('locomotion' in name for name in sys.modules)\n"
        "assert os.environ['XLA_PYTHON_CLIENT_PREALLOCATE'] == 'false'\n"
        "assert os.environ['XLA_FLAGS'].startswith('--xla_force_host_platform_device_count=1 --xla_cpu_multi')\n"
        "print('alright')"
    )
    package = Path(importlib.util.find_spec("mujoco_playground").submodule_search_locations[0])
    before = sorted(package.rglob("*.xml"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "alright", done.stderr[-2000:]
    assert sorted(package.rglob("*.xml")) == before


def test_a_batch_is_a_tensor_vec_env(vec_env):
    assert isinstance(vec_env, TensorVecEnv)
    assert vec_env.observation_space.shape == (3,)
    assert (vec_env.action_space.low, vec_env.action_space.high) == (-1.0, 1.0)
    observations = vec_env.reset()
    assert observations.dtype == np.float32
    assert len(np.unique(observations[:, 0])) == 3


def test_torch_and_jax_share_their_memory(vec_env):
    observations = vec_env.reset_tensor()
    batch = vec_env.batch
    assert observations.data_ptr() == batch._progress.state.obs.unsafe_buffer_pointer()
    from difftori_gym.envs import playground_batch

    actions = torch.rand(3, 1)
    assert playground_batch._to_jax(actions).unsafe_buffer_pointer() == actions.data_ptr()
    odd = torch.rand(7)[1:4, None]  # not aligned: the one case in which a few bytes are copied
    np.testing.assert_array_equal(np.asarray(playground_batch._to_jax(odd)), odd.numpy())

    outcomes = []
    original = batch._advance
    batch._advance = lambda *args: outcomes.append(original(*args)) or outcomes[-1]
    try:
        step = vec_env.step_tensor(actions)
    finally:
        batch._advance = original
    _, outcome = outcomes[0]
    for tensor, array in (
        (step.observations, outcome.final_observations),
        (step.final_observations, outcome.final_observations),
        (step.rewards, outcome.rewards),
        (step.terminated, outcome.terminated),
        (step.frames, outcome.frames),
    ):
        assert tensor.data_ptr() == array.unsafe_buffer_pointer()


def test_episodes_end_at_the_limit_and_start_anew(vec_env):
    vec_env.reset()
    rewards, seen = [], []
    for count in range(4):
        observations, reward, dones, infos = vec_env.step(pushed(vec_env, count))
        rewards.append(reward)
        seen.append(observations)
        assert dones.all() == (count == 3)
    assert [info["frames"] for info in infos] == [1, 1, 1]
    assert all(info["TimeLimit.truncated"] for info in infos)
    assert [info["episode"]["l"] for info in infos] == [4, 4, 4]
    np.testing.assert_allclose([info["episode"]["r"] for info in infos], np.sum(rewards, axis=0), rtol=1e-5)
    # One frame before the end the pendulum turns, after the reset it stands still.
    assert (np.abs(seen[2][:, 2]) > 0.01).all()
    last = np.array([info["terminal_observation"] for info in infos])
    assert not np.allclose(last, observations)
    assert (observations[:, 2] == 0).all()
    assert len(np.unique(observations[:, 0])) == 3
    assert not vec_env.step(pushed(vec_env, 0))[2].any()


def test_seeds_repeat_a_run_in_any_batch(vec_env):
    def run():
        trace = [vec_env.reset()]
        for count in range(5):  # over the end of an episode
            observations, rewards, _, _ = vec_env.step(pushed(vec_env, count))
            trace += [observations, rewards]
        return trace

    first, other = run(), run()
    assert not np.array_equal(first[0], other[0])
    vec_env.seed(5)
    for one, again in zip(first, run(), strict=True):
        np.testing.assert_array_equal(one, again)
    vec_env.seed(6)
    np.testing.assert_array_equal(vec_env.reset()[:2], first[0][1:])
    vec_env.batch.reset([None, 6, None])
    kept = vec_env.batch.reset([7, None, 5]).numpy()
    np.testing.assert_array_equal(kept[[2, 0]], first[0][[0, 2]])


def test_a_diverged_simulation_ends_its_episode_only(vec_env):
    vec_env.reset()
    actions = pushed(vec_env, 0)
    actions[1] = np.nan
    observations, rewards, dones, infos = vec_env.step(actions)
    np.testing.assert_array_equal(dones, [False, True, False])
    assert not infos[1]["TimeLimit.truncated"]
    assert np.isfinite(observations).all()
    assert np.isfinite(rewards).all()
    assert np.isfinite(infos[1]["terminal_observation"]).all()
    assert infos[1]["frames"] == 1


def test_what_it_simulates_is_what_mujoco_simulates(vec_env):
    import mujoco

    vec_env.reset()
    data = vec_env.batch._progress.state.data
    model = vec_env.batch.source.mj_model
    host = mujoco.MjData(model)
    host.qpos, host.qvel = np.asarray(data.qpos)[0], np.asarray(data.qvel)[0]
    vec_env.step(np.full((3, 1), 0.7, np.float32))
    host.ctrl = 0.7
    for _ in range(2 * vec_env.batch.source.n_substeps):
        mujoco.mj_step(model, host)
    after = vec_env.batch._progress.state.data
    np.testing.assert_allclose(np.asarray(after.qpos)[0], host.qpos, atol=1e-4)
    np.testing.assert_allclose(np.asarray(after.qvel)[0], host.qvel, atol=1e-3)


def test_every_environment_is_drawn(vec_env):
    vec_env.reset()
    images = vec_env.get_images()
    assert [image.shape for image in images] == [(256, 256, 3)] * 3
    assert not np.array_equal(images[0], images[1])
    assert vec_env.render().shape == (512, 512, 3)
    assert vec_env.metadata["render_fps"] == pytest.approx(25.0)  # 0.02 s a frame, two frames a step


def test_one_environment_is_a_gymnasium_environment():
    env = make_env(TASK, seed=0, action_repeat=2, episode_length=LENGTH)
    assert isinstance(env.unwrapped, SingleEnv)
    check_env(env, warn=False)


def test_what_it_does_not_offer_is_refused(monkeypatch):
    with pytest.raises(ValueError, match=r"obs='state' only, got 'pixels'\. For pixels take dm_control/cartpole"):
        make_env("playground/cartpole-swingup", obs="pixels")
    with pytest.raises(ValueError, match="have no settings, got obs_kwargs size"):
        make_vec_env("playground/cartpole-swingup", obs_kwargs={"size": 3})
    with pytest.raises(ValueError, match="action_repeat >= 1, got 0"):
        make_env(TASK, action_repeat=0)
    with pytest.raises(ValueError, match="episode_length >= 1, got 0"):
        make_env(TASK, episode_length=0)
    monkeypatch.setitem(sys.modules, "mujoco_playground", None)
    with pytest.raises(ImportError, match=r'Run: pip install "difftori-gym\[playground\]"'):
        make_env(TASK)
