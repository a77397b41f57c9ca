"""The ablations of the paper: where the optimisation starts, how far it plans, and whether it has a latent."""

from __future__ import annotations

from collections.abc import Callable

from difftori_gym.comparison.plan import Entry, base_entry, plan_runs
from difftori_gym.comparison.run_record import Run
from difftori_gym.comparison.settings import ComparisonSettings

_HORIZONS = (1, 2, 3, 4, 5, 8)
_LATENT_DIM = 64  # the released code's; the small preset has none


def _start(base: str) -> list[Entry]:
    """:return: the base policy, and DiffTORI started from it, from zero and at random"""
    return [
        base_entry(base),
        Entry("difftori", base, "start=base_policy"),
        Entry("difftori", "", "start=zero", dict(planner_kwargs=dict(init="zero"))),
        Entry("difftori", "", "start=random", dict(planner_kwargs=dict(init="random"))),
    ]


def _horizon(base: str) -> list[Entry]:
    """
    One base policy, with the longest horizon, serves all, which take its first actions. One action is executed per
    plan, so that horizons differ in nothing else.
    """
    one = dict(n_action_steps=1)
    return [
        base_entry(base, dict(one, horizon=max(_HORIZONS))),
        *(Entry("difftori", base, f"horizon={horizon}", dict(one, horizon=horizon)) for horizon in _HORIZONS),
    ]


def _latent(base: str) -> list[Entry]:
    """:return: the base policy, and DiffTORI with and without a latent"""
    return [
        base_entry(base),
        Entry("difftori", base, "latent=on", dict(latent_dim=_LATENT_DIM)),
        Entry("difftori", base, "latent=off", dict(latent_dim=0)),
    ]


#: Entries of an ablation, given the method of the base policy.
ABLATIONS: dict[str, Callable[[str], list[Entry]]] = {"start": _start, "horizon": _horizon, "latent": _latent}


def plan_ablation(name: str, settings: ComparisonSettings) -> list[Run]:
    """
    :param name: ``start``, ``horizon`` or ``latent``
    :param settings: tasks, seeds, demonstrations; its base is used, its methods are not
    :return: the runs, see :func:`~difftori_gym.comparison.plan.plan_runs`
    :raises ValueError: on an unknown ablation, several bases, reinforcement learning, and as there
    """
    if name not in ABLATIONS:
        raise ValueError(f"Unknown ablation {name!r}. Choices: {', '.join(ABLATIONS)}.")
    if not settings.imitates:
        raise ValueError("an ablation needs --demos NUMBER, --demos-from PATH, or both, got neither.")
    base, *others = settings.base or ("bc",)
    if others:
        raise ValueError(f"an ablation has one --base, got {', '.join((base, *others))}.")
    return plan_runs(settings, ABLATIONS[name](base))
