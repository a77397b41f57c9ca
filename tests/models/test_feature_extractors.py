"""Feature extractors: shapes, sizes, invariances, refusals, real learning steps of SB3's algorithms."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import PPO, SAC, TD3
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import nn

from difftori_gym.models import CombinedEncoder, ImageEncoder, PointNetEncoder, StateEncoder, observation_kind
from difftori_gym.models.image_encoder import FRAME_DIM


def image_space(size: int = 84, channels: int = 9) -> spaces.Box:
    return spaces.Box(0, 255, (channels, size, size), np.uint8)


def cloud_space(points: int = 64, columns: int = 3) -> spaces.Box:
    return spaces.Box(-1, 1, (points, columns), np.float32)


VECTOR = spaces.Box(-1, 1, (9,), np.float32)
EVERYTHING = spaces.Dict(
    pixels=image_space(36), state=spaces.Box(-1, 1, (5,)), point_cloud=cloud_space(), agent_pos=VECTOR
)


def test_the_paper_s_convolutions():
    encoder = ImageEncoder(image_space())
    convolutions = [layer for layer in encoder.modules() if isinstance(layer, nn.Conv2d)]
    assert [layer.kernel_size[0] for layer in convolutions] == [7, 5, 3, 3]
    assert [layer.in_channels for layer in convolutions] == [9, 32, 32, 32]
    assert all(layer.out_channels == 32 and layer.stride == (2, 2) for layer in convolutions)
    assert all(layer.padding == (0, 0) for layer in convolutions)
    assert encoder.linear.in_features == 32 * 3 * 3  # 84 -> 39 -> 18 -> 8 -> 3
    assert encoder.features_dim == encoder.linear.out_features == 50


@pytest.mark.parametrize(("height", "width"), [(84, 84), (64, 64), (36, 36), (31, 31), (48, 64), (240, 320)])
@pytest.mark.parametrize("channels", [1, 3, 9])
def test_images_of_many_sizes(height, width, channels):
    space = spaces.Box(0, 255, (channels, height, width), np.uint8)
    features = ImageEncoder(space)(torch.rand(2, channels, height, width))
    assert features.shape == (2, 50)
    assert torch.isfinite(features).all()
    assert not torch.equal(features[0], features[1])


def test_the_layout_in_memory_does_not_matter():
    encoder = ImageEncoder(image_space())
    images = torch.rand(3, 9, 84, 84)
    expected = encoder.linear(encoder.convolutions(images).flatten(1))
    torch.testing.assert_close(encoder(images), expected)
    torch.testing.assert_close(encoder(images.contiguous(memory_format=torch.channels_last)), expected)
    # SB3 flattens parameters with a view when it makes a vector of them.
    assert nn.utils.parameters_to_vector(encoder.parameters()).numel() == sum(p.numel() for p in encoder.parameters())


def test_drq_v2_s_own_encoder_can_be_written():
    encoder = ImageEncoder(image_space(), kernels=(3, 3, 3, 3), strides=(2, 1, 1, 1), squash=True)
    assert encoder.linear.in_features == 32 * 35 * 35
    features = encoder(torch.rand(2, 9, 84, 84))
    assert (features.abs() < 1).all()


@pytest.mark.parametrize("size", [31, 84])  # the smaller one is padded
def test_whitened_images(size):
    scene = 0.5 + 0.05 * torch.rand(10, 1, 1, 1) + torch.linspace(0, 0.4, size)
    images = scene + 0.1 * torch.rand(10, 1, size, size) + 0.05 * torch.rand(10, 3, size, size)
    encoder = ImageEncoder(image_space(size, 3), whiten=True)
    first = encoder.convolutions[0]
    encoder(images)
    torch.testing.assert_close(first.running_mean[0], images.mean(0))
    whitened = torch.einsum("ic,bchw->bihw", first.running_whitening, images - images.mean(0))
    torch.testing.assert_close(torch.cov(whitened.movedim(1, 0).flatten(1)), torch.eye(3), rtol=1e-2, atol=1e-2)
    encoder.eval()
    plain = ImageEncoder(image_space(size, 3))
    plain.load_state_dict({name: encoder.state_dict()[name] for name in plain.state_dict()})
    torch.testing.assert_close(encoder(images), plain(whitened), rtol=1e-3, atol=1e-3)


def test_whitening_learns_from_images_in_training_mode_only():
    encoder = ImageEncoder(image_space(36, 3), whiten=True)
    first = encoder.convolutions[0]
    batches = torch.rand(4, 5, 3, 36, 36)
    for batch in batches:
        encoder.train()
        encoder(batch)
        encoder.eval()
        features = encoder(batch + 1.0)
        torch.testing.assert_close(encoder(batch + 1.0), features, rtol=0, atol=0)
    torch.testing.assert_close(first.running_mean[0], batches.flatten(0, 1).mean(0))
    encoder.train()
    encoder(torch.full((2, 3, 36, 36), 0.5))  # images without any contrast stay finite
    blank = ImageEncoder(image_space(36, 3), whiten=True)
    assert torch.isfinite(blank(torch.full((2, 3, 36, 36), 0.5))).all()


def test_the_mean_image_is_saved_and_loaded():
    encoder = ImageEncoder(image_space(36, 3), whiten=True)
    encoder(torch.rand(4, 3, 36, 36))
    state = {name: value.contiguous() for name, value in encoder.state_dict().items()}
    loaded = ImageEncoder(image_space(36, 3), whiten=True)
    loaded.load_state_dict(state)
    images = torch.rand(2, 3, 36, 36)
    torch.testing.assert_close(loaded.eval()(images), encoder.eval()(images), rtol=0, atol=0)
    assert not any("mean" in name for name in ImageEncoder(image_space(36, 3)).state_dict())


@pytest.mark.parametrize("size", [8, 30])
def test_images_that_are_too_small_are_refused(size):
    with pytest.raises(ValueError, match=rf"at least 31 x 31 pixels.*got \(9, {size}, {size}\)"):
        ImageEncoder(image_space(size))


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (VECTOR, "expected images .*use MlpPolicy"),
        (spaces.Box(0, 255, (84, 84, 9), np.uint8), "channel-first images.*VecTransposeImage"),
    ],
)
def test_what_is_no_channel_first_image_is_refused(space, message):
    with pytest.raises(ValueError, match=message):
        ImageEncoder(space)


def test_a_stack_may_have_more_channels_than_a_row_has_pixels():
    assert ImageEncoder(spaces.Box(0, 255, (50, 41, 40), np.uint8))(torch.rand(2, 50, 41, 40)).shape == (2, 50)


def test_images_take_stable_baselines3_s_number_of_features():
    encoder = CombinedEncoder(EVERYTHING, cnn_output_dim=7)
    sizes = [part.features_dim for part in encoder.encoders.values() if isinstance(part, ImageEncoder)]
    assert sizes == [7] * len(sizes)
    assert sizes


def test_as_many_strides_as_kernels():
    with pytest.raises(ValueError, match="one stride per kernel, got 4 and 2"):
        ImageEncoder(image_space(), strides=(2, 2))


def test_flow_reads_frames_one_by_one_and_tells_their_order():
    torch.manual_seed(0)
    encoder = ImageEncoder(image_space(), flow=3)
    first = next(layer for layer in encoder.modules() if isinstance(layer, nn.Conv2d))
    assert first.in_channels == image_space().shape[0] // 3
    a, b = torch.rand(2, 2, *image_space().shape).unflatten(2, (3, -1)).unbind()
    still = torch.stack([a[:, 2]] * 3, dim=1)
    forward, backward = torch.stack([b[:, 0], b[:, 1], a[:, 2]], 1), torch.stack([b[:, 1], b[:, 0], a[:, 2]], 1)
    seen = [encoder(stack.flatten(1, 2)) for stack in (still, forward, backward)]
    assert all(each.shape == (2, 50) for each in seen)
    assert not torch.allclose(seen[1], seen[2])
    with torch.no_grad():  # the differences alone
        encoder.linear.weight[:, :FRAME_DIM] = 0.0
    torch.testing.assert_close(encoder(still.flatten(1, 2)), encoder.linear.bias.expand(2, -1))
    assert not torch.allclose(encoder(forward.flatten(1, 2)), encoder.linear.bias.expand(2, -1))


@pytest.mark.parametrize("flow", [0, -1, 2])
def test_flow_is_a_number_of_frames(flow):
    with pytest.raises(ValueError, match=f"divides 9 channels, got {flow}: give the number of stacked frames"):
        ImageEncoder(image_space(), flow=flow)


def test_dp3_s_sizes():
    encoder = PointNetEncoder(cloud_space(512))
    sizes = [(layer.in_features, layer.out_features) for layer in encoder.modules() if isinstance(layer, nn.Linear)]
    assert sizes == [(3, 64), (64, 128), (128, 256), (256, 64)]
    assert sum(isinstance(layer, nn.LayerNorm) for layer in encoder.modules()) == 4
    state = StateEncoder(VECTOR)
    sizes = [(layer.in_features, layer.out_features) for layer in state.modules() if isinstance(layer, nn.Linear)]
    assert sizes == [(9, 64), (64, 64)]


def test_the_order_and_number_of_points_do_not_matter():
    encoder = PointNetEncoder(cloud_space(40))
    cloud = torch.randn(3, 40, 3)
    features = encoder(cloud)
    torch.testing.assert_close(encoder(cloud[:, torch.randperm(40)]), features)
    torch.testing.assert_close(encoder(torch.cat([cloud, cloud[:, :7]], dim=1)), features)
    assert not torch.allclose(encoder(cloud + 0.5), features)


@pytest.mark.parametrize("batch", [0, 1, 210])  # 210 clouds of 40 points go through the layers in three pieces
def test_the_graph_of_the_greatest_numbers_gives_the_gradient_of_all(batch):
    torch.manual_seed(0)
    encoder = PointNetEncoder(cloud_space(40)).double()
    cloud = torch.randn(batch, 40, 3, dtype=torch.float64)
    cloud[:, 30:] = cloud[:, :1]  # a cloud of too few points is filled up by repeating one
    cloud.requires_grad_()
    variables = [cloud, *encoder.parameters()]
    expected = encoder.final(encoder.points(cloud).amax(dim=1))
    found = encoder(cloud)
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(found)
    gradients, of_all = (torch.autograd.grad((each * weights).sum(), variables) for each in (found, expected))
    # Of equal points one takes the whole gradient.
    for each in gradients[0], of_all[0]:
        each[:, 0] += each[:, 30:].sum(dim=1)
        each[:, 30:] = 0.0
    torch.testing.assert_close(gradients, of_all, rtol=1e-9, atol=1e-9)
    with torch.no_grad():
        torch.testing.assert_close(encoder(cloud), expected.detach())


def test_colours_are_read_or_left_out():
    cloud = torch.rand(2, 40, 6)
    grey = torch.cat([cloud[..., :3], torch.zeros(2, 40, 3)], dim=-1)
    seeing = PointNetEncoder(cloud_space(40, 6))
    blind = PointNetEncoder(cloud_space(40, 6), use_color=False)
    assert not torch.allclose(seeing(cloud), seeing(grey))
    torch.testing.assert_close(blind(cloud), blind(grey))


@pytest.mark.parametrize("space", [VECTOR, cloud_space(40, 4), spaces.Discrete(3)])
def test_what_is_no_cloud_is_refused(space):
    with pytest.raises(ValueError, match="expected point clouds"):
        PointNetEncoder(space)


@pytest.mark.parametrize(
    ("space", "key", "kind"),
    [
        (image_space(), None, "image"),
        (spaces.Box(0, 1, (3, 64, 64), np.float32), None, "image"),
        (spaces.Box(0, 255, (64, 64, 3), np.uint8), None, "image"),
        (spaces.Box(0, 1, (9, 4, 2), np.float32), None, "vector"),
        (cloud_space(512), None, "point_cloud"),
        (cloud_space(512, 6), "points", "point_cloud"),
        (cloud_space(4), "goals", "vector"),
        (cloud_space(4), "point_cloud", "point_cloud"),
        (spaces.Box(-1, 1, (7, 7, 7)), "state", "vector"),
        (VECTOR, None, "vector"),
        (spaces.Discrete(4), None, "vector"),
    ],
)
def test_kinds(space, key, kind):
    assert observation_kind(space, key) == kind


def test_each_entry_gets_its_own_encoder():
    encoder = CombinedEncoder(EVERYTHING, image_kwargs=dict(features_dim=7), vector_kwargs=dict(hidden_dims=()))
    kinds = {key: type(part) for key, part in encoder.encoders.items()}
    assert kinds == dict(pixels=ImageEncoder, state=StateEncoder, point_cloud=PointNetEncoder, agent_pos=StateEncoder)
    assert encoder.features_dim == 7 + 64 + 64 + 64
    observation = {key: torch.rand(2, *space.shape) for key, space in EVERYTHING.spaces.items()}
    features = encoder(observation)
    assert features.shape == (2, encoder.features_dim)
    for key in observation:
        changed = encoder({**observation, key: observation[key] + 0.1 * torch.rand_like(observation[key])})
        assert not torch.allclose(changed, features), key


def test_vectors_alone_are_only_flattened():
    space = spaces.Dict(a=spaces.Box(-1, 1, (2, 2)), b=VECTOR)
    encoder = CombinedEncoder(space)
    assert list(encoder.parameters()) == []
    a, b = torch.rand(3, 2, 2), torch.rand(3, 9)
    torch.testing.assert_close(encoder(dict(a=a, b=b)), torch.cat([a.flatten(1), b], dim=1))


def test_a_dictionary_is_expected():
    with pytest.raises(ValueError, match=r"expected a dictionary.*use ImageEncoder"):
        CombinedEncoder(VECTOR)


class Seen(gym.Env[Any, np.ndarray]):
    """Observations drawn from a space, the reward is minus the squared action."""

    def __init__(self, space: spaces.Space[Any]) -> None:
        self.observation_space, self.action_space = space, spaces.Box(-1, 1, (2,))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.t = 0
        return self.observation_space.sample(), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        return self.observation_space.sample(), -float(np.square(action).sum()), False, self.t == 6, {}


OFF_POLICY = dict(buffer_size=40, learning_starts=8, batch_size=8)
ALGORITHMS = {
    SAC: OFF_POLICY,
    TD3: OFF_POLICY,
    PPO: dict(n_steps=16, batch_size=8, n_epochs=1),
}
SPACES = {
    ImageEncoder: ("CnnPolicy", image_space(36, 3)),
    PointNetEncoder: ("MlpPolicy", cloud_space(40, 6)),
    StateEncoder: ("MlpPolicy", VECTOR),
    CombinedEncoder: ("MultiInputPolicy", EVERYTHING),
}


@pytest.mark.parametrize("extractor", list(SPACES))
@pytest.mark.parametrize("algorithm", list(ALGORITHMS))
def test_stable_baselines3_learns_with_them(algorithm, extractor, tmp_path):
    policy, space = SPACES[extractor]
    env = Seen(space)
    kwargs = dict(features_extractor_class=extractor, net_arch=[16])
    model = algorithm(policy, env, policy_kwargs=kwargs, seed=0, device="cpu", **ALGORITHMS[algorithm])
    owner = model.policy if algorithm is PPO else model.critic
    assert isinstance(owner.features_extractor, extractor)
    before = [parameter.detach().clone() for parameter in owner.features_extractor.parameters()]
    model.learn(16)
    after = list(owner.features_extractor.parameters())
    assert any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))
    assert all(torch.isfinite(parameter).all() for parameter in after)
    model.save(tmp_path / "model")
    observation = env.reset(seed=1)[0]
    loaded = algorithm.load(tmp_path / "model", device="cpu")
    np.testing.assert_array_equal(
        loaded.predict(observation, deterministic=True)[0], model.predict(observation, deterministic=True)[0]
    )


@pytest.mark.parametrize("algorithm", list(ALGORITHMS))
def test_stable_baselines3_learns_from_whitened_images(algorithm):
    kwargs = dict(features_extractor_class=ImageEncoder, features_extractor_kwargs=dict(whiten=True), net_arch=[16])
    env = Seen(image_space(36, 3))
    model = algorithm("CnnPolicy", env, policy_kwargs=kwargs, seed=0, device="cpu", **ALGORITHMS[algorithm])
    model.learn(16)
    if algorithm is PPO:
        assert model.policy.features_extractor.convolutions[0].running_batches > 0
        return
    seen, target = (net.features_extractor.convolutions[0] for net in (model.critic, model.critic_target))
    assert seen.running_batches > 0
    for name, value in seen.named_buffers():  # what the target's images are whitened with
        torch.testing.assert_close(dict(target.named_buffers())[name], value, rtol=0, atol=0, msg=name)


def test_difftori_reads_with_them_by_default():
    from difftori_gym import DiffTORI

    for policy, space, extractor in (
        ("CnnPolicy", image_space(36), ImageEncoder),
        ("MultiInputPolicy", EVERYTHING, CombinedEncoder),
        ("MlpPolicy", VECTOR, FlattenExtractor),
    ):
        model = DiffTORI(policy, Seen(space), buffer_size=20, device="cpu")
        encoder, raw = model.policy.encoder.features_extractor, model.policy.raw_critic.features_extractor
        assert type(encoder) is type(raw) is extractor
        # Q-tilde has weights of its own.
        assert not {id(p) for p in encoder.parameters()} & {id(p) for p in raw.parameters()}
        if policy == "CnnPolicy":
            assert encoder.features_dim == 50
