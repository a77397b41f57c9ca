"""Environments by name: what is accepted, what is refused, how seeds and frames behave."""

import subprocess
import sys
from typing import ClassVar

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.vec_env import SubprocVecEnv

from difftori_gym.envs import SUITES, make_env, make_vec_env, parse_task, parse_tasks
from difftori_gym.wrappers import SeedFirstReset


def test_importing_costs_no_suite():
    code = (
        "import sys, difftori_gym.envs, difftori_gym.video\n"
        "print(sorted({'dm_control', 'mujoco', 'shimmy', 'imageio'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_any_registered_id_is_a_task():
    assert str(parse_task("Pendulum-v1")) == "gymnasium/Pendulum-v1"
    assert parse_task("gymnasium/Pendulum-v1") == parse_task("Pendulum-v1")


def test_an_id_that_a_user_registered_is_a_task():
    gym.register("Own/Swing-v3", entry_point="gymnasium.envs.classic_control:PendulumEnv", max_episode_steps=11)
    try:
        task = parse_task("Own/Swing-v3")
        assert (task.suite, task.task, task.slug) == ("gymnasium", "Own/Swing-v3", "Own_Swing-v3")
        env = make_env("Own/Swing-v3", seed=0)
        env.reset()
        steps = [env.step(env.action_space.sample()) for _ in range(11)]
        assert steps[-1][3]
    finally:
        del gym.registry["Own/Swing-v3"]


@pytest.mark.parametrize(
    ("id", "message"),
    [
        ("Pendulm-v1", r"^Unknown environment 'Pendulm-v1'\. Choices: Pendulum-v1, "),
        ("walker-walk", r"^Unknown environment 'walker-walk'\. Choices: dm_control/walker-walk, "),
        (
            "dmcontrol/walker-walk",
            r"^Unknown suite 'dmcontrol' in .*\. Suites: dm_control, metaworld, robosuite, playground, maniskill, "
            "pusht, gymnasium",
        ),
        ("gymnasium/Pendulm-v1", r"^Unknown task 'Pendulm-v1' of gymnasium\. Choices: Pendulum-v1, "),
    ],
)
def test_unknown_names_are_told_with_the_closest_first(id, message):
    with pytest.raises(ValueError, match=message):
        make_env(id)
    with pytest.raises(ValueError, match=message):
        make_vec_env(id)


def test_a_suite_that_is_not_installed_names_its_install_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "dm_control", None)
    with pytest.raises(ImportError, match=r'Run: pip install "difftori-gym\[dm_control\]"') as caught:
        make_env("dm_control/walker-walk")
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)
    assert caught.value.__cause__.name == "dm_control"


def test_bad_numbers_are_refused():
    with pytest.raises(ValueError, match="num_repeats >= 1, got 0"):
        make_env("Pendulum-v1", action_repeat=0)
    with pytest.raises(ValueError, match="n_envs >= 1, got 0"):
        make_vec_env("Pendulum-v1", 0)
    for build in (make_env, make_vec_env):
        with pytest.raises(ValueError, match="seed >= 0, or None, got -1"):
            build("dm_control/walker-walk", seed=-1)


class Screen(gym.Env):
    """Its observations are what it draws."""

    metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, render_mode=None):
        self.render_mode = render_mode
        self.observation_space = gym.spaces.Box(0, 255, (20, 30, 3), np.uint8)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.render(), {}

    def step(self, action):
        return self.render(), 0.0, False, False, {}

    def render(self):
        return np.full((20, 30, 3), 7, np.uint8)


def test_an_environment_that_observes_images_gives_pixels():
    gym.register("Own/Screen-v0", entry_point=Screen)
    try:
        env = make_env("Own/Screen-v0", obs="pixels", obs_kwargs={"size": 10})
        assert env.observation_space.shape == (9, 10, 10)
        np.testing.assert_array_equal(env.reset()[0], 7)
        with pytest.raises(ValueError, match="StateObservation needs a state vector, got an image"):
            make_env("Own/Screen-v0")
    finally:
        del gym.registry["Own/Screen-v0"]


@pytest.mark.parametrize("build", [make_env, make_vec_env])
def test_settings_may_be_lists_as_json_has_them_and_one_camera_a_name(build):
    pytest.importorskip("dm_control")
    images = build("dm_control/walker-walk", obs="pixels", obs_kwargs={"camera": ["side", "back"], "size": [20, 30]})
    assert images.observation_space.shape == (3 * 6, 20, 30)
    clouds = build("dm_control/walker-walk", obs="pointcloud", obs_kwargs={"cameras": "back", "crop_low": [-9, -9, 0]})
    assert clouds.observation_space["point_cloud"].shape == (512, 3)
    with pytest.raises(ValueError, match=r"Unknown camera 'left'\. Choices: side, back"):
        build("dm_control/walker-walk", obs="pointcloud", obs_kwargs={"cameras": "left"})


def test_an_environment_passes_sb3_own_checks():
    check_env(make_env("Pendulum-v1", seed=0), warn=False)


def test_action_repeat_shortens_the_episode_in_agent_steps():
    env = make_env("Pendulum-v1", seed=0, action_repeat=8)
    env.reset()
    frames, over = [], False
    while not over:
        _, _, terminated, truncated, info = env.step(env.action_space.sample())
        frames.append(info["frames"])
        over = terminated or truncated
    assert len(frames) == 25
    assert sum(frames) == 200
    assert truncated
    assert not terminated


def test_there_is_no_repeat_where_no_task_asks_for_it():
    env = make_env("Pendulum-v1", seed=0)
    env.reset()
    assert env.step(env.action_space.sample())[-1]["frames"] == 1


def test_vec_env_seeds_follow_each_other_and_monitor_reports():
    vec_env = make_vec_env("Pendulum-v1", 3, seed=5)
    observations = vec_env.reset()
    for index in range(3):
        np.testing.assert_array_equal(observations[index], make_env("Pendulum-v1", seed=5 + index).reset()[0])
    for _ in range(200):
        _, _, dones, infos = vec_env.step(np.zeros((3, 1)))
    assert dones.all()
    assert [info["episode"]["l"] for info in infos] == [200] * 3
    assert all(info["TimeLimit.truncated"] for info in infos)


def test_vec_env_in_processes_equals_the_one_in_this_process():
    here = make_vec_env("Pendulum-v1", 2, seed=3)
    there = make_vec_env("Pendulum-v1", 2, seed=3, vec_env_cls=SubprocVecEnv, vec_env_kwargs={"start_method": "spawn"})
    try:
        np.testing.assert_array_equal(here.reset(), there.reset())
        action = np.full((2, 1), 0.5, dtype=np.float32)
        for _ in range(5):
            for mine, other in zip(here.step(action)[:2], there.step(action)[:2], strict=True):
                np.testing.assert_allclose(mine, other, rtol=1e-6)
    finally:
        there.close()


def test_a_group_stands_for_the_tasks_of_the_paper():
    tasks = parse_tasks(["Pendulum-v1", "dm_control/paper", "dm_control/cartpole-swingup"])
    assert list(map(str, tasks[:2])) == ["gymnasium/Pendulum-v1", "dm_control/cartpole-swingup-sparse"]
    assert str(tasks[-1]) == "dm_control/cartpole-swingup"
    assert len(set(tasks)) == 1 + 15 + 1
    assert {task.task for task in tasks[1:]} <= set(SUITES["dm_control"].tasks())
    with pytest.raises(ValueError, match=r"known for dm_control/paper, metaworld/paper, got 'pusht/paper'"):
        parse_tasks(["pusht/paper"])


@pytest.mark.parametrize("kind", [int, np.int64, np.uint8])
def test_seeds_of_every_kind_of_whole_number(kind):
    observation, _ = make_env("Pendulum-v1", seed=kind(5)).reset()
    np.testing.assert_array_equal(observation, make_env("Pendulum-v1").reset(seed=5)[0])
    np.testing.assert_array_equal(make_vec_env("Pendulum-v1", seed=kind(5)).reset()[0], observation)
    wrapped = SeedFirstReset(gym.make("Pendulum-v1"), kind(5))
    np.testing.assert_array_equal(wrapped.reset()[0], observation)


@pytest.mark.parametrize("seed", [1.5, "1", -1, np.int64(-1)])
def test_other_seeds_are_refused(seed):
    for make in (make_env, make_vec_env):
        with pytest.raises(ValueError, match="Environments need seed"):
            make("Pendulum-v1", seed=seed)


GUARDED = """
import gymnasium as gym
from gymnasium.envs.classic_control.pendulum import PendulumEnv
from stable_baselines3.common.vec_env import SubprocVecEnv

from difftori_gym import make_vec_env

if __name__ == "__main__":
    gym.register("Guarded-v0", PendulumEnv)
    make_vec_env("Guarded-v0", 1, vec_env_cls=SubprocVecEnv, vec_env_kwargs={"start_method": "spawn"})
"""


def test_what_a_script_registers_for_itself_alone_is_told_how_to_be_found(tmp_path):
    (tmp_path / "guarded.py").write_text(GUARDED)
    done = subprocess.run(
        [sys.executable, "guarded.py"], cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 1
    assert "'module:Guarded-v0'" in done.stderr
