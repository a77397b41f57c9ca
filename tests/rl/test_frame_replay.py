"""Images in replay: read back bit for bit, each frame stored once."""

import pickle
from collections.abc import Iterator
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack

from difftori_gym.rl.frame_replay import FrameReplay
from difftori_gym.rl.sequence_buffer import DictSequenceReplayBuffer, SequenceReplayBuffer, SequenceSampling

ACTIONS = spaces.Box(-1, 1, (1,))
FirstStack = Literal["repeated", "zeros", "own", "none"]


class NaiveSequences(SequenceSampling, ReplayBuffer):
    """Whole stacks, stored as they come."""


class NaiveDictSequences(SequenceSampling, DictReplayBuffer):
    """The same for dictionaries."""


class OneStepFrames(FrameReplay, ReplayBuffer):
    """Single transitions from stored frames."""


class NStepFrames(FrameReplay, NStepReplayBuffer):
    """Several-step returns from stored frames."""


def observation_stream(
    lengths: list[int], stack: int, shape: tuple[int, int, int], first: FirstStack, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray, bool]]:
    """Observation, observation after the step, whether the episode ended; each a stack of random frames."""

    def frame() -> np.ndarray:
        return rng.integers(0, 256, shape, dtype=np.uint8)

    def follow(frames: list[np.ndarray]) -> list[np.ndarray]:
        return [frame() for _ in range(stack)] if first == "none" else [*frames[1:], frame()]

    episode = 0
    while True:
        newest = frame()
        older = {"repeated": newest, "zeros": np.zeros_like(newest)}
        frames = [older[first] if first in older else frame() for _ in range(stack - 1)] + [newest]
        length = lengths[episode % len(lengths)]
        for step in range(length):
            following = follow(frames)
            yield np.concatenate(frames), np.concatenate(following), step + 1 == length
            frames = following
        episode += 1


def fill(
    buffers: list[Any], steps: int, n_envs: int, stack: int, lengths: list[int], first: FirstStack, wrap: Any = None
) -> None:
    """The same transitions into every buffer."""
    rng = np.random.default_rng(steps)
    shape = (3, 10, 11) if stack == 3 else (1, 7, 6)
    streams = [observation_stream(lengths[i:] + lengths[:i], stack, shape, first, rng) for i in range(n_envs)]
    for _ in range(steps):
        rows = [next(stream) for stream in streams]
        observations, following = (np.stack([row[part] for row in rows]) for part in (0, 1))
        dones = np.array([row[2] for row in rows])
        actions, rewards = rng.uniform(-1, 1, (n_envs, 1)), rng.normal(size=n_envs)
        infos = [{"TimeLimit.truncated": bool(done and rng.random() < 0.5)} for done in dones]
        for buffer in buffers:
            if wrap is None:
                buffer.add(observations, following, actions, rewards, dones, infos)
            else:
                buffer.add(wrap(observations), wrap(following), actions, rewards, dones, infos)


def image_space(stack: int) -> spaces.Box:
    return spaces.Box(0, 255, (9, 10, 11) if stack == 3 else (stack, 7, 6), np.uint8)


def assert_equal(first: Any, second: Any) -> None:
    assert type(first) is type(second)
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_equal(first[key], second[key])
    elif isinstance(first, torch.Tensor):
        assert first.dtype == second.dtype
        assert torch.equal(first, second)
    elif isinstance(first, np.ndarray):
        np.testing.assert_array_equal(first, second)
    else:
        assert first == second


def assert_same_windows(first: Any, second: Any, batch_size: int, horizon: int) -> None:
    batches = []
    for buffer in (first, second):
        np.random.seed(3)
        batches.append(buffer.sample_sequences(batch_size, horizon))
    for name in vars(batches[0]):
        assert_equal(getattr(batches[0], name), getattr(batches[1], name))


@settings(max_examples=60)
@given(
    stack=st.sampled_from([1, 3, 4]),
    n_envs=st.integers(1, 3),
    rows=st.integers(1, 14),
    steps=st.integers(1, 45),
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    first=st.sampled_from(["repeated", "zeros", "own", "none"]),
    optimize=st.booleans(),
    horizon=st.integers(1, 5),
)
def test_windows_are_those_of_a_buffer_that_stores_whole_stacks(
    stack, n_envs, rows, steps, lengths, first, optimize, horizon
):
    keywords: dict[str, Any] = dict(device="cpu", n_envs=n_envs)
    if optimize:
        keywords.update(optimize_memory_usage=True, handle_timeout_termination=False)
        rows += 1  # of one row, nothing could be drawn
    arguments = (rows * n_envs, image_space(stack), ACTIONS)
    naive = NaiveSequences(*arguments, **keywords)
    frames = SequenceReplayBuffer(*arguments, **keywords)
    fill([naive, frames], steps, n_envs, stack, lengths, first)
    assert_same_windows(frames, naive, 40, horizon)
    assert_same_windows(pickle.loads(pickle.dumps(frames)), naive, 40, horizon)
    # No frame is kept that no row shows, nor one in two places.
    (store,) = frames.frame_stores.values()
    shown = [view.numbers for view in (frames.observations, getattr(frames, "next_observations", None)) if view]
    alive = {int(number) for view in [*shown, frames._recorders[0].last_numbers] for number in view.ravel()} - {-1}
    assert set(np.flatnonzero(store.uses)) == alive
    assert store.num_written == len(alive) + len(store._free)


def test_dictionaries_hold_images_beside_other_things():
    space = spaces.Dict(pixels=image_space(3), depth=spaces.Box(0, 1, (1, 20, 20)), state=spaces.Box(-1, 1, (2,)))
    naive, frames = (cls(60, space, ACTIONS, n_envs=2) for cls in (NaiveDictSequences, DictSequenceReplayBuffer))

    def wrap(images: np.ndarray) -> dict[str, np.ndarray]:
        depth = np.full((2, 1, 20, 20), images[:, -1].mean() / 255, np.float32)
        return dict(pixels=images, depth=depth, state=images[:, 0, 0, :2] / np.float32(255))

    fill([naive, frames], 50, 2, 3, [7, 2, 1], "repeated", wrap)
    assert set(frames.frame_stores) == {"pixels", "depth"}
    assert_same_windows(frames, naive, 50, 4)
    assert_same_windows(pickle.loads(pickle.dumps(frames)), naive, 50, 4)


@pytest.mark.parametrize(
    ("kind", "base", "keywords"),
    [(OneStepFrames, ReplayBuffer, {}), (NStepFrames, NStepReplayBuffer, dict(n_steps=3, gamma=0.9))],
)
def test_buffers_of_stable_baselines3_draw_the_same(kind, base, keywords):
    buffers = [cls(40, image_space(3), ACTIONS, device="cpu", n_envs=2, **keywords) for cls in (kind, base)]
    fill(buffers, 70, 2, 3, [6, 2], "repeated")
    batches = []
    for buffer in buffers:
        np.random.seed(0)
        batches.append(buffer.sample(64))
    for first, second in zip(*batches, strict=True):
        assert_equal(first, second)


def test_a_frame_is_stored_once():
    """An episode of 10 steps shows 11 different frames, and they take 11 frames of memory."""
    buffer = SequenceReplayBuffer(1000, image_space(3), ACTIONS)
    fill([buffer], 100, 1, 3, [10], "repeated")
    (store,) = buffer.frame_stores.values()
    assert store.num_written == 10 * 11
    assert store.nbytes == 10 * 11 * 3 * 10 * 11
    naive = NaiveSequences(1000, image_space(3), ACTIONS)
    fill([naive], 100, 1, 3, [10], "repeated")
    assert naive.observations[:100].nbytes + naive.next_observations[:100].nbytes == 200 * 9 * 10 * 11


def test_overwritten_frames_make_room():
    buffer = SequenceReplayBuffer(50, image_space(3), ACTIONS)
    fill([buffer], 2000, 1, 3, [10], "repeated")
    (store,) = buffer.frame_stores.values()
    assert store.num_written <= 50 + 6 + 4
    assert len(store.blocks) <= 2


def test_a_wrong_stack_costs_memory_and_nothing_else():
    buffers = [
        NaiveSequences(40, image_space(3), ACTIONS),
        *(SequenceReplayBuffer(40, image_space(3), ACTIONS, frame_stack=stack) for stack in (1, 3, 9)),
    ]
    fill(buffers, 70, 1, 3, [10, 4], "repeated")
    for buffer in buffers[1:]:
        assert_same_windows(buffer, buffers[0], 50, 3)
    sizes = [buffer.frame_stores[None].nbytes for buffer in buffers[1:]]
    assert sizes[1] < sizes[0]
    assert sizes[1] < sizes[2]


@pytest.mark.parametrize(("channels", "stack"), [(9, 3), (3, 3), (4, 4), (1, 1), (12, 4)])
def test_the_stack_is_read_off_the_channels(channels, stack):
    buffer = SequenceReplayBuffer(20, spaces.Box(0, 255, (channels, 20, 20), np.uint8), ACTIONS)
    assert buffer.observations.recorder.stack == stack


@pytest.mark.parametrize("grey", [True, False])
def test_three_channels_are_stored_once_whether_they_are_a_grey_stack_or_one_colour_frame(grey):
    space, length = spaces.Box(0, 255, (3, 20, 20), np.uint8), 100
    buffers = [NaiveSequences(length, space, ACTIONS), SequenceReplayBuffer(length, space, ACTIONS)]
    film = np.random.default_rng(0).integers(0, 256, (length + 3, 1 if grey else 3, 20, 20), np.uint8)
    shown = [film[t : t + 3].reshape(1, 3, 20, 20) if grey else film[t : t + 1] for t in range(length + 1)]
    for t in range(length):
        for buffer in buffers:
            buffer.add(shown[t], shown[t + 1], np.zeros((1, 1)), np.zeros(1), np.array([False]), [{}])
    assert_same_windows(buffers[1], buffers[0], 50, 3)
    (store,) = buffers[1].frame_stores.values()
    assert store.nbytes <= (length + 3) * film[0].nbytes
    assert len(store.blocks) == 1


def test_stacks_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"frame_stack must divide.*got 4 for the shape \(9, 10, 11\)"):
        SequenceReplayBuffer(20, image_space(3), ACTIONS, frame_stack=4)
    with pytest.raises(ValueError, match="under key 'pixels'"):
        DictSequenceReplayBuffer(20, spaces.Dict(pixels=image_space(3)), ACTIONS, frame_stack=2)


def test_images_are_read_whole():
    buffer = SequenceReplayBuffer(20, image_space(3), ACTIONS)
    with pytest.raises(IndexError, match="read whole"):
        buffer.observations[0, 0, 1]


def test_a_large_buffer_asks_for_no_memory_before_it_is_filled():
    """Five hundred thousand observations of 84 x 84 x 9 would be 63 GB."""
    space = spaces.Box(0, 255, (9, 84, 84), np.uint8)
    buffer = SequenceReplayBuffer(500_000, space, ACTIONS)
    store = buffer.frame_stores[None]
    assert store.nbytes == 0
    assert store.capacity * 3 * 84 * 84 < 11e9
    assert buffer.observations.shape == (500_000, 1, 9, 84, 84)


def test_reset_forgets_everything():
    buffer = SequenceReplayBuffer(50, image_space(3), ACTIONS)
    naive = NaiveSequences(50, image_space(3), ACTIONS)
    fill([buffer, naive], 70, 1, 3, [10], "repeated")
    buffer.reset()
    naive.reset()
    assert buffer.frame_stores[None].nbytes == 0
    with pytest.raises(ValueError, match="add a transition first"):
        buffer.sample_sequences(4, 3)
    fill([buffer, naive], 33, 1, 3, [5], "own")
    assert_same_windows(buffer, naive, 50, 3)


class Film(gym.Env[np.ndarray, np.ndarray]):
    """Noise of 36 x 36 pixels for seven steps."""

    observation_space = spaces.Box(0, 255, (36, 36, 3), np.uint8)
    action_space = ACTIONS

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.t = 0
        return self._image(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.t += 1
        return self._image(), 1.0, False, self.t == 7, {}

    def _image(self) -> np.ndarray:
        return self.np_random.integers(0, 256, (36, 36, 3), dtype=np.uint8)


def test_stacks_of_stable_baselines3_s_wrapper_are_recognised(difftori):
    env = VecFrameStack(DummyVecEnv([Film, Film]), 3, channels_order="last")
    model = difftori.make(env, "CnnPolicy", buffer_size=200, learning_starts=10**6).learn(60)
    buffer = model.replay_buffer
    assert buffer.observations.recorder.stack == 3
    # Thirty steps in each: 4 episodes and a half, each with one frame of zeros and one before its first step.
    assert buffer.frame_stores[None].num_written == 2 * (30 + 5 * 2)
