"""Damaged and hostile files are refused with a ValueError that says what is wrong, before memory is taken."""

import inspect
import json
import os
import pickle
import runpy
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces
from safetensors.torch import load_file, save_file
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from difftori_gym import DiffTORI, DiffTORIPolicy, export, load_export
from difftori_gym.baselines.bc import BCPolicy
from difftori_gym.exports import read_export
from difftori_gym.exports.policies import POLICIES
from difftori_gym.exports.strict_json import MAX_DEPTH, parse
from difftori_gym.il import DiffTORIImitationPolicy
from difftori_gym.il.policies import ImitationPolicy, PolicySpec
from difftori_gym.rl.planning import Planner
from difftori_gym.trajopt import TrajectoryOptimizer

VECTOR, ACTION = spaces.Box(-8.0, 8.0, (3,)), spaces.Box(-2.0, 2.0, (1,))
FUZZ = Path(__file__).resolve().parents[2] / "scripts" / "fuzz_export.py"


@pytest.fixture
def policy():
    return DiffTORIPolicy(VECTOR, ACTION, lambda _: 1e-3, net_arch=[8], latent_dim=4)


@pytest.fixture
def file(policy, tmp_path):
    return export(policy, tmp_path / "policy")


def parts(path):
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    return header, json.loads(header.pop("__metadata__")["difftori_gym"]), data[8 + length :]


def write(path, header, description, tensors):
    text = json.dumps({"__metadata__": {"difftori_gym": json.dumps(description)}, **header}).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + tensors)
    return path


def changed(path, change):
    """The file with its header, description and tensors as ``change`` leaves them."""
    header, description, tensors = parts(path)
    tensors = change(header, description, tensors) or tensors
    return write(path, header, description, tensors)


def test_an_untouched_file_survives_the_tools_of_this_test(file, policy):
    loaded = load_export(changed(file, lambda header, description, tensors: None), device="cpu")
    assert type(loaded) is DiffTORIPolicy
    for name, value in policy.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name])


def test_the_safetensors_package_reads_what_is_written(file, policy, tmp_path):
    tensors = load_file(file)
    assert tensors.keys() == policy.state_dict().keys()
    assert all(torch.equal(value, tensors[name]) for name, value in policy.state_dict().items())
    _, description, _ = parts(file)
    rewritten = tmp_path / "rewritten.safetensors"
    save_file(tensors, rewritten, {"difftori_gym": json.dumps(description)})
    observations = np.random.default_rng(0).uniform(-1, 1, (4, 3)).astype(np.float32)
    expected, _ = policy.predict(observations, deterministic=True)
    np.testing.assert_array_equal(load_export(rewritten, "cpu").predict(observations, deterministic=True)[0], expected)


def settings(description):
    return description["policy"]["settings"]


def grow(*sizes):
    def change(header, description, tensors):
        settings(description)["net_arch"] = list(sizes)

    return change


def set_to(value, *path):
    def change(header, description, tensors):
        part = description
        for key in path[:-1]:
            part = part[key]
        part[path[-1]] = value

    return change


def tensor(field, value):
    def change(header, description, tensors):
        header["model.dynamics.0.weight"][field] = value

    return change


def with_nan(header, description, tensors):
    begin, _ = header["model.dynamics.0.weight"]["data_offsets"]
    return tensors[:begin] + struct.pack("<f", float("nan")) + tensors[begin + 4 :]


def overlapping(header, description, tensors):
    header["model.dynamics.0.bias"]["data_offsets"] = header["encoder.head.0.bias"]["data_offsets"]


SPACE = ("policy", "observation_space")
OPTIMIZER = ("policy", "settings", "planner", "optimizer")
HOSTILE = {
    "a network of a terabyte": (grow(10**6, 10**6), "whole number in"),
    "a network as large as the file says": (grow(9000), "tensor '.*': expected shape"),
    "more layers than tensors": (grow(*[8] * 9), "missing"),
    "a thousand layers": (grow(*[8] * 1000), "at most 16"),
    "an observation of a terabyte": (set_to([10**6, 10**6], *SPACE, "shape"), "whole number in|number of entries"),
    "an observation that is too long": (set_to([1024, 2048], *SPACE, "shape"), "number of entries"),
    "an observation of another size": (set_to([4], *SPACE, "shape"), "tensor '.*': expected shape"),
    "nan in a setting": (set_to(float("nan"), *OPTIMIZER, "step_size"), "NaN"),
    "an infinite setting": (set_to(1e999, *OPTIMIZER, "step_size"), "Infinity"),
    "nan in a space": (set_to("nan", *SPACE, "low"), "numbers that float32 can hold"),
    "bounds of an action that are infinite": (set_to("inf", "policy", "action_space", "high"), "finite bounds"),
    "endless iterations": (set_to(10**9, *OPTIMIZER, "max_iterations"), r"\[0, 10000\]"),
    "a setting outside its range": (set_to(0.0, *OPTIMIZER, "step_size"), "step_size > 0"),
    "a class of the standard library": (set_to("builtins.eval", "policy", "settings", "activation_fn"), "activations"),
    "a class of torch": (set_to("Bilinear", "policy", "settings", "activation_fn"), "activations"),
    "a policy to import": (set_to("os.system", "policy", "class"), "rl.DiffTORIPolicy"),
    "a setting that is unknown": (set_to(1, "policy", "settings", "hook"), r"unknown \['hook'\]"),
    "a true that is a number": (set_to(True, "policy", "settings", "latent_dim"), "whole number"),
    "a newer version": (set_to(2, "version"), "install the version"),
    "another schema": (set_to("pickle", "schema"), "the schema difftori-gym/policy"),
    "another dtype": (tensor("dtype", "F64"), "tensors that fill the file"),
    "an unknown dtype": (tensor("dtype", "OBJECT"), "a dtype of"),
    "a huge tensor": (tensor("shape", [2**40, 2**40]), "tensors that fill the file"),
    "a negative shape": (tensor("shape", [-1, -40]), "tensors that fill the file"),
    "bytes outside the file": (tensor("data_offsets", [2**40, 2**40 + 160]), "tensors that fill the file"),
    "bytes of another tensor": (overlapping, "tensors that fill the file"),
    "a nan weight": (with_nan, "finite numbers"),
    "too few bytes": (lambda header, description, tensors: tensors[:-4], "tensors that fill the file"),
    "too many bytes": (lambda header, description, tensors: tensors + b"0000", "tensors that fill the file"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_contents_are_refused(file, name):
    change, message = HOSTILE[name]
    with pytest.raises(ValueError, match=message):
        load_export(changed(file, change), device="cpu")


def test_other_files_are_refused(file, tmp_path):
    data = file.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = data[8 : 8 + length].decode()
    doubled = header.rstrip()[:-1] + ',"encoder.head.0.bias":' + json.dumps(parts(file)[0]["encoder.head.0.bias"]) + "}"
    files = {
        "a header of": [b"", b"1234", data[:100], struct.pack("<Q", 2**63 - 1) + data[8:], pickle.dumps([1])],
        "twice": [struct.pack("<Q", len(doubled)) + doubled.encode() + data[8 + length :]],
        "nested brackets": [struct.pack("<Q", 400_000) + b'{"a":' * 80_000 + data[8:]],
        "JSON": [struct.pack("<Q", 16) + b"\xff" * 16, struct.pack("<Q", 3) + b"[1]"],
        "under 'difftori_gym'": [struct.pack("<Q", 2) + b"{}"],
        "tensors that fill the file": [data[:-1], data + b"1"],
    }
    path = tmp_path / "other.safetensors"
    for message, contents in files.items():
        for content in contents:
            path.write_bytes(content)
            with pytest.raises(ValueError, match=message):
                load_export(path)
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path, tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(ValueError, match="no regular file"):
            load_export(place)
    with pytest.raises(FileNotFoundError):
        load_export(tmp_path / "nothing")


def test_json_is_strict():
    deep = b"[" * (MAX_DEPTH - 1)
    assert parse(b'{"a": ' + deep + b"]" * (MAX_DEPTH - 1) + b', "b": "[[\\"["}', "text")["b"] == '[["['
    for text, message in (
        (b'{"a": [' + deep + b"]" * MAX_DEPTH + b"}", "nested"),
        (b'{"a": 1, "a": 1}', "'a' twice"),
        (b'{"a": -Infinity}', "Infinity"),
        (b'{"a": 1e999}', "too large"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "JSON"),
        (b"3", "a JSON object"),
    ):
        with pytest.raises(ValueError, match=message):
            parse(text, "text")


def test_a_base_policy_of_another_environment_or_none_is_refused(tmp_path):
    base = BCPolicy(VECTOR, ACTION, schedule, net_arch=[4])
    with pytest.raises(ValueError, match="needs base="):
        DiffTORIImitationPolicy(VECTOR, ACTION, schedule, init="base_policy")
    spec = PolicySpec.of(base)
    policy = DiffTORIImitationPolicy(
        VECTOR, ACTION, schedule, init="base_policy", net_arch=[4], latent_dim=2, base=spec
    )
    path = export(policy, tmp_path / "policy")
    assert isinstance(load_export(path, "cpu").base, BCPolicy)
    inner = ("policy", "settings", "base")
    for change, message in (
        (set_to(None, *inner), "needs base="),
        (set_to("rl.DiffTORIPolicy", *inner, "class"), "expected the settings"),
        (set_to([9], *inner, "observation_space", "shape"), "base policy BCPolicy: expected observations"),
    ):
        damaged = tmp_path / "damaged.safetensors"
        damaged.write_bytes(path.read_bytes())
        with pytest.raises(ValueError, match=message):
            load_export(changed(damaged, change))


class OwnPolicy(DiffTORIPolicy):
    """A user's own."""


class OwnActivation(torch.nn.Tanh):
    """A user's own."""


def schedule(_):
    return 1e-3


def own_solver(objective, actions, settings):
    """A user's own."""


def test_what_cannot_be_written_is_refused(tmp_path, policy):
    own = Planner(TrajectoryOptimizer(solver=own_solver))
    for subject, message in (
        (OwnPolicy(VECTOR, ACTION, schedule), "got .*OwnPolicy"),
        (DiffTORIPolicy(VECTOR, ACTION, schedule, activation_fn=OwnActivation), "activations .* got .*OwnActivation"),
        (DiffTORIPolicy(VECTOR, ACTION, schedule, planner=own), "solver: expected one of lm, "),
    ):
        with pytest.raises(ValueError, match=message):
            export(subject, tmp_path / "policy")
    with torch.no_grad():
        policy.model.dynamics[0].weight[0, 0] = torch.inf
    with pytest.raises(ValueError, match="has diverged"):
        export(policy, tmp_path / "policy")
    assert list(tmp_path.iterdir()) == []


def test_a_model_behind_a_normaliser_is_refused(tmp_path):
    kwargs = dict(policy_kwargs=dict(net_arch=[8], latent_dim=4), device="cpu")
    model = DiffTORI("MlpPolicy", VecNormalize(make_vec_env("Pendulum-v1", 1), norm_obs=True), **kwargs)
    with pytest.raises(ValueError, match="behind VecNormalize"):
        export(model, tmp_path / "model")
    export(model.policy, tmp_path / "policy")
    model = DiffTORI("MlpPolicy", VecNormalize(make_vec_env("Pendulum-v1", 1), norm_obs=False), **kwargs)
    assert read_export(export(model, tmp_path / "model")).algorithm == "DiffTORI"


def test_every_setting_of_every_policy_has_a_kind(tmp_path):
    """A constructor argument that is new and forgotten here would not come back from a file."""
    dropped = {"self", "args", "kwargs", "observation_space", "action_space", "lr_schedule"}
    dropped |= {"optimizer_class", "optimizer_kwargs", "network_kwargs"}
    for name, (cls, kinds) in POLICIES.items():
        arguments = set()
        if issubclass(cls, ImitationPolicy):
            own = inspect.signature(cls.network_class).parameters.values()
            arguments |= {each.name for each in own if each.kind is each.KEYWORD_ONLY}
        for each in cls.__mro__:
            parameters = inspect.signature(each.__init__).parameters
            arguments |= set(parameters)
            if each is ImitationPolicy or "kwargs" not in parameters:
                break
        assert arguments - dropped == set(kinds), name


@pytest.mark.skipif(sys.platform == "win32", reason="resource")
def test_hundreds_of_damaged_files_are_loaded_or_refused(tmp_path):
    fuzz = runpy.run_path(str(FUZZ))
    before = fuzz["peak_mib"]()
    findings = fuzz["fuzz"](tmp_path, 140, seed=1)
    assert findings.faults == []
    assert sum(counts["refused"] for counts in findings.counts.values()) > 100
    assert sum(counts["loaded"] for counts in findings.counts.values()) > 5
    assert fuzz["peak_mib"]() - before < fuzz["MAX_MIB"] + 64  # with what is imported at the first file
