"""The state of vectorised environments in the middle of their episodes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecCheckNan,
    VecEnv,
    VecEnvWrapper,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
    VecTransposeImage,
)

from difftori_gym.wrappers.snapshot import NotRestorableError, SnapshotMethods, restore_env, save_env

# What the wrappers of Stable-Baselines3 remember of the running episodes.
_EPISODE: dict[type[VecEnvWrapper], tuple[str, ...]] = {
    VecNormalize: ("returns", "old_obs", "old_reward"),
    VecFrameStack: ("stacked_obs",),
    VecMonitor: ("episode_returns", "episode_lengths", "episode_count"),
    VecTransposeImage: (),
    VecCheckNan: (),
}
# And what they have learned, which is kept also where the episodes are not.
_LEARNED: dict[type[VecEnvWrapper], tuple[str, ...]] = {VecNormalize: ("obs_rms", "ret_rms", "training", "norm_reward")}


@dataclass(frozen=True)
class EnvironmentsState:
    """
    :param episodes: per environment, in the middle of its episode; None where that cannot be saved
    :param reason: why it cannot, empty where it can
    :param wrappers: per vectorised wrapper, outermost first: what it remembers of the running episodes
    :param learned: per wrapper: what it has learned, such as means and variances
    :param seeds: of the next reset
    """

    episodes: list[bytes] | None
    reason: str
    wrappers: list[dict[str, Any]] = field(default_factory=list)
    learned: list[dict[str, Any]] = field(default_factory=list)
    seeds: Any = None


def save_environments(env: VecEnv) -> EnvironmentsState:
    wrappers, base = _unwrap(env)
    learned = [_attributes(wrapper, _LEARNED.get(type(wrapper), ())) for wrapper in wrappers]
    try:
        for wrapper in wrappers:
            if type(wrapper) not in _EPISODE:
                raise NotRestorableError(f"{type(wrapper).__name__} is not known to be restorable")
        remembered = [_attributes(wrapper, _EPISODE[type(wrapper)]) for wrapper in wrappers]
        episodes = _save_each(base)
    except NotRestorableError as error:
        return EnvironmentsState(None, str(error), learned=learned)
    return EnvironmentsState(episodes, "", remembered, learned, (base._seeds, base._options))


def restore_environments(env: VecEnv, state: EnvironmentsState) -> str:
    """
    Put environments where they were. Those that cannot be put there are left as they are, but for what their
    wrappers have learned.

    :param env: built like the ones that were saved
    :return: empty, or why their episodes begin anew
    :raises ValueError: if the wrappers or the number of environments are others
    """
    wrappers, base = _unwrap(env)
    if len(wrappers) != len(state.learned):
        raise ValueError(
            f"Expected environments in {len(state.learned)} vectorised wrappers, as saved, got {len(wrappers)}: build "
            "them as they were built then."
        )
    for wrapper, learned in zip(wrappers, state.learned, strict=True):
        vars(wrapper).update(learned)
    if state.episodes is None:
        return state.reason
    if base.num_envs != len(state.episodes):
        raise ValueError(f"Expected {len(state.episodes)} environments, as saved, got {base.num_envs}.")
    for wrapper, remembered in zip(wrappers, state.wrappers, strict=True):
        vars(wrapper).update(remembered)
    for index, episode in enumerate(state.episodes):
        if isinstance(base, DummyVecEnv):
            restore_env(base.envs[index], episode)
        else:
            base.env_method("restore_env", episode, indices=index)
    base._seeds, base._options = state.seeds
    return ""


def _unwrap(env: VecEnv) -> tuple[list[VecEnvWrapper], VecEnv]:
    wrappers = []
    while isinstance(env, VecEnvWrapper):
        wrappers.append(env)
        env = env.venv
    return wrappers, env


def _attributes(wrapper: VecEnvWrapper, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(wrapper, name) for name in names if hasattr(wrapper, name)}


def _save_each(base: VecEnv) -> list[bytes]:
    if isinstance(base, DummyVecEnv):
        return [save_env(env) for env in base.envs]
    if isinstance(base, SubprocVecEnv) and all(base.env_is_wrapped(SnapshotMethods)):
        answers = base.env_method("save_env")
        reason = next((answer for answer in answers if isinstance(answer, str)), None)
        if reason is not None:
            raise NotRestorableError(reason)
        return answers
    raise NotRestorableError(f"the environments of {type(base).__name__} cannot be asked for their state")
