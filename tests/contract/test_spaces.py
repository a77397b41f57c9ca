"""Every kind of space is read right, or refused where the learner is built, with a remedy that helps."""

from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.wrappers import FlattenObservation, TransformAction, TransformObservation
from stable_baselines3.common.torch_layers import CombinedExtractor

from difftori_gym import export, load_export
from difftori_gym.il import Demonstrations, Episode

NUMBER = spaces.Box(-1.0, 1.0, (2,))
STEPS = 6


class Shown(gym.Env):
    """Shows and takes anything."""

    def __init__(self, shown: spaces.Space = NUMBER, taken: spaces.Space = NUMBER) -> None:
        self.observation_space, self.action_space, self.steps = shown, taken, 0

    def reset(self, *, seed: int | None = None, options: Any = None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any):
        assert self.action_space.contains(np.asarray(action)), action
        self.steps += 1
        return self.observation_space.sample(), float(np.sum(action)), False, self.steps >= STEPS, {}


def demonstrated(env: gym.Env) -> Demonstrations:
    episodes = []
    for seed in range(2):
        env.action_space.seed(seed)
        seen, actions = [env.reset(seed=seed)[0]], []
        for _ in range(STEPS):
            actions.append(env.action_space.sample())
            seen.append(env.step(actions[-1])[0])
        isolated = isinstance(env.observation_space, spaces.Dict)
        stacked: Any = {key: np.array([each[key] for each in seen]) for key in seen[0]} if isolated else np.array(seen)
        episodes.append(Episode(stacked, np.array(actions), np.zeros(STEPS), False, True))
    return Demonstrations(tuple(episodes), env.observation_space, env.action_space)


def learned(subject, env, **settings) -> tuple[Any, list[torch.Tensor]]:
    """A model after training, and its weights in order."""
    model = subject.build(env, demonstrated(env) if subject.imitates else None, **settings)
    model.learn(subject.steps)
    return model, [value.clone() for value in model.policy.state_dict().values()]


def same(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return all(torch.equal(one.flatten(), two.flatten()) for one, two in zip(first, second, strict=True))


NAMES = ["keys", "observation.images.top", "observation.state", "pixel%2Es", "state_dict", "type"]
SHAPES = {
    "vectors": [
        spaces.Box(-1.0, 1.0, (2,)),
        spaces.Box(-1.0, 1.0, ()),
        spaces.Box(-np.inf, np.inf, (), np.float64),
        spaces.Box(0, 9, (), np.int64),
        spaces.Box(0, 255, (), np.uint8),
        spaces.Box(-1.0, 1.0, (3, 2)),
    ],
    "an image": [
        spaces.Box(-1.0, 1.0, (2,)),
        spaces.Box(0, 255, (3, 36, 36), np.uint8),
        spaces.Box(-1.0, 1.0, ()),
        spaces.Box(-1.0, 1.0, (40, 3)),
        spaces.Box(-1.0, 1.0, (1, 1)),
        spaces.Box(-1.0, 1.0, ()),
    ],
}


class Renamed(gym.ObservationWrapper):
    """The same numbers in the same order, under names and in shapes that were always read."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        entries = env.observation_space.spaces
        self.observation_space = spaces.Dict(
            {
                f"entry{index}": entry
                if entry.shape
                else spaces.Box(entry.low[None], entry.high[None], dtype=entry.dtype)
                for index, entry in enumerate(entries.values())
            }
        )

    def observation(self, observation: dict[str, Any]) -> dict[str, Any]:
        return {f"entry{index}": np.atleast_1d(value) for index, value in enumerate(observation.values())}


@pytest.mark.parametrize("kind", list(SHAPES))
def test_keys_of_any_name_and_entries_without_axes(subject, kind, tmp_path):
    if subject.images:
        pytest.skip("it reads images alone")
    env = Shown(spaces.Dict(dict(zip(NAMES, SHAPES[kind], strict=True))))
    model, weights = learned(subject, env)
    assert same(weights, learned(subject, Renamed(env))[1])
    observation, _ = env.reset(seed=0)
    batch = {key: np.stack([value, value]) for key, value in observation.items()}
    expected, _ = model.predict(batch, deterministic=True)
    alone, state = model.predict(observation, deterministic=True)
    np.testing.assert_allclose(alone, expected[0], atol=1e-3)
    model.predict(observation, state, deterministic=True)
    model.save(tmp_path / "model")
    for loaded in (
        subject.cls.load(tmp_path / "model", device="cpu"),
        load_export(export(model, tmp_path / "export"), device="cpu"),
    ):
        np.testing.assert_array_equal(loaded.predict(batch, deterministic=True)[0], expected)


def test_an_observation_of_one_number(subject):
    if subject.images:
        pytest.skip("it reads images alone")
    env = Shown(spaces.Box(-1.0, 1.0, ()))
    wide = TransformObservation(env, np.atleast_1d, spaces.Box(-1.0, 1.0, (1,)))
    assert same(learned(subject, env)[1], learned(subject, wide)[1])


COUNTED = [
    spaces.Discrete(5),
    spaces.MultiDiscrete([2, 3]),
    spaces.MultiBinary(3),
    spaces.MultiBinary([2, 3]),
]
FLATTENED = [
    spaces.Discrete(5, start=2),
    spaces.MultiDiscrete([2, 3], start=[0, 1]),
    spaces.MultiDiscrete([[2, 3], [4, 5]]),
    spaces.Tuple([NUMBER, spaces.Discrete(2)]),
    spaces.Dict(outer=spaces.Dict(inner=NUMBER)),
    spaces.Dict(count=spaces.Discrete(3, start=-1), number=NUMBER),
]
NOT_READ = [
    (spaces.Text(3), "of a fixed shape"),
    (spaces.Sequence(NUMBER), "of a fixed shape"),
    (spaces.Graph(NUMBER, None), "of a fixed shape"),
    (spaces.OneOf([NUMBER, spaces.Discrete(2)]), "of a fixed shape"),
    (spaces.Dict(words=spaces.Text(3), number=NUMBER), "under key 'words'.*of a fixed shape"),
    (spaces.Dict(), "observations"),
    (spaces.Box(-1.0, 1.0, (0,)), "no number"),
    (spaces.Dict(nothing=spaces.Box(-1.0, 1.0, (3, 0)), number=NUMBER), "under key 'nothing': there is no number"),
    (spaces.Dict({"": NUMBER}), "names as keys.*rename"),
    (spaces.Dict({3: NUMBER}), "names as keys.*rename"),
]


@pytest.mark.parametrize("name", ["difftori", "tdmpc", "tdmpc2"])
@pytest.mark.parametrize("space", COUNTED, ids=str)
def test_what_is_counted_is_read_as_if_it_were_flattened(subjects, name, space):
    subject = subjects[name]
    _, weights = learned(subject, Shown(space))
    assert same(weights, learned(subject, FlattenObservation(Shown(space)))[1])
    inside = spaces.Dict(counted=space, number=NUMBER)
    assert same(learned(subject, Shown(inside))[1], learned(subject, FlattenObservation(Shown(inside)))[1])


@pytest.mark.parametrize(("space", "message"), NOT_READ, ids=str)
def test_what_is_not_read_is_refused(subject, space, message):
    with pytest.raises(ValueError, match=rf"({subject.cls.__name__}|BC) (cannot read|expected).*{message}"):
        subject.build(Shown(space))


@pytest.mark.parametrize("space", FLATTENED, ids=str)
def test_what_is_refused_can_be_flattened(subject, space):
    with pytest.raises(ValueError, match=r"cannot read observations.*gymnasium.wrappers.FlattenObservation"):
        subject.build(Shown(space))
    if not subject.images:
        learned(subject, FlattenObservation(Shown(space)))


@pytest.mark.parametrize("space", COUNTED, ids=str)
def test_imitation_and_drqv2_say_what_they_read(subject, space):
    if not (subject.imitates or subject.images):
        pytest.skip("it reads them")
    with pytest.raises(ValueError, match="FlattenObservation" if subject.imitates else "reads images"):
        subject.build(Shown(space))
    if subject.images:
        with pytest.raises(ValueError, match="reads images"):
            subject.build(Shown(spaces.Dict(image=spaces.Box(0, 255, (3, 36, 36), np.uint8))))


def test_an_extractor_that_does_not_take_a_key_is_refused(subjects):
    env = Shown(spaces.Dict({"observation.state": NUMBER}))
    for name in ("difftori", "bc"):
        settings = subjects[name].settings
        kwargs = {**settings["policy_kwargs"], "features_extractor_class": CombinedExtractor}
        with pytest.raises(ValueError, match="leave features_extractor_class out"):
            subjects[name].build(env, policy_kwargs=kwargs)
        subjects[name].build(Renamed(env), policy_kwargs=kwargs)


def greatest(kind: type) -> float:
    return float(np.finfo(kind).max)


NO_BOUNDS = [
    spaces.Box(-np.inf, np.inf, (2,)),
    spaces.Box(-greatest(np.float32), greatest(np.float32), (2,), np.float32),
    spaces.Box(-greatest(np.float64), greatest(np.float64), (2,), np.float64),
    spaces.Box(-greatest(np.float16), greatest(np.float16), (2,), np.float16),
    spaces.Box(-1e10, 1e10, (2,)),
    spaces.Box(np.float32([-1, -1]), np.float32([1, 2e38])),
]


@pytest.mark.parametrize("space", NO_BOUNDS, ids=lambda space: f"{space.dtype} {space.high}")
def test_bounds_that_stand_for_none(subject, space):
    shown = spaces.Box(0, 255, (1, 36, 36), np.uint8) if subject.images else NUMBER
    env = Shown(shown, space)
    with pytest.raises(ValueError, match=r"expected finite action bounds.*TransformAction"):
        subject.build(env)
    chosen = TransformAction(env, lambda action: action.astype(space.dtype), spaces.Box(-1.0, 1.0, (2,)))
    model = subject.build(chosen)
    base = getattr(model, "base_policy", None)
    if subject.imitates:
        demonstrations = replace(demonstrated(chosen), action_space=space)
        given = {**subject.settings, **(dict(base_policy=base) if base else {})}
        with pytest.raises(ValueError, match="expected finite action bounds"):
            subject.cls("MlpPolicy", demonstrations=demonstrations, **given)
    with pytest.raises(ValueError, match="expected finite action bounds"):
        type(model.policy)(shown, space, lambda _: 1e-3, **(dict(base=model.base_spec) if base else {}))


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Box(0, 9, (2,), np.int64), "of at least one floating-point number.*let it round"),
        (spaces.Box(-1.0, 1.0, (0,)), "of at least one floating-point number"),
        (spaces.Discrete(3), "expected a Box action space"),
        (spaces.Tuple([NUMBER]), "expected a Box action space"),
        (spaces.Box(np.float32([-1, 1]), np.float32([1, 1])), "low < high in every dimension"),
    ],
    ids=str,
)
def test_actions_that_cannot_be_planned(subject, space, message):
    with pytest.raises(ValueError, match=message):
        subject.build(Shown(NUMBER, space))


@pytest.mark.parametrize("space", [spaces.Box(-1e9, 1e9, (2,)), spaces.Box(-2.0, 3.0, (), np.float64)], ids=str)
def test_actions_of_wide_bounds_and_without_axes(subject, space):
    if subject.images:
        pytest.skip("it reads images alone")
    model, _ = learned(subject, Shown(NUMBER, space))
    for observation in (np.zeros(2, np.float32), np.zeros((3, 2), np.float32)):
        action, _ = model.predict(observation)
        assert action.shape == (*observation.shape[:-1], *space.shape)
        assert np.isfinite(action).all()
