"""ONNX files act as predict(deterministic=True) does, for every policy, with memory, resets and all kinds of inputs."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from difftori_gym import DiffTORI, DiffTORIPolicy
from difftori_gym.baselines.bc import BCPolicy
from difftori_gym.baselines.bc_rnn import BCRNNPolicy
from difftori_gym.baselines.diffusion_policy import DiffusionUnetPolicy
from difftori_gym.baselines.drqv2 import DrQv2Policy
from difftori_gym.baselines.flow_matching import FlowUnetPolicy
from difftori_gym.baselines.ibc import IBCPolicy
from difftori_gym.baselines.mip import MIPUnetPolicy
from difftori_gym.baselines.residual import ResidualPolicy
from difftori_gym.baselines.tdmpc2_networks import TDMPC2Model
from difftori_gym.baselines.tdmpc2_planning import TDMPC2Planner
from difftori_gym.baselines.tdmpc2_policies import TDMPC2CnnPolicy, TDMPC2MultiInputPolicy, TDMPC2Policy
from difftori_gym.exports import export_onnx
from difftori_gym.il import DiffTORIImitationPolicy
from difftori_gym.il.policies import PolicySpec
from difftori_gym.rl.planning import Planner
from difftori_gym.rl.policies import CnnPolicy, MultiInputPolicy
from difftori_gym.trajopt import TrajectoryOptimizer

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

DEPLOY = Path(__file__).resolve().parents[2] / "examples" / "deploy.py"
VECTOR = spaces.Box(-3.0, 3.0, (3,))
IMAGE = spaces.Box(0, 255, (3, 48, 48), np.uint8)
CLOUD = spaces.Box(-2.0, 2.0, (40, 6))
BOTH = spaces.Dict(state=VECTOR, pixels=IMAGE)
#: Keys that are no names of modules, and a cloud.
MANY = spaces.Dict({"a.b": VECTOR, "type": spaces.Box(-1.0, 1.0, (2, 2)), "point_cloud": CLOUD})
ACTION = spaces.Box(np.array([-2.0, -1.0], np.float32), np.array([2.0, 3.0], np.float32))
DOUBLE = spaces.Box(-2.0, 2.0, (2, 2), np.float64)
SMALL = dict(net_arch=[16], latent_dim=4)
WINDOW = dict(n_obs_steps=2, horizon=4, n_action_steps=3)


def deploy():
    spec = importlib.util.spec_from_file_location("deploy", DEPLOY)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


OnnxPolicy = deploy().OnnxPolicy


def rl(
    cls=DiffTORIPolicy, observations=VECTOR, actions=ACTION, *, episodic=False, solver=None, init="policy", **kwargs
):
    planner = Planner(solver or TrajectoryOptimizer(solver="lm"), init=init, num_prior_samples=kwargs.pop("prior", 0))
    policy = cls(observations, actions, lambda _: 1e-3, **{**SMALL, "planner": planner, **kwargs})
    policy.model.episodic = episodic
    return policy


def il(cls, observations=VECTOR, **kwargs):
    return cls(observations, ACTION, lambda _: 1e-3, **{**WINDOW, **kwargs})


def base():
    policy = il(BCPolicy, net_arch=[16], head="gmm", num_modes=2, n_obs_steps=3, horizon=2, n_action_steps=1)
    return PolicySpec.of(policy)


def tdmpc2(solver="mppi", cls=TDMPC2Policy, *, prior=3, **kwargs):
    # A few iterations: where draws have converged, rounding tells elites apart, and chooses the one that acts.
    optimizer = TrajectoryOptimizer(solver=solver, max_iterations=2, momentum=0.0, **DRAWN)
    planner = TDMPC2Planner(optimizer, num_prior_samples=prior)
    policy = rl(cls, **{**dict(planner=planner, latent_dim=16, num_bins=21), **kwargs})
    torch.nn.init.normal_(policy.model.reward[-1].weight, std=0.1)  # what ends at once differs by its reward alone
    return policy


LM, ADAM = (lambda **k: TrajectoryOptimizer(solver="lm", **k)), (lambda **k: TrajectoryOptimizer(solver="adam", **k))
DRAWN = dict(num_samples=64, num_elites=8)
POLICIES = {
    "vector": lambda: rl(),
    "terminations": lambda: rl(episodic=True),
    "one step": lambda: rl(horizon=1, episodic=True),
    "norms": lambda: rl(norm_obs=True, layer_norm=True, n_critics=3, actions=DOUBLE),
    "one critic": lambda: rl(n_critics=1, net_arch=[]),
    "warm": lambda: rl(init="warm"),
    "random starts": lambda: rl(init="random", solver=LM(num_starts=4), episodic=True),
    "zero": lambda: rl(init="zero", solver=LM(max_iterations=0)),
    "clamp": lambda: rl(solver=LM(bounds="clamp", step_size=1e-4)),
    "no box": lambda: rl(solver=LM(bounds=None, num_starts=3, step_size=1e-4)),
    "adam": lambda: rl(solver=ADAM(max_iterations=4, step_size=0.05)),
    "mppi": lambda: rl(init="warm", solver=TrajectoryOptimizer(solver="mppi", **DRAWN), prior=3, episodic=True),
    "cem": lambda: rl(init="zero", solver=TrajectoryOptimizer(solver="cem", **DRAWN)),
    "tdmpc2": lambda: tdmpc2(),
    "tdmpc2, terminations": lambda: tdmpc2(episodic=True, n_critics=1, horizon=1, norm_obs=True),
    "tdmpc2, cem": lambda: tdmpc2("cem", prior=0, n_critics=2, actions=DOUBLE),
    "tdmpc2 of images": lambda: tdmpc2(cls=TDMPC2CnnPolicy, observations=IMAGE),
    "tdmpc2 of many": lambda: tdmpc2(cls=TDMPC2MultiInputPolicy, observations=MANY),
    "discrete": lambda: rl(observations=spaces.Discrete(5)),
    "several discrete": lambda: rl(observations=spaces.MultiDiscrete([3, 4])),
    "image": lambda: rl(CnnPolicy, IMAGE),
    "whitened image": lambda: rl(
        CnnPolicy,
        IMAGE,
        features_extractor_kwargs=dict(kernels=[8, 4, 3], strides=[4, 2, 1], whiten=True, squash=True),
    ),
    "frames": lambda: rl(CnnPolicy, IMAGE, features_extractor_kwargs=dict(flow=3)),
    "image and vector": lambda: rl(MultiInputPolicy, BOTH, norm_obs=True),
    "many": lambda: rl(MultiInputPolicy, MANY),
    "drqv2": lambda: DrQv2Policy(IMAGE, ACTION, lambda _: 1e-3, net_arch=[32]),
    "bc": lambda: il(BCPolicy, net_arch=[16], n_obs_steps=1),
    "bc of images": lambda: il(BCPolicy, BOTH, net_arch=[16], head="gaussian"),
    "bc of many": lambda: il(BCPolicy, MANY, net_arch=[16], n_action_steps=1),
    "bc rnn": lambda: il(BCRNNPolicy, hidden_dim=16, n_obs_steps=4, num_layers=2),
    "residual": lambda: il(ResidualPolicy, base=base(), net_arch=[16]),
    "difftori imitation": lambda: il(
        DiffTORIImitationPolicy, base=base(), init="base_policy", net_arch=[16], latent_dim=3
    ),
    "scores by step": lambda: il(
        DiffTORIImitationPolicy, objective="latent", num_latents=3, net_arch=[16], latent_dim=3, ema_decay=0.9
    ),
    "clouds": lambda: il(
        DiffTORIImitationPolicy,
        CLOUD,
        init="random",
        num_latents=2,
        net_arch=[16],
        latent_dim=3,
        trajectory_optimizer=ADAM(max_iterations=4, num_starts=4, step_size=0.05),
    ),
    "no latent": lambda: il(DiffTORIImitationPolicy, net_arch=[16], latent_dim=0, n_obs_steps=1, n_action_steps=1),
    "diffusion": lambda: il(DiffusionUnetPolicy, size="small", num_inference_steps=3, horizon=5),
    "diffusion of samples": lambda: il(
        DiffusionUnetPolicy, size="small", prediction="sample", num_inference_steps=3, ema_decay=0.9
    ),
    "flow matching": lambda: il(FlowUnetPolicy, size="small", num_inference_steps=3, horizon=5),
    "mip": lambda: il(MIPUnetPolicy, BOTH, size="small", t_star=0.8, horizon=5),
}


def stir(policy):
    """Weights and statistics as training leaves them: heads that start at zero say something."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in policy.parameters():
            weight.add_(0.15 / max(1, weight.shape[-1]) ** 0.5 * torch.randn(weight.shape, generator=generator))
        for name, value in policy.named_buffers():
            if name.endswith(("mean", "whitening", "offset")):
                value.add_(0.1 * torch.randn(value.shape, generator=generator))
            if name.endswith(("var", "scale")):
                value.mul_(0.5)
    return policy


@pytest.mark.parametrize("name", POLICIES)
def test_a_file_acts_as_its_policy(name, tmp_path):
    if name.startswith("diffusion"):
        pytest.importorskip("diffusers")
    torch.manual_seed(0)
    policy = stir(POLICIES[name]())
    deployed = OnnxPolicy(export_onnx(policy, tmp_path / "policy"))
    policy.observation_space.seed(0)
    state, start = None, np.ones(1, bool)
    apart = []
    for step in range(16):
        if step == 9:  # within a chunk
            deployed.reset()
            start = np.ones(1, bool)
        observation = policy.observation_space.sample()
        expected, state = policy.predict(observation, state, start, deterministic=True)
        start = np.zeros(1, bool)
        action = deployed.predict(observation)
        assert action.dtype == expected.dtype
        assert policy.action_space.contains(action)
        np.testing.assert_allclose(action, expected, rtol=0, atol=1e-4)
        apart.append(expected)
    assert np.ptp(apart, axis=0).max() > 1e-3 or name == "zero"  # it is a function of what it sees


ACTIVATIONS = (nn.ReLU, nn.Tanh, nn.SiLU, nn.GELU, nn.Mish, nn.Softplus, nn.LeakyReLU, nn.SELU, nn.Sigmoid)


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda each: each.__name__)
def test_every_activation_has_its_derivative(activation, tmp_path):
    torch.manual_seed(0)
    policy = stir(rl(activation_fn=activation, episodic=True, horizon=3))
    deployed = OnnxPolicy(export_onnx(policy, tmp_path / "policy.onnx"))
    policy.observation_space.seed(1)
    for _ in range(8):
        observation = policy.observation_space.sample()
        expected, _ = policy.predict(observation, deterministic=True)
        np.testing.assert_allclose(deployed.predict(observation), expected, rtol=0, atol=1e-4)


def test_a_trained_policy_and_its_file_have_the_same_return(tmp_path):
    """
    A thousand observations of a rollout, and the rollout with the file alone.

    Ten long steps multiply rounding, and of values that rounding alone tells apart one is the greatest: there torch in
    a batch of three differs from torch alone, and a file may.
    """
    arch = dict(net_arch=[16, 16], latent_dim=8)
    model = DiffTORI(
        "MlpPolicy", "Pendulum-v1", learning_starts=50, horizon=3, schedule_steps=0, policy_kwargs=arch, seed=0
    )
    model.learn(150)
    deployed = OnnxPolicy(export_onnx(model, tmp_path / "policy.onnx", control_hz=20))
    assert deployed.description["control_hz"] == 20
    assert deployed.description["algorithm"] == "DiffTORI"
    env = model.get_env().envs[0]
    returns, seen, own = np.zeros(2), [], []
    for index in (0, 1):
        for episode in range(5):
            observation, _ = env.reset(seed=episode)
            deployed.reset()
            done = False
            while not done:
                if index == 0:
                    seen.append(observation)
                    own.append(model.predict(observation, deterministic=True)[0])
                action = own[-1] if index == 0 else deployed.predict(observation)
                observation, reward, terminated, truncated, _ = env.step(action)
                returns[index] += reward
                done = terminated or truncated
    in_threes = np.concatenate(
        [model.predict(np.stack(seen[i : i + 3]), deterministic=True)[0] for i in range(0, len(seen), 3)]
    )
    off = np.abs(np.stack([deployed.predict(observation) for observation in seen]) - own).max(1)
    off_in_threes = np.abs(in_threes - own).max(1)
    assert len(off) == 1000
    assert np.median(off) < 1e-5
    assert (off > 1e-4).sum() <= 1.5 * (off_in_threes > 1e-4).sum() + 10
    np.testing.assert_allclose(returns[0], returns[1], rtol=0.01)


def own_solver(objective, actions, settings):
    raise NotImplementedError


def with_layer(layer):
    policy = rl()
    policy.model.reward[1] = layer
    return policy


def broken():
    policy = rl()
    with torch.no_grad():
        policy.model.reward[0].weight[0, 0] = torch.nan
    return policy


def hooked():
    policy = rl()
    policy.model.dynamics[0].register_forward_hook(lambda *_: None)
    return policy


class OwnPolicy(DiffTORIPolicy):
    pass


class OwnPlanner(Planner):
    pass


class OwnModel(TDMPC2Model):
    pass


def own_model():
    policy = tdmpc2()
    policy.model.__class__ = OwnModel
    return policy


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rl(solver=TrajectoryOptimizer(solver="newton")), "cannot write the solver 'newton': plan with one of"),
        (lambda: rl(solver=TrajectoryOptimizer(solver=own_solver)), "the solver 'of your own': plan with one of"),
        (lambda: tdmpc2("lm"), "the solver 'lm' of TDMPC2: plan with one of mppi, cem"),
        (lambda: rl(planner=OwnPlanner()), "the planner OwnPlanner: plan with Planner itself"),
        (lambda: tdmpc2(planner=Planner()), "the planner Planner: plan with TDMPC2Planner itself"),
        (own_model, "the model OwnModel: plan in a TDMPC2Model"),
        (lambda: rl(OwnPolicy), "cannot write the policy OwnPolicy"),
        (lambda: il(IBCPolicy), "cannot write IBC.*distil it into BC"),
        (lambda: with_layer(nn.Hardswish()), "the layer Hardswish in the reward: build it of Linear"),
        (lambda: with_layer(nn.GELU("tanh")), "GELU.*train with GELU"),
        (lambda: with_layer(nn.Softplus(2.0)), "Softplus.*train with Softplus"),
        (broken, "nan or infinity in 'model.reward.0.weight': the model has diverged"),
        (hooked, "the hook of a Linear in the dynamics: remove it"),
        (lambda: rl(MultiInputPolicy, spaces.Dict(action=VECTOR)), "the key 'action': rename it"),
    ],
)
def test_what_cannot_be_written_is_named(make, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        export_onnx(make(), tmp_path / "policy.onnx")
    assert list(tmp_path.iterdir()) == []


def test_names_and_rates_are_checked(tmp_path):
    for rate in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="positive number"):
            export_onnx(rl(), tmp_path / "policy.onnx", control_hz=rate)
    with pytest.raises(ValueError, match="another ending"):
        export_onnx(rl(), tmp_path / "policy.json")
