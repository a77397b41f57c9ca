"""Collection on real tasks: what is stored is what happened, and an interruption loses nothing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import SAC

from difftori_gym.collection import CollectionReport, CollectionSettings, Expert, collect, make_expert
from difftori_gym.collection.recording import EpisodeRecorder
from difftori_gym.envs import make_env, parse_task
from difftori_gym.il import read_minari

pytest.importorskip("h5py")

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "collect_demos.py"


def settings_of(out: Path, **changes) -> CollectionSettings:
    return CollectionSettings(**(dict(env_id="metaworld/reach", out=out, episodes=2, steps_after_success=2) | changes))


@pytest.fixture(scope="module")
def reach():
    pytest.importorskip("metaworld")
    return make_expert(parse_task("metaworld/reach"))


def test_what_is_stored_is_what_happens_again(reach, tmp_path):
    report = collect(settings_of(tmp_path / "reach", seed=3), reach)
    assert report == CollectionReport(episodes=2, attempts=2, successes=2)
    demonstrations = read_minari(tmp_path / "reach")
    assert (demonstrations.env_id, demonstrations.obs, demonstrations.seeds) == ("metaworld/reach", "state", (3, 4))
    assert demonstrations.action_repeat == 1
    env = make_env("metaworld/reach")
    assert demonstrations.observation_space == env.observation_space
    assert demonstrations.action_space == env.action_space
    for episode in demonstrations.episodes:
        assert episode.success is True
        observation, _ = env.reset(seed=episode.seed)
        np.testing.assert_array_equal(episode.observations[0], observation)
        for t, action in enumerate(episode.actions):
            observation, reward, _, _, info = env.step(action)
            np.testing.assert_array_equal(episode.observations[t + 1], observation)
            assert episode.rewards[t] == reward
            assert episode.successes[t] == info["success"]
            assert info["is_success"] == (t >= len(episode) - 3)  # cut two steps later
    env.close()


def test_clouds(reach, tmp_path):
    collect(settings_of(tmp_path / "reach", obs="pointcloud", episodes=1, max_steps=200), reach)
    demonstrations = read_minari(tmp_path / "reach", memory_map=tmp_path / "cache")
    assert demonstrations.obs == "pointcloud"
    (episode,) = demonstrations.episodes
    assert episode.observations["point_cloud"].shape == (len(episode) + 1, 512, 3)
    assert np.ptp(episode.observations["agent_pos"], axis=0).max() > 0.02  # the hand has moved


def test_failures_are_left_out_unless_wanted(reach, tmp_path):
    never = settings_of(tmp_path / "never", max_steps=3, max_attempts=2)
    with pytest.raises(ValueError, match=r"expected 2 episodes within 2 attempts, got 0: the expert solved 0 of 2"):
        collect(never, reach)
    report = collect(settings_of(tmp_path / "kept", max_steps=3, keep_failures=True), reach)
    assert (report.episodes, report.successes, report.success_rate) == (2, 0, 0.0)
    assert [episode.success for episode in read_minari(tmp_path / "kept").episodes] == [False, False]


def test_an_interruption_keeps_what_was_collected(reach, tmp_path):
    def interrupt(report: CollectionReport) -> None:
        if report.episodes == 2:
            raise KeyboardInterrupt

    settings = settings_of(tmp_path / "reach", episodes=4, max_steps=3, keep_failures=True)
    with pytest.raises(KeyboardInterrupt):
        collect(settings, reach, interrupt)
    assert read_minari(tmp_path / "reach").seeds == (0, 1)
    with pytest.raises(ValueError, match="expected no dataset, found one"):
        collect(settings, reach)
    more = settings_of(tmp_path / "reach", episodes=4, max_steps=3, keep_failures=True, append=True)
    assert collect(more, reach).episodes == 4
    assert read_minari(tmp_path / "reach").seeds == (0, 1, 2, 3)


def test_an_expert_that_fails_is_named(tmp_path):
    def play(env, observation, stop):
        env.step(np.full(1, np.nan))

    settings = CollectionSettings(env_id="Pendulum-v1", out=tmp_path / "pendulum", episodes=1)
    with pytest.raises(ValueError, match="seed 0, step 0: expected finite actions from the expert"):
        collect(settings, Expert("broken", play))


def test_an_expert_asks_for_more_than_the_box():
    env = EpisodeRecorder(gym.make("Pendulum-v1"))
    env.reset(seed=0)
    env.step(np.array([5.0]))
    episode = env.episode()
    np.testing.assert_array_equal(episode.actions, [[2.0]])
    assert episode.actions.dtype == np.float32
    assert episode.truncated  # cut
    assert episode.success is None


def test_a_trained_model_demonstrates(tmp_path):
    env = make_env("Pendulum-v1")
    model = SAC("MlpPolicy", env, seed=0, device="cpu", policy_kwargs=dict(net_arch=[8]))
    model.save(tmp_path / "model.zip")
    task = parse_task("Pendulum-v1")
    expert = make_expert(task, tmp_path / "model.zip", "sac")
    report = collect(CollectionSettings("Pendulum-v1", tmp_path / "pendulum", episodes=1), expert)
    assert not report.tells_success
    (episode,) = read_minari(tmp_path / "pendulum").episodes
    expected, _ = model.predict(episode.observations[:-1], deterministic=True)
    np.testing.assert_allclose(episode.actions, expected, atol=1e-5)

    with pytest.raises(ValueError, match=r"model.zip: expected a model of .* got one of"):
        collect(CollectionSettings("MountainCarContinuous-v0", tmp_path / "car", episodes=1), expert)
    with pytest.raises(ValueError, match="Unknown algorithm None"):
        make_expert(task, tmp_path / "model.zip")
    with pytest.raises(ValueError, match="expected a saved model, found none"):
        make_expert(task, tmp_path / "none.zip", "sac")
    (tmp_path / "text.zip").write_text("no model", encoding="utf-8")
    with pytest.raises(ValueError, match=r"text.zip: expected a model saved by SAC, got none"):
        make_expert(task, tmp_path / "text.zip", "sac")


def test_what_cannot_be_demonstrated():
    with pytest.raises(ValueError, match=r"Pendulum-v1 has no scripted expert"):
        make_expert(parse_task("Pendulum-v1"))
    with pytest.raises(ValueError, match="episodes >= 1, got 0"):
        CollectionSettings("Pendulum-v1", Path("out"), episodes=0)


def test_a_killed_program_leaves_a_readable_set(tmp_path):
    """Pendulum with a random model: an episode takes some milliseconds, so that the end may come anywhere."""
    model = SAC("MlpPolicy", make_env("Pendulum-v1"), seed=0, device="cpu", policy_kwargs=dict(net_arch=[8]))
    model.save(tmp_path / "model.zip")
    out = tmp_path / "pendulum"
    command = [
        sys.executable,
        SCRIPT,
        "--task",
        "Pendulum-v1",
        "--policy",
        tmp_path / "model.zip",
        "--algorithm",
        "sac",
    ]
    command += ["--out", out, "--episodes", "100000"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 240
        metadata = out / "data" / "metadata.json"
        while time.monotonic() < deadline and not (metadata.exists() and '"total_episodes": 3' in metadata.read_text()):
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
    demonstrations = read_minari(out)
    assert len(demonstrations) >= 3
    assert demonstrations.seeds == tuple(range(len(demonstrations)))
    assert len(demonstrations.episodes[-1]) == 200
