"""Both directions of Minari's layout, and what happens to files that are not whole."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from difftori_gym.il import Demonstrations, Episode, MinariWriter, read_minari, write_minari
from difftori_gym.il.formats.minari_layout import space_to_json

h5py = pytest.importorskip("h5py")
# Written by Minari 0.5.3 itself: tests/il/formats/data/README.md
DATA = Path(__file__).parent / "data"


@pytest.fixture
def pictures() -> Demonstrations:
    """Images that Minari keeps as pictures, images that it does not, a vector; real frames of a real task."""
    env = gym.make("MountainCarContinuous-v0", render_mode="rgb_array")
    env.action_space.seed(0)
    episodes = []
    for seed in range(2):
        state, _ = env.reset(seed=seed)
        states, images, actions, rewards = [state], [env.render()], [], []
        for _ in range(4):
            actions.append(env.action_space.sample())
            state, reward, *_ = env.step(actions[-1])
            states.append(state)
            images.append(env.render())
            rewards.append(reward)
        image = np.stack(images)[:, ::8, ::8]
        observations = {
            "image": image,
            "frames": np.moveaxis(image, -1, 1),
            "stack": np.tile(image, 3),
            "state": states,
        }
        episodes.append(
            Episode(
                {key: np.asarray(value) for key, value in observations.items()},
                np.stack(actions),
                np.array(rewards),
                terminated=False,
                truncated=True,
                success=seed == 0,
                seed=seed,
            )
        )
    env.close()
    space = spaces.Dict(
        {
            "image": spaces.Box(0, 255, (50, 75, 3), np.uint8),
            "frames": spaces.Box(0, 255, (3, 50, 75), np.uint8),
            "stack": spaces.Box(0, 255, (50, 75, 9), np.uint8),
            "state": env.observation_space,
        }
    )
    return Demonstrations(tuple(episodes), space, env.action_space, env_id="MountainCarContinuous-v0", obs="pixels")


def assert_same(found: Demonstrations, expected: Demonstrations) -> None:
    assert found.observation_space == expected.observation_space
    assert found.action_space == expected.action_space
    assert (found.env_id, found.obs, len(found)) == (expected.env_id, expected.obs, len(expected))
    for one, other in zip(found.episodes, expected.episodes, strict=True):
        for field in dataclasses.fields(Episode):
            if field.name != "name":  # what the file calls it
                np.testing.assert_equal(getattr(one, field.name), getattr(other, field.name))


def test_read_back_what_was_written(numbered, pictures, tmp_path):
    for name, demonstrations in {"numbers": numbered, "pictures": pictures}.items():
        write_minari(demonstrations, tmp_path / name, algorithm_name="test")
        assert_same(read_minari(tmp_path / name), demonstrations)
        assert_same(read_minari(tmp_path / name / "data" / "main_data.hdf5", num_episodes=1), demonstrations.take(1))


def test_what_reinforcement_asks_for_is_kept(numbered, tmp_path):
    told = [np.arange(len(each)) % 2 == 1 for each in numbered.episodes]
    episodes = tuple(
        dataclasses.replace(each, successes=steps) for each, steps in zip(numbered.episodes, told, strict=True)
    )
    given = dataclasses.replace(numbered, episodes=episodes, action_repeat=4, control_mode="pd_joint_pos")
    write_minari(given, tmp_path / "set")
    found = read_minari(tmp_path / "set")
    assert_same(found, given)
    assert (found.action_repeat, found.control_mode) == (4, "pd_joint_pos")
    with pytest.raises(ValueError, match="expected action_repeat 2, got 4 in the dataset that is there"):
        writer_of(given, tmp_path / "set", obs=given.obs, append=True, action_repeat=2)
    with pytest.raises(ValueError, match=r"expected successes of shape \(5,\) beside 5 actions, got \(4,\)"):
        dataclasses.replace(episodes[0], successes=told[1])


def test_observations_on_the_disk(pictures, tmp_path):
    write_minari(pictures, tmp_path / "pictures")
    mapped = read_minari(tmp_path / "pictures", memory_map=tmp_path / "cache")
    assert_same(mapped, pictures)
    windows = mapped.windows(n_obs_steps=2, horizon=2, n_action_steps=1)
    expected = pictures.windows(n_obs_steps=2, horizon=2, n_action_steps=1)
    for array in windows._observations.values():
        base = array
        while not isinstance(base, np.memmap):
            base = base.base
        assert Path(base.filename).parent == tmp_path / "cache"
    indices = np.arange(len(windows))
    for key, value in expected.batch(indices).observations.items():
        np.testing.assert_array_equal(windows.batch(indices).observations[key], value)
    # Read again while the first is in use.
    again = read_minari(tmp_path / "pictures", num_episodes=1, memory_map=tmp_path / "cache")
    assert len(again) == 1
    assert_same(mapped, pictures)


def test_minaris_own_file_of_vectors():
    demonstrations = read_minari(DATA / "pendulum-random-v0")
    assert demonstrations.env_id == "Pendulum-v1"
    assert demonstrations.seeds == (5, 6)
    assert [len(each) for each in demonstrations.episodes] == [12, 12]
    env = gym.make("Pendulum-v1")
    for episode in demonstrations.episodes:
        assert (episode.terminated, episode.truncated) == (False, True)
        observation, _ = env.reset(seed=episode.seed)
        for t, action in enumerate(episode.actions):
            # The last bit of a sine is numpy's: 1 and 2 differ there.
            np.testing.assert_allclose(episode.observations[t], observation, rtol=1e-6)
            observation, reward, *_ = env.step(action)
            assert episode.rewards[t] == pytest.approx(reward)
        np.testing.assert_allclose(episode.observations[-1], observation, rtol=1e-6)


def test_minaris_own_file_of_pictures_and_infos():
    demonstrations = read_minari(DATA / "lamp-v0")
    assert list(demonstrations.observation_space) == ["image", "light"]
    for episode in demonstrations.episodes:
        assert episode.success is True
        assert (episode.terminated, episode.truncated) == (True, False)
        np.testing.assert_allclose(episode.observations["light"][:, 0], [0, 0.1, 0.2, 0.3])
        # JPEG: one-coloured images lose next to nothing
        np.testing.assert_allclose(episode.observations["image"].mean((1, 2, 3)), [0, 20, 40, 60], atol=1)


def test_minari_opens_ours(numbered, pictures, tmp_path):
    minari = pytest.importorskip("minari")
    del pictures.observation_space.spaces["stack"]  # nine channels are no picture
    pictures = dataclasses.replace(
        pictures,
        episodes=tuple(
            dataclasses.replace(each, observations={k: v for k, v in each.observations.items() if k != "stack"})
            for each in pictures.episodes
        ),
    )
    for name, demonstrations in {"numbers": numbered, "pictures": pictures}.items():
        write_minari(demonstrations, tmp_path / name, algorithm_name="test")
        dataset = minari.MinariDataset(tmp_path / name / "data")
        assert dataset.observation_space == demonstrations.observation_space
        assert dataset.action_space == demonstrations.action_space
        assert (dataset.total_episodes, dataset.total_steps) == (len(demonstrations), demonstrations.num_steps)
        assert dataset.spec.dataset_id == f"{name}-v0"
        for found, expected in zip(dataset.iterate_episodes(), demonstrations.episodes, strict=True):
            np.testing.assert_equal(found.observations, expected.observations)
            np.testing.assert_array_equal(found.actions, expected.actions)
            np.testing.assert_array_equal(found.rewards, expected.rewards)
            assert (found.terminations[-1], found.truncations[-1]) == (expected.terminated, expected.truncated)
        metadata = list(dataset.storage.get_episode_metadata(range(len(demonstrations))))
        assert [each["seed"] for each in metadata] == list(demonstrations.seeds)


def writer_of(numbered: Demonstrations, path: Path, **settings) -> MinariWriter:
    settings = dict(env_id="numbers", obs="state") | settings
    return MinariWriter(path, numbered.observation_space, numbered.action_space, **settings)


def test_collection_goes_on_after_an_interruption(numbered, tmp_path):
    writer = writer_of(numbered, tmp_path / "set")
    writer.append(numbered.episodes[0])
    assert len(read_minari(tmp_path / "set")) == 1  # while the writer lives
    with h5py.File(tmp_path / "set" / "data" / "main_data.hdf5", "a") as file:
        file.create_group("episode_1")["actions"] = np.zeros((3, 1))  # what a killed program may leave behind
    assert len(read_minari(tmp_path / "set")) == 1
    writer = writer_of(numbered, tmp_path / "set", append=True)
    assert (len(writer), writer.seeds) == (1, (0,))
    writer.append(numbered.episodes[1])
    expected = dataclasses.replace(numbered.take(2), obs="state")
    assert_same(read_minari(tmp_path / "set"), expected)


def test_an_interruption_while_an_episode_is_written(numbered, tmp_path, monkeypatch):
    writer = writer_of(numbered, tmp_path / "set")
    writer.append(numbered.episodes[0])

    original = h5py.Group.__setitem__

    def interrupted(group, name, value):
        if name == "rewards":
            raise KeyboardInterrupt
        original(group, name, value)

    monkeypatch.setattr(h5py.Group, "__setitem__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        writer.append(numbered.episodes[1])
    monkeypatch.undo()
    assert len(read_minari(tmp_path / "set")) == 1
    writer.append(numbered.episodes[1])
    assert len(read_minari(tmp_path / "set")) == 2


def test_an_episode_that_is_refused_changes_nothing(numbered, tmp_path):
    writer = writer_of(numbered, tmp_path / "set")
    writer.append(numbered.episodes[0])
    broken = dataclasses.replace(numbered.episodes[1], actions=np.full((4, 1), 2.0, np.float32))
    with pytest.raises(ValueError, match=r"set, episode 1: expected actions inside the box"):
        writer.append(broken)
    assert len(read_minari(tmp_path / "set")) == 1


def test_going_on_with_another_task_is_refused(numbered, tmp_path):
    writer_of(numbered, tmp_path / "set")
    with pytest.raises(ValueError, match="expected no dataset, found one"):
        writer_of(numbered, tmp_path / "set")
    with pytest.raises(ValueError, match="expected env_id other, got numbers in the dataset that is there"):
        writer_of(numbered, tmp_path / "set", env_id="other", append=True)
    with pytest.raises(ValueError, match="expected obs pixels, got state"):
        writer_of(numbered, tmp_path / "set", obs="pixels", append=True)


def test_files_that_are_not_whole(numbered, tmp_path):
    path = tmp_path / "set"
    with pytest.raises(ValueError, match=r"set: expected a folder with data/main_data.hdf5"):
        read_minari(path)
    writer = writer_of(numbered, path)
    with pytest.raises(ValueError, match=r"main_data.hdf5: expected at least one episode, got none"):
        read_minari(path)
    for episode in numbered.episodes:
        writer.append(episode)
    file = path / "data" / "main_data.hdf5"
    with pytest.raises(ValueError, match="expected at least 4 episodes, got 3"):
        read_minari(path, num_episodes=4)

    with h5py.File(file, "a") as opened:
        del opened["episode_2"]
    with pytest.raises(ValueError, match=r"main_data.hdf5, episode 2: expected a group 'episode_2'.*num_episodes=2"):
        read_minari(path)
    assert len(read_minari(path, num_episodes=2)) == 2  # what was collected before

    with h5py.File(file, "a") as opened:
        del opened["episode_1/rewards"]
    with pytest.raises(ValueError, match=r"main_data.hdf5, episode 1: expected a dataset 'rewards', got actions"):
        read_minari(path, num_episodes=2)

    os.truncate(file, file.stat().st_size // 2)
    with pytest.raises(ValueError, match=r"main_data.hdf5: expected a whole HDF5 file.*truncated"):
        read_minari(path)
    (path / "data" / "metadata.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"metadata.json: expected Minari's metadata in JSON"):
        read_minari(path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("observations", np.zeros((6, 2)), "expected 5 observations beside 4 actions"),
        ("actions", np.full((4, 1), 3.0), "expected actions inside the box"),
        ("actions", np.full((4, 1), np.nan), "expected actions that are finite"),
        ("actions", np.zeros((4, 2)), r"expected actions of shape \(1,\), got \(2,\)"),
        ("observations", np.zeros((5, 3)), r"expected observations of shape \(2,\), got \(3,\)"),
        ("observations", np.zeros((4, 2)), "expected 5 observations beside 4 actions, the closing one counted, got 4"),
        ("rewards", np.zeros(2), r"expected rewards of shape \(4,\)"),
    ],
)
def test_wrong_numbers_name_file_and_episode(numbered, tmp_path, name, value, message):
    write_minari(numbered, tmp_path / "set")
    with h5py.File(tmp_path / "set" / "data" / "main_data.hdf5", "a") as file:
        del file["episode_1"][name]
        file["episode_1"][name] = value
    with pytest.raises(ValueError, match=r"main_data.hdf5, episode 1: " + message):
        read_minari(tmp_path / "set")


def test_spaces_that_imitation_does_not_know(tmp_path):
    shutil.copytree(DATA / "pendulum-random-v0", tmp_path / "set")
    file = tmp_path / "set" / "data" / "metadata.json"
    metadata = json.loads(file.read_text(encoding="utf-8"))
    metadata["action_space"] = json.dumps({"type": "Discrete", "dtype": "int64", "start": 0, "n": 2})
    file.write_text(json.dumps(metadata), encoding="utf-8")
    with pytest.raises(ValueError, match=r"main_data.hdf5: expected spaces made of Box and Dict, got Discrete"):
        read_minari(tmp_path / "set")


def as_before_version_5(path: Path, **attributes) -> None:
    """What Minari 0.4 wrote: metadata as attributes of the data, and seeds that were not given as text."""
    file = path / "data" / "metadata.json"
    metadata = json.loads(file.read_text(encoding="utf-8"))
    file.unlink()
    with h5py.File(path / "data" / "main_data.hdf5", "a") as opened:
        opened.attrs.update({key: value for key, value in {**metadata, **attributes}.items() if value is not None})
        opened["episode_0"].attrs["seed"] = "None"


def test_files_of_earlier_versions(tmp_path):
    expected = read_minari(DATA / "pendulum-random-v0")
    path = tmp_path / "set"
    shutil.copytree(DATA / "pendulum-random-v0", path)
    as_before_version_5(path)
    found = read_minari(path)
    assert found.seeds == (None, 6)
    assert (found.env_id, found.observation_space) == ("Pendulum-v1", expected.observation_space)
    np.testing.assert_array_equal(found.episodes[0].observations, expected.episodes[0].observations)
    with h5py.File(path / "data" / "main_data.hdf5", "a") as opened:  # the first ones stored no spaces
        del opened.attrs["observation_space"], opened.attrs["action_space"]
    with pytest.raises(ValueError, match=r"episode 0: expected actions in \[-1, 1\].*Pass action_space to read_minari"):
        read_minari(path)
    found = read_minari(path, action_space=expected.action_space)
    assert found.observation_space == spaces.Box(-np.inf, np.inf, (3,), np.float32)
    with h5py.File(path / "data" / "main_data.hdf5", "a") as opened:
        del opened.attrs["total_episodes"]
    with pytest.raises(ValueError, match=r"metadata.json: expected Minari's metadata with total_episodes"):
        read_minari(path)


def test_a_writer_goes_on_with_seeds_that_are_not_known(numbered, tmp_path):
    writer = writer_of(numbered, tmp_path / "set")
    writer.append(numbered.episodes[0])
    writer.append(numbered.episodes[1])
    with h5py.File(tmp_path / "set" / "data" / "main_data.hdf5", "a") as file:
        file["episode_0"].attrs["seed"] = "None"
    assert writer_of(numbered, tmp_path / "set", append=True).seeds == (100,)


def test_nested_observations_become_one_level(numbered, tmp_path):
    """As in the kitchen of Gymnasium-Robotics."""
    write_minari(numbered, tmp_path / "set")
    box = numbered.observation_space
    nested = spaces.Dict({"goal": spaces.Dict({"kettle": box}), "state": box})
    file = tmp_path / "set" / "data" / "metadata.json"
    metadata = json.loads(file.read_text(encoding="utf-8"))
    metadata["observation_space"] = space_to_json(nested)
    metadata["env_spec"] = "null"
    file.write_text(json.dumps(metadata | {"env_id": ""}), encoding="utf-8-sig")  # with a byte-order mark
    with h5py.File(tmp_path / "set" / "data" / "main_data.hdf5", "a") as opened:
        for name in list(opened):
            values = opened[name]["observations"][()]
            del opened[name]["observations"]
            opened[name]["observations/goal/kettle"] = opened[name]["observations/state"] = values
    found = read_minari(tmp_path / "set")
    assert found.observation_space == spaces.Dict({"goal/kettle": box, "state": box})
    for one, other in zip(found.episodes, numbered.episodes, strict=True):
        np.testing.assert_array_equal(one.observations["goal/kettle"], other.observations)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (np.array([0, 1, 0]), True),
        (np.array([np.nan, 0.0]), False),
        (np.array([b"False"]), None),  # not a number: not told
        ({"deeper": np.array([True])}, None),
    ],
)
def test_infos_of_any_kind(numbered, tmp_path, told, expected):
    write_minari(numbered, tmp_path / "set")
    with h5py.File(tmp_path / "set" / "data" / "main_data.hdf5", "a") as file:
        del file["episode_0"].attrs["success"]
        for key, value in told.items() if isinstance(told, dict) else [("", told)]:
            file[f"episode_0/infos/success/{key}".rstrip("/")] = value
    assert read_minari(tmp_path / "set").episodes[0].success is expected
    with h5py.File(tmp_path / "set" / "data" / "main_data.hdf5", "a") as file:
        del file["episode_0/infos"]
        file["episode_0/infos"] = [b"{}"]  # one text a step
    assert read_minari(tmp_path / "set").episodes[0].success is None


def test_one_episode_with_too_few_observations_is_left_out(numbered, tmp_path):
    """As some of the first antmaze and pointmaze data sets have."""
    write_minari(numbered, tmp_path / "set")
    with h5py.File(tmp_path / "set" / "data" / "main_data.hdf5", "a") as file:
        del file["episode_1/observations"]
        file["episode_1/observations"] = np.zeros((4, 2), np.float32)
    with pytest.raises(ValueError, match=r"read_minari\(..., leave_out=\['episode_1'\]\) reads the others"):
        read_minari(tmp_path / "set")
    found = read_minari(tmp_path / "set", leave_out=["episode_1"])
    assert found.seeds == (0, 200)
    last = dataclasses.replace(found, episodes=found.episodes[1:])
    with pytest.raises(ValueError, match=r"main_data.hdf5, episode 2: .*horizon=8.*, got 7"):
        last.windows(n_obs_steps=1, horizon=8, n_action_steps=1)


def test_a_space_that_cannot_be_read(numbered, tmp_path):
    write_minari(numbered, tmp_path / "set")
    file = tmp_path / "set" / "data" / "metadata.json"
    metadata = json.loads(file.read_text(encoding="utf-8"))
    for text in ("{", "{}", '{"type": "Box"}'):
        file.write_text(json.dumps(metadata | {"action_space": text}), encoding="utf-8")
        with pytest.raises(ValueError, match=r"main_data.hdf5: expected a space as Minari writes it"):
            read_minari(tmp_path / "set")
