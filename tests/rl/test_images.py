"""Images between replay and networks: who is moved, and by how much; and real steps of learning from pixels."""

from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.wrappers import FrameStackObservation, ReshapeObservation
from stable_baselines3.common.preprocessing import preprocess_obs

from difftori_gym import DiffTORI, make_env
from difftori_gym.models import CombinedEncoder
from difftori_gym.rl.images import augmented, has_images, preprocessed
from difftori_gym.rl.sequence_buffer import SequenceBatch
from difftori_gym.rl.update import Updater

IMAGE = spaces.Box(0, 255, (3, 42, 42), np.uint8)
VECTOR = spaces.Box(-1, 1, (4,))
BOTH = spaces.Dict(pixels=IMAGE, state=VECTOR)


def batch_of(observations: Any, following: Any) -> SequenceBatch:
    ones = torch.ones(5, 2)
    return SequenceBatch(
        observations, torch.zeros(5, 2, 1), following, ones, ones, ones, ones, ones[:, 0], np.arange(5)
    )


def images(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, (*shape, 3, 42, 42), dtype=torch.uint8)


def is_moved(moved: torch.Tensor, image: torch.Tensor, by: int) -> bool:
    """Whether the inner part of an image is found again, at most ``by`` pixels away."""
    inner = image[:, by:-by, by:-by]
    height, width = inner.shape[1:]
    return any(
        torch.equal(moved[:, y : y + height, x : x + width], inner)
        for y in range(2 * by + 1)
        for x in range(2 * by + 1)
    )


def test_images_are_moved_and_nothing_else():
    torch.manual_seed(0)
    first, following = images(5), images(5, 2)
    state, next_state = torch.rand(5, 4), torch.rand(5, 2, 4)
    batch = batch_of(dict(pixels=first, state=state), dict(pixels=following, state=next_state))
    moved = augmented(batch, BOTH)
    assert moved.observations["state"] is state
    assert moved.next_observations["state"] is next_state
    assert moved.observations["pixels"].shape == first.shape
    assert moved.next_observations["pixels"].shape == following.shape
    pairs = [*zip(moved.observations["pixels"], first, strict=True)]
    pairs += zip(moved.next_observations["pixels"].flatten(0, 1), following.flatten(0, 1), strict=True)
    # 42 pixels are moved by up to two.
    assert all(is_moved(new, old, 2) for new, old in pairs)
    assert any(not torch.equal(new, old) for new, old in pairs)
    for name in ("actions", "rewards", "terminated", "mask", "next_valid", "weights", "indices"):
        assert getattr(moved, name) is getattr(batch, name)


@pytest.mark.parametrize(("space", "shift"), [(VECTOR, None), (VECTOR, 4), (spaces.Dict(a=VECTOR), None), (IMAGE, 0)])
def test_states_are_left_alone(space, shift):
    batch = batch_of(torch.rand(5, 4), torch.rand(5, 2, 4))
    assert augmented(batch, space, shift) is batch


def test_images_alone_and_a_shift_of_one_s_own():
    batch = batch_of(images(5), images(5, 2))
    moved = augmented(batch, IMAGE, 7)
    assert all(is_moved(new, old, 7) for new, old in zip(moved.observations, batch.observations, strict=True))
    assert not all(is_moved(new, old, 2) for new, old in zip(moved.observations, batch.observations, strict=True))


def test_who_has_images():
    assert has_images(IMAGE)
    assert has_images(BOTH)
    assert not has_images(VECTOR)
    assert not has_images(spaces.Dict(a=VECTOR))


@pytest.mark.parametrize("normalize", [True, False])
def test_preprocessing_is_stable_baselines3_s(normalize):
    observation = dict(pixels=images(5), state=torch.rand(5, 4))
    ours = preprocessed(observation, BOTH, normalize_images=normalize)
    theirs = preprocess_obs(observation, BOTH, normalize_images=normalize)
    assert ours.keys() == theirs.keys()
    for key in ours:
        assert torch.equal(ours[key], theirs[key])
    assert torch.equal(preprocessed(images(0), IMAGE, normalize_images=True), torch.zeros(0, 3, 42, 42))


class Pixels(gym.ObservationWrapper[Any, np.ndarray, Any]):
    """What ``env.render()`` shows, channels first, beside the state if asked for."""

    def __init__(self, env: gym.Env[Any, np.ndarray], size: int, beside: bool) -> None:
        super().__init__(env)
        self.beside = beside
        pixels = spaces.Box(0, 255, (3, size, size), np.uint8)
        self.observation_space = spaces.Dict(pixels=pixels, state=env.observation_space) if beside else pixels

    def observation(self, observation: Any) -> Any:
        image = np.ascontiguousarray(np.asarray(self.env.render()).transpose(2, 0, 1))
        return dict(pixels=image, state=observation) if self.beside else image


def cartpole(size: int = 36, beside: bool = False) -> gym.Env[Any, np.ndarray]:
    pytest.importorskip("dm_control")
    settings: dict[str, Any] = dict(render_mode="rgb_array", width=size, height=size)
    env: gym.Env[Any, Any] = Pixels(make_env("dm_control/cartpole-swingup", **settings), size, beside)
    return env if beside else ReshapeObservation(FrameStackObservation(env, 3), (9, size, size))


def quick(env: Any, policy: str, **settings: Any) -> DiffTORI:
    kwargs: dict[str, Any] = dict(net_arch=[16], **settings.pop("policy_kwargs", {}))
    small: dict[str, Any] = dict(
        buffer_size=200, learning_starts=12, batch_size=8, train_freq=4, horizon=2, pg_freq=1,
        planner_kwargs=dict(max_iterations=2),
        pg_batch_size=4, schedule_steps=0, device="cpu", seed=0,
    )  # fmt: skip
    return DiffTORI(policy, env, policy_kwargs=kwargs, **{**small, **settings})


def test_learns_from_pixels_of_dm_control(tmp_path):
    env = cartpole()
    model = quick(env, "CnnPolicy")
    assert model.observation_space.shape == (9, 36, 36)
    assert model.policy.slow_targets
    before = {name: value.clone() for name, value in model.policy.state_dict().items()}
    model.learn(28)
    after = model.policy.state_dict()
    moved = {name for name, value in after.items() if not torch.equal(before[name], value)}
    for part in ("encoder", "encoder_target", "raw_critic", "raw_critic_target"):
        assert f"{part}.features_extractor.convolutions.0.weight" in moved
    assert all(torch.isfinite(value).all() for value in after.values())
    # Twenty-eight steps of one episode, its first frame repeated.
    assert model.replay_buffer.frame_stores[None].num_written == 29
    model.save(tmp_path / "model")
    observation = env.reset(seed=1)[0]
    expected = model.predict(observation, deterministic=True)[0]
    loaded = DiffTORI.load(tmp_path / "model", device="cpu")
    np.testing.assert_array_equal(loaded.predict(observation, deterministic=True)[0], expected)
    env.close()


def test_learns_from_pixels_and_state_of_dm_control():
    env = cartpole(beside=True)
    model = quick(env, "MultiInputPolicy").learn(20)
    assert isinstance(model.policy.encoder.features_extractor, CombinedEncoder)
    assert set(model.replay_buffer.frame_stores) == {"pixels"}
    assert all(torch.isfinite(value).all() for value in model.policy.state_dict().values())
    env.close()


def test_the_update_moves_images_and_encodes_targets_once(difftori, point_env, monkeypatch):
    model = difftori.make(point_env("image"), "CnnPolicy", buffer_size=60, gradient_steps=0).learn(20)
    policy = model.policy
    seen: dict[str, list[torch.Tensor]] = {"encoder": [], "encoder_target": [], "raw_critic": []}
    for name, inputs in seen.items():
        getattr(policy, name).features_extractor.register_forward_pre_hook(
            lambda _module, args, inputs=inputs: inputs.append(args[0].detach())
        )
    batch = model.replay_buffer.sample_sequences(8, 3)
    settings = replace(model.update_settings, pg_coef=1.0, pg_freq=10)
    policy.image_shift = 3
    Updater(policy, settings).update(batch, 1)
    original = policy.preprocess(batch.observations)
    assert [len(inputs) for inputs in seen["encoder"]] == [8]
    assert [len(inputs) for inputs in seen["encoder_target"]] == [24]
    assert not torch.equal(seen["encoder"][0], original)
    assert torch.equal(seen["encoder"][0], seen["raw_critic"][0])
    for inputs in seen.values():
        inputs.clear()
    policy.image_shift, policy.slow_targets = 0, False
    Updater(policy, settings).update(batch, 1)
    assert sorted(len(inputs) for inputs in seen["encoder"]) == [8, 24]
    assert [len(inputs) for inputs in seen["encoder_target"]] == [24]
    assert torch.equal(seen["raw_critic"][0], original)


def test_states_have_targets_as_published(difftori, point_env):
    assert not difftori.make(point_env()).policy.slow_targets
    assert difftori.make(point_env(), policy_kwargs=dict(slow_targets=True)).policy.slow_targets
