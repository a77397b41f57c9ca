"""Demonstrations as records that check themselves."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from gymnasium import spaces

from difftori_gym.il.episode import Episode, check_episode
from difftori_gym.il.windows import DemonstrationWindows
from difftori_gym.observations import entries


@dataclass(frozen=True)
class Demonstrations:
    """
    Episodes of one task, checked against its spaces.

    :param episodes: at least one
    :param observation_space: a ``Box``, or a ``Dict`` of such
    :param action_space: a ``Box``
    :param env_id: the environment's name for ``make_env``, such as ``metaworld/sweep-into``, "" if not known
    :param obs: kind of observation for ``make_env``: ``state``, ``pixels`` or ``pointcloud``, "" if not known
    :param source: the file or place they are from, for error messages
    :param action_repeat: environment frames per action, None if not known
    :param control_mode: what the actions control, in the suite's words such as ``pd_ee_delta_pose``, "" if not known
    :raises ValueError: naming source and episode: if there is no episode; if keys, shapes or types of observations or
        actions do not fit the spaces; if a number is not finite; if an action lies outside the box
    """

    episodes: tuple[Episode, ...]
    observation_space: spaces.Space
    action_space: spaces.Box
    env_id: str = ""
    obs: str = ""
    source: str = "demonstrations"
    action_repeat: int | None = None
    control_mode: str = ""

    def __post_init__(self) -> None:
        check_spaces(self.observation_space, self.action_space, self.source)
        if not self.episodes:
            raise ValueError(f"{self.source}: expected at least one episode, got none.")
        for index, episode in enumerate(self.episodes):
            check_episode(episode, self.observation_space, self.action_space, f"{self.source}, {episode.label(index)}")

    def __len__(self) -> int:
        return len(self.episodes)

    @property
    def num_steps(self) -> int:
        """Actions of all episodes together."""
        return sum(map(len, self.episodes))

    @property
    def seeds(self) -> tuple[int | None, ...]:
        """Seed of each episode's reset: evaluation holds these out."""
        return tuple(episode.seed for episode in self.episodes)

    def take(self, count: int) -> Demonstrations:
        """The first ``count`` episodes; a ``ValueError`` if there are fewer."""
        if not 1 <= count <= len(self):
            raise ValueError(
                f"{self.source}: expected a number of episodes in [1, {len(self)}], got {count}. "
                "Ask for fewer or collect more."
            )
        return dataclasses.replace(self, episodes=self.episodes[:count])

    def windows(self, *, n_obs_steps: int, horizon: int, n_action_steps: int) -> DemonstrationWindows:
        """All windows, see :class:`DemonstrationWindows`."""
        return DemonstrationWindows(
            self.episodes, n_obs_steps=n_obs_steps, horizon=horizon, n_action_steps=n_action_steps, source=self.source
        )


def check_spaces(observation_space: spaces.Space, action_space: spaces.Space, source: str) -> None:
    """A ``ValueError`` unless observations are a ``Box`` or one level of ``Dict`` of such, and actions a ``Box``."""
    if not isinstance(action_space, spaces.Box):
        raise ValueError(f"{source}: imitation learns continuous actions: expected a Box, got {action_space}.")
    for space in entries(observation_space).values():
        if not isinstance(space, spaces.Box):
            raise ValueError(
                f"{source}: expected observations from a Box or one level of Dict of Box, got {observation_space}: "
                "flatten them before they are stored."
            )
