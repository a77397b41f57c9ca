"""The algorithms that are tested, and the settings that make their tests quick."""

from __future__ import annotations

import inspect
from typing import Any

ALGORITHMS = {"DiffTORI": "difftori_gym", "TDMPC": "difftori_gym.baselines"}

# The tests count on the 100 random steps that SAC and TD3 begin with: after ours, 1000, most of them would have ended
# before the first update. The other settings make updates cheap; what a test sets itself stays.
SMALL: dict[str, dict[str, int]] = {
    "DiffTORI": dict(learning_starts=100, batch_size=32, pg_batch_size=8, planner_kwargs=dict(max_iterations=3)),
    "TDMPC": dict(
        learning_starts=100, batch_size=32, planner_kwargs=dict(num_samples=32, num_elites=8, max_iterations=2)
    ),
}
# What the tests call critic: what takes observations and is trained beside the encoder, where there is such a network.
CRITIC = {"DiffTORI": "raw_critic", "TDMPC": "encoder"}
# Steps of test_identity, whose other off-policy algorithms take 400.
IDENTITY_STEPS = {"DiffTORI": 400, "TDMPC": 1000}
# Written beside the tests, which import the algorithm from it.
SUBJECT = '''
import {module}

SMALL = {small}
FULL = {full}


class {name}({module}.{name}):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **{{**SMALL, **kwargs}})


def wake_values(model):
    """Give the last layers of all values random weights instead of zeros."""
    policy = model.policy
    for critic in (policy.model.critic, policy.raw_critic.critic):
        for member in critic.members:
            member[-1].reset_parameters()
    policy.critic_target.load_state_dict(policy.model.critic.state_dict())
    policy.raw_critic_target.load_state_dict(policy.raw_critic.state_dict())
'''


def default(algorithm: str, argument: str) -> Any:
    """:return: default of a constructor argument, also of one that the class hands on to its base"""
    for cls in getattr(__import__(ALGORITHMS[algorithm], fromlist=[algorithm]), algorithm).__mro__:
        parameter = inspect.signature(cls.__init__).parameters.get(argument)
        if parameter is not None:
            return parameter.default
    raise SystemExit(f"error: {algorithm} has no argument {argument!r}.")
