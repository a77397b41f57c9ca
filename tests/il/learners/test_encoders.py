"""Images and point clouds of real MetaWorld episodes: encoders that nobody names, and shifted images."""

import numpy as np
import pytest
import torch

from difftori_gym.envs.rendering import gl_backend_works, select_gl_backend

select_gl_backend()  # before the first import of MuJoCo
pytest.importorskip("metaworld")
if not (gl_backend_works("egl") or gl_backend_works("osmesa")):
    pytest.skip("MuJoCo cannot draw on this machine", allow_module_level=True)

from difftori_gym.baselines import BC, BCRNN, IBC, MIP, DiffusionPolicy, FlowMatching, Residual  # noqa: E402
from difftori_gym.envs import make_env  # noqa: E402
from difftori_gym.envs.metaworld import scripted_expert  # noqa: E402
from difftori_gym.il import Demonstrations, DiffTORIImitation, Episode  # noqa: E402
from difftori_gym.models import CombinedEncoder, ImageEncoder, PointNetEncoder, StateEncoder  # noqa: E402

STEPS = 12


@pytest.fixture(scope="module")
def demonstrations_of():
    """Beginnings of two episodes of the scripted expert, by kind of observation."""
    cache = {}

    def record(kind):
        env = make_env("metaworld/reach", obs=kind, seed=0)
        expert, episodes = scripted_expert("reach"), []
        for _ in range(2):
            observation, _ = env.reset()
            observations, actions = [observation], []
            for _ in range(STEPS):
                actions.append(expert(env.get_wrapper_attr("state")))
                observations.append(env.step(actions[-1])[0])
            stacked = (
                {key: np.stack([each[key] for each in observations]) for key in observation}
                if isinstance(observation, dict)
                else np.stack(observations)
            )
            episodes.append(Episode(stacked, np.stack(actions), np.zeros(STEPS), False, True))
        env.close()
        return Demonstrations(tuple(episodes), env.observation_space, env.action_space, "metaworld/reach", kind)

    return lambda kind: cache.setdefault(kind, record(kind)) if kind not in cache else cache[kind]


def policy_of(kind):
    return "MultiInputPolicy" if kind == "pointcloud" else "CnnPolicy"


WINDOW = dict(n_obs_steps=2, horizon=4, n_action_steps=3)
LEARNERS = {
    "bc": (BC, WINDOW),
    "bcrnn": (BCRNN, dict(n_obs_steps=3, policy_kwargs=dict(hidden_dim=16))),
    "ibc": (IBC, dict(policy_kwargs=dict(width=16, depth=2, num_counter_examples=8, num_action_samples=32))),
    "diffusion": (DiffusionPolicy, dict(WINDOW, size="small")),
    "flow": (FlowMatching, dict(WINDOW, size="small")),
    "mip": (MIP, dict(WINDOW, size="small")),
    "residual": (Residual, WINDOW),
    "difftori": (DiffTORIImitation, dict(WINDOW, planner_kwargs=dict(max_iterations=3, backward_num_iterations=2))),
}


@pytest.mark.parametrize("kind", ["pixels", "pointcloud"])
@pytest.mark.parametrize("name", list(LEARNERS))
def test_learners_find_their_encoder(name, kind, demonstrations_of):
    if name == "diffusion":
        pytest.importorskip("diffusers")
    demonstrations = demonstrations_of(kind)
    learner, settings = LEARNERS[name]
    common = dict(batch_size=4, seed=0, device="cpu")
    base = {}
    if name in ("residual", "difftori"):
        base = dict(base_policy=BC(policy_of(kind), None, demonstrations, **WINDOW, **common))
    model = learner(policy_of(kind), None, demonstrations, **common, **settings, **base)
    extractor = model.policy.network.encoder.features_extractor
    if kind == "pixels":
        assert isinstance(extractor, ImageEncoder)
        learned = next(extractor.convolutions.parameters())
    else:
        assert isinstance(extractor, CombinedEncoder)
        cloud, agent = extractor.encoders["point_cloud"], extractor.encoders["agent_pos"]
        assert isinstance(cloud, PointNetEncoder)
        assert isinstance(agent, StateEncoder)
        linear = [layer for layer in (*cloud.points, *cloud.final) if isinstance(layer, torch.nn.Linear)]
        assert [layer.out_features for layer in linear] == [64, 128, 256, 64]  # DP3's sizes
        learned = linear[0].weight
    before = learned.detach().clone()
    model.learn(2)
    assert not torch.equal(before, learned)  # the loss reaches the first layer

    episode = demonstrations.episodes[0].observations
    some = {key: value[:3] for key, value in episode.items()} if isinstance(episode, dict) else episode[:3]
    together, _ = model.predict(some, deterministic=True)
    for index in range(3):
        one = {key: value[index] for key, value in some.items()} if isinstance(some, dict) else some[index]
        alone, _ = model.predict(one, deterministic=True)
        np.testing.assert_allclose(alone, together[index], atol=1e-4)


def test_images_are_shifted_in_training_only(demonstrations_of):
    demonstrations = demonstrations_of("pixels")
    settings = dict(batch_size=4, seed=0, device="cpu", n_obs_steps=2)
    plain = BC("CnnPolicy", None, demonstrations, **settings)
    moved = BC("CnnPolicy", None, demonstrations, **settings, policy_kwargs=dict(image_shift=None))
    one, other = plain._dataset.sample(8).observations, moved._dataset.sample(8).observations
    assert one.shape == other.shape == (8, 2, 9, 84, 84)
    assert one.dtype == other.dtype == torch.uint8
    assert not torch.equal(one, other)
    # Each is the other moved by at most 4 pixels: the middle is found again somewhere.
    middle = other[0, 0, :, 8:-8, 8:-8]
    found = [
        torch.equal(middle, one[0, 0, :, 8 + row : 76 + row, 8 + column : 76 + column])
        for row in range(-4, 5)
        for column in range(-4, 5)
    ]
    assert any(found)
    indices = np.arange(4)
    torch.testing.assert_close(moved._dataset.batch(indices).observations, plain._dataset.batch(indices).observations)
    with pytest.raises(ValueError, match="image_shift >= 0, or None for a 21st of the width, got -1"):
        BC("CnnPolicy", None, demonstrations, **settings, policy_kwargs=dict(image_shift=-1))


def test_clouds_stay_where_they_are(demonstrations_of):
    demonstrations = demonstrations_of("pointcloud")
    model = BC("MultiInputPolicy", None, demonstrations, seed=0, device="cpu", policy_kwargs=dict(image_shift=None))
    batch = model._dataset.sample(4).observations
    clouds = torch.as_tensor(np.concatenate([e.observations["point_cloud"][:-1] for e in demonstrations.episodes]))
    assert (batch["point_cloud"][:, 0, None] == clouds[None]).flatten(2).all(dim=2).any(dim=1).all()
