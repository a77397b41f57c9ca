"""The DeepMind Control Suite behind ``make_env``."""

import os
import subprocess
import sys

import numpy as np
import pytest

from difftori_gym.data.published import _read
from difftori_gym.envs import SUITES, make_env, parse_task, task_action_repeat
from difftori_gym.envs.dm_control import ACTION_REPEAT
from difftori_gym.envs.rendering import select_gl_backend

select_gl_backend()  # before the first import of MuJoCo
pytest.importorskip("dm_control")
pytest.importorskip("shimmy")


@pytest.mark.parametrize(
    ("id", "task"),
    [
        ("dm_control/cup-catch", "cup-catch"),
        ("dm_control/ball_in_cup-catch", "cup-catch"),
        ("dm_control/ball-in-cup-catch", "cup-catch"),
        ("dm_control/ball_in_cup-catch-v0", "cup-catch"),
        ("dm_control/finger-turn-hard", "finger-turn-hard"),
        ("dm_control/finger-turn_hard", "finger-turn-hard"),
        ("dm_control/finger-turn_hard-v0", "finger-turn-hard"),
        ("dm_control/cartpole-swingup_sparse", "cartpole-swingup-sparse"),
        ("dm_control/humanoid_CMU-run", "humanoid-CMU-run"),
    ],
)
def test_a_task_may_be_written_in_several_ways(id, task):
    assert parse_task(id).task == task


def test_every_task_of_the_suite_has_a_name_of_its_own():
    from dm_control import suite

    tasks = SUITES["dm_control"].tasks()
    assert len(set(tasks)) == len(suite.ALL_TASKS)
    for domain, task in suite.ALL_TASKS:
        assert parse_task(f"dm_control/{domain}-{task}-v0").task in tasks


def test_published_curves_use_the_canonical_names():
    assert {task for (task,) in _read("dmc_published_curves.csv", "task")} <= set(SUITES["dm_control"].tasks())


def test_unknown_tasks_are_told_with_the_closest_first():
    with pytest.raises(ValueError, match=r"^Unknown task 'waker-walk' of dm_control\. Choices: walker-walk, "):
        make_env("dm_control/waker-walk")


@pytest.mark.parametrize("task", ACTION_REPEAT)
def test_the_papers_tasks_run_with_their_action_repeat(task):
    env = make_env(f"dm_control/{task}", seed=1)
    observation, _ = env.reset()
    assert env.observation_space.dtype == env.action_space.dtype == np.float32
    assert env.observation_space.contains(observation)
    assert np.isfinite([env.action_space.low, env.action_space.high]).all()
    observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
    assert env.observation_space.contains(observation)
    assert np.isfinite(reward)
    assert not terminated
    assert not truncated
    assert info["frames"] == ACTION_REPEAT[task] == task_action_repeat(parse_task(f"dm_control/{task}"))
    env.close()


@pytest.mark.parametrize("render_mode", [None, "rgb_array"])
def test_wrong_settings_of_films_are_told_when_the_environment_is_built(render_mode):
    with pytest.raises(ValueError, match=r"Unknown camera 'front'\. Choices: side, back; or 0 to 1"):
        make_env("dm_control/walker-walk", render_mode=render_mode, camera_id="front")
    with pytest.raises(TypeError, match="max_episode_steps"):
        make_env("dm_control/walker-walk", render_mode=render_mode, max_episode_steps=10)
    with pytest.raises(ValueError, match=r"Unknown render_mode 'rgb' of walker-walk\. Choices: .*rgb_array"):
        make_env("dm_control/walker-walk", render_mode="rgb")
    make_env("dm_control/walker-walk", render_mode=render_mode, camera_id=-1).close()


def test_other_tasks_have_no_action_repeat():
    assert task_action_repeat(parse_task("dm_control/fish-swim")) == 1


def test_the_state_is_the_suites_own():
    """Same numbers, in the space's order, as the suite gives without any wrapper."""
    from dm_control import suite

    env = make_env("dm_control/walker-walk", seed=3, action_repeat=1)
    observation, _ = env.reset()
    reference = suite.load("walker", "walk", task_kwargs={"random": 3})
    reference.task._random = np.random.RandomState(3)
    given = reference.reset().observation
    np.testing.assert_allclose(
        np.sort(observation), np.sort(np.concatenate([np.ravel(v) for v in given.values()])), 1e-6
    )
    action = np.full(env.action_space.shape, 0.25, dtype=np.float32)
    assert env.step(action)[1] == pytest.approx(reference.step(action).reward)


def test_an_episode_is_truncated_after_1000_frames_and_repeats_sum_its_rewards():
    def run(action_repeat):
        env = make_env("dm_control/pendulum-swingup", seed=0, action_repeat=action_repeat)
        env.reset()
        steps = []
        while not steps or not (steps[-1][2] or steps[-1][3]):
            steps.append(env.step(np.zeros(1, dtype=np.float32)))
        return steps

    single, repeated = run(1), run(3)
    assert len(single) == 1000
    assert len(repeated) == 334  # 333 threes and the last frame alone
    assert sum(step[-1]["frames"] for step in repeated) == 1000
    assert sum(step[1] for step in repeated) == pytest.approx(sum(step[1] for step in single))
    assert repeated[-1][3]
    assert not repeated[-1][2]


@pytest.mark.parametrize("task", ["cartpole-swingup", "quadruped-walk", "finger-turn-hard"])
def test_two_environments_with_one_seed_are_identical(task):
    def trajectory(seed):
        env = make_env(f"dm_control/{task}", seed=seed)
        rows = []
        for _ in range(2):
            rows.append(env.reset()[0])
            rows += [env.step(env.action_space.sample())[0] for _ in range(5)]
        env.close()
        return np.array(rows)

    first = trajectory(4)
    np.testing.assert_array_equal(first, trajectory(4))
    assert not np.array_equal(first, trajectory(5))
    assert not np.array_equal(first[0], first[6])  # the second episode starts elsewhere


def run_python(code, **variables):
    environment = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "WAYLAND_DISPLAY")}
    environment = {**environment, "MUJOCO_GL": "", **variables}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)


def test_without_a_screen_a_drawing_backend_is_chosen():
    done = run_python(
        "import os\nfrom difftori_gym.envs import make_env\n"
        "make_env('dm_control/cartpole-swingup', seed=0).reset()\nprint(os.environ['MUJOCO_GL'])"
    )
    assert done.stdout.strip() in ("egl", "osmesa", "disabled"), done.stderr


def test_the_users_choice_of_a_backend_is_kept():
    done = run_python(
        "import os\nfrom difftori_gym.envs.rendering import select_gl_backend\n"
        "select_gl_backend()\nprint(os.environ['MUJOCO_GL'])",
        MUJOCO_GL="osmesa",
    )
    assert done.stdout.strip() == "osmesa", done.stderr


def test_without_opengl_training_works_and_films_say_what_to_do():
    done = run_python(
        "from difftori_gym.envs import make_env\n"
        "from difftori_gym.video import record_video\n"
        "from stable_baselines3 import SAC\n"
        "env = make_env('dm_control/cartpole-swingup', seed=0, render_mode='rgb_array')\n"
        "model = SAC('MlpPolicy', env, learning_starts=5, batch_size=4, device='cpu').learn(10)\n"
        "print('trained')\n"
        "try:\n    record_video(model, env, 'film.mp4')\n"
        "except ValueError as error:\n    print(error)\n",
        MUJOCO_GL="disabled",
    )
    assert "trained" in done.stdout, done.stderr
    assert "MUJOCO_GL" in done.stdout
    assert "libegl1" in done.stdout


@pytest.mark.parametrize("obs", ["pixels", "pointcloud"])
def test_without_opengl_images_say_which_variable_and_package(obs):
    done = run_python(
        "from difftori_gym.envs import make_env\n"
        f"try:\n    make_env('dm_control/cartpole-swingup', obs={obs!r})\n"
        "except RuntimeError as error:\n    print(error)\n",
        MUJOCO_GL="disabled",
    )
    assert done.stdout.startswith("MuJoCo cannot draw on this machine"), done.stderr
    assert "libegl1" in done.stdout
    assert "environment variable MUJOCO_GL" in done.stdout
    assert not done.stderr


@pytest.mark.parametrize("id", ["dm_control/cartpole-swingup", "Hopper-v5", "playground/cartpole-swingup"])
def test_without_opengl_render_says_which_variable_and_package(id):
    pytest.importorskip("jax" if "playground" in id else "mujoco")
    code = (
        "from difftori_gym.envs import make_env\n"
        f"env = make_env({id!r}, render_mode='rgb_array', seed=0)\nenv.reset()\n"
        "try:\n    env.render()\nexcept RuntimeError as error:\n    print(error)\n"
    )
    done = run_python(code, MUJOCO_GL="disabled")
    assert done.stdout.startswith("MuJoCo cannot draw on this machine"), done.stderr
    assert "libegl1" in done.stdout
    assert "environment variable MUJOCO_GL" in done.stdout


def test_an_unknown_backend_is_refused_with_the_known_ones():
    done = run_python(
        "from difftori_gym.envs import make_env\n"
        "try:\n    make_env('dm_control/cartpole-swingup')\nexcept RuntimeError as error:\n    print(error)\n",
        MUJOCO_GL="bogus",
    )
    assert done.stdout.startswith("Expected MUJOCO_GL to be one of egl, osmesa"), done.stderr
    assert "got 'bogus'" in done.stdout
    assert "libegl1" in done.stdout


def test_pretty_pictures_have_shadows_and_fast_ones_do_not():
    def picture(**arguments):
        env = make_env("dm_control/walker-walk", seed=0, **arguments)
        env.reset()
        image = env.get_wrapper_attr("cameras").image("side", 120, 120)
        shadows = env.get_wrapper_attr("cameras")._simulation()[0].vis.quality.shadowsize
        env.close()
        return image, shadows

    fast, pretty = picture(), picture(fast_render=False)
    assert fast[1] == 0 < pretty[1]
    assert np.abs(fast[0].astype(int) - pretty[0]).mean() > 1.0


def test_films_may_be_larger_than_the_suites_models_allow_for():
    env = make_env("dm_control/cartpole-swingup", seed=0, render_mode="rgb_array", width=800, height=500)
    env.reset()
    image = env.render()
    env.close()
    assert image.shape == (500, 800, 3)
    assert image[-100:, -100:].std() > 1.0  # the outermost part is drawn, too
