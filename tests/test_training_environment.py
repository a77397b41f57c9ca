"""Filming and evaluating where a model is trained: no memory holds what never happened, nothing counted moves."""

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, VecNormalize

from difftori_gym import DiffTORI, VideoCallback, record_video
from difftori_gym.baselines import BC, TDMPC
from difftori_gym.evaluation import evaluate
from difftori_gym.il import Demonstrations, Episode

pytest.importorskip("imageio_ffmpeg")

LENGTH = 12
PLANNER = dict(learning_starts=4, batch_size=4, horizon=3, train_freq=5, policy_kwargs=dict(net_arch=[8]))
SAMPLING = dict(max_iterations=1, num_samples=8, num_elites=2)
LEARNERS = {
    "DiffTORI": (DiffTORI, dict(PLANNER, pg_batch_size=2, planner_kwargs=dict(max_iterations=1))),
    "TDMPC": (TDMPC, dict(PLANNER, planner_kwargs=SAMPLING)),
    "SAC": (SAC, dict(learning_starts=4, batch_size=4, policy_kwargs=dict(net_arch=[8]))),
    "SAC, returns over 3 steps": (SAC, dict(learning_starts=4, n_steps=3, policy_kwargs=dict(net_arch=[8]))),
    "SAC, each observation once": (
        SAC,
        dict(
            learning_starts=4,
            optimize_memory_usage=True,
            replay_buffer_kwargs=dict(handle_timeout_termination=False),
            policy_kwargs=dict(net_arch=[8]),
        ),
    ),
}


class Numbered(gym.Env):
    """Shows the number of its episode, over all environments, and of its step."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012
    observation_space = gym.spaces.Box(0, 1000, (2,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    render_mode = "rgb_array"
    episodes = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        Numbered.episodes += 1
        self.shown = np.array([Numbered.episodes, 0], np.float32)
        return self.shown.copy(), {}

    def step(self, action):
        self.shown[1] += 1
        return self.shown.copy(), 1.0, False, bool(self.shown[1] >= LENGTH), {}

    def render(self):
        return np.full((16, 16, 3), 10, np.uint8)


def seen(model, env, how, tmp_path):
    if how == "evaluate":
        evaluate(model, env, n_episodes=1, seed=0)
    else:
        record_video(model, env, tmp_path / "film.gif", max_steps=5)


def assert_nothing_is_false(buffer):
    """Every stored step follows from the one before it, or is known not to."""
    for row in range(buffer.pos):
        for column in range(buffer.n_envs):
            before = buffer.observations[row, column]
            after = buffer.observations[row + 1, column] if row + 1 < buffer.pos else None
            if buffer.optimize_memory_usage:
                follows = buffer.dones[row, column] or after is None or after[0] == before[0]
                assert follows, (before, after)
                continue
            np.testing.assert_array_equal(buffer.next_observations[row, column], before + np.array([0, 1]))
            if after is not None and after[0] != before[0]:  # where windows and returns over several steps must end
                ends = getattr(buffer, "ends", None)
                ended = buffer.dones[row, column] or buffer.timeouts[row, column] if ends is None else ends[row, column]
                assert ended, (before, after)


@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("how", ["evaluate", "film"])
@pytest.mark.parametrize("name", LEARNERS)
def test_no_memory_holds_a_step_that_never_happened(name, how, n_envs, tmp_path):
    learner, settings = LEARNERS[name]
    env = Numbered() if n_envs == 1 else DummyVecEnv([Numbered] * n_envs)
    model = learner("MlpPolicy", env, seed=0, device="cpu", **settings)
    model.learn(5 * n_envs)
    seen(model, env, how, tmp_path)
    model.learn(10 * n_envs, reset_num_timesteps=False)
    assert model.replay_buffer.pos == 15
    assert_nothing_is_false(model.replay_buffer)
    if name.startswith("SAC, returns"):
        found = model.replay_buffer._get_samples(np.arange(15))
        np.testing.assert_array_equal(found.observations[:, 0], found.next_observations[:, 0])


@pytest.mark.parametrize("how", ["evaluate", "film"])
def test_rollouts_of_ppo_begin_a_new_episode(how, tmp_path):
    env = Numbered()
    model = PPO("MlpPolicy", env, n_steps=5, batch_size=5, n_epochs=1, seed=0, device="cpu").learn(5)
    seen(model, env, how, tmp_path)
    model.learn(5, reset_num_timesteps=False)
    rollout = model.rollout_buffer
    assert rollout.episode_starts[0, 0] == 1
    np.testing.assert_array_equal(rollout.observations.reshape(5, 2)[:, 1], np.arange(5))


@pytest.mark.filterwarnings("ignore:The environment is already wrapped with a `Monitor`")
@pytest.mark.parametrize("how", ["evaluate", "film"])
def test_what_training_has_counted_stays(how, tmp_path):
    monitored = Monitor(Numbered(), str(tmp_path / "train"))
    env = VecNormalize(VecMonitor(DummyVecEnv([lambda: monitored])))
    model = SAC("MlpPolicy", env, learning_starts=100, policy_kwargs=dict(net_arch=[8]), seed=0, device="cpu")
    assert env.venv.venv._seeds == [0]
    seen(model, env, how, tmp_path)
    assert env.venv.venv._seeds == [0]  # it waits for the first episode of the training
    model.learn(LENGTH + 3)
    counts, means = env.obs_rms.count, env.obs_rms.mean.copy()
    seen(model, env, how, tmp_path)
    assert env.training
    assert env.obs_rms.count == counts
    np.testing.assert_array_equal(env.obs_rms.mean, means)
    assert (monitored.get_episode_lengths(), monitored.get_total_steps()) == ([LENGTH], LENGTH + 3)
    assert env.venv.episode_count == 1
    assert len(model.ep_info_buffer) == 1
    model.learn(LENGTH, reset_num_timesteps=False)
    monitored.close()
    lines = (tmp_path / "train.monitor.csv").read_text().splitlines()
    assert [line.split(",")[1] for line in lines[2:]] == [str(LENGTH)] * 2


class During(BaseCallback):
    def __init__(self, act):
        super().__init__()
        self.act = act

    def _on_step(self):
        self.act(self.model)
        return True


def test_a_model_that_collects_just_now_refuses(tmp_path):
    env = Numbered()
    model = SAC("MlpPolicy", env, policy_kwargs=dict(net_arch=[8]), device="cpu")
    for act in (
        lambda model: evaluate(model, env, n_episodes=1),
        lambda model: record_video(model, env, tmp_path / "film.gif"),
    ):
        with pytest.raises(ValueError, match=r"environment of its own.*make_vec_env"):
            model.learn(3, During(act))
    with pytest.raises(ValueError, match=r"environment of its own.*make_vec_env"):
        model.learn(3, VideoCallback(env, tmp_path))


def test_imitation_collects_nothing_and_may_be_seen_at_any_time(tmp_path):
    episode = Episode(np.zeros((5, 2)), np.zeros((4, 1)), np.zeros(4), terminated=False, truncated=True)
    demonstrations = Demonstrations((episode,), Numbered.observation_space, Numbered.action_space)
    env, evaluations = Numbered(), []
    model = BC("MlpPolicy", env, demonstrations, policy_kwargs=dict(net_arch=[8]), device="cpu")
    callbacks = [
        During(lambda model: evaluations.append(evaluate(model, env, n_episodes=1))),
        VideoCallback(env, tmp_path, render_freq=2, format=".gif"),
    ]
    model.learn(2, callbacks)
    assert [each.mean_return for each in evaluations] == [LENGTH, LENGTH]
    assert [path.name for path in tmp_path.iterdir()] == ["film-000000002.gif"]
