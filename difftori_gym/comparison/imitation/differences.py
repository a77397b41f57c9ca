"""What a method gains over another, over all tasks and seeds together."""

from __future__ import annotations

from itertools import combinations

from difftori_gym.comparison.imitation.results import Group, ImitationRow, Seeds
from difftori_gym.comparison.report import interval, table
from difftori_gym.comparison.statistics import bootstrap

Groups = dict[Group, dict[str, Seeds]]


def overall_section(groups: Groups) -> list[str]:
    """
    :param groups: newest evaluations by task, entry and seed
    :return: means over tasks, and differences between methods on the same tasks and seeds
    """
    parts = []
    rates = _rates(groups)
    labels = {entry: row for entries in groups.values() for entry, seeds in entries.items() for row in seeds.values()}
    if len(groups) > 1 and rates:
        lines = [
            [labels[entry].label, str(len({group for group, _ in values})), str(len(values)), _mean(values)]
            for entry, values in rates.items()
        ]
        parts += ["## All tasks together", table(("method", "tasks", "runs", "success %"), lines)]
    lines = []
    for better, other in _pairs(list(labels.values())):
        shared = [key for key in rates.get(better.entry, {}) if key in rates.get(other.entry, {})]
        if shared:
            gains = [rates[better.entry][key] - rates[other.entry][key] for key in shared]
            tasks = len({group for group, _ in shared})
            gain = interval(bootstrap(gains))
            lines.append([better.label, other.label, str(tasks), str(len(shared)), gain])
    if lines:
        parts += ["## Differences", table(("method", "minus", "tasks", "pairs", "points of success"), lines)]
        parts.append(
            "Each pair is one task and seed, with the same demonstrations, base policy and evaluation episodes. "
            "Brackets are 95 % bootstrap intervals over pairs."
        )
    return parts


def _rates(groups: Groups) -> dict[str, dict[tuple[Group, int], float]]:
    """:return: per cent of success by entry, and by task and seed; entries that do not tell success are left out"""
    rates: dict[str, dict[tuple[Group, int], float]] = {}
    for group, entries in groups.items():
        for entry, seeds in entries.items():
            for seed, row in seeds.items():
                if row.successes is not None:
                    rates.setdefault(entry, {})[(group, seed)] = 100.0 * row.successes / row.episodes
    return rates


def _mean(values: dict[tuple[Group, int], float]) -> str:
    """:return: mean over runs with its interval"""
    return interval(bootstrap(list(values.values())))


def _pairs(rows: list[ImitationRow]) -> list[tuple[ImitationRow, ImitationRow]]:
    """
    :param rows: one of each entry
    :return: a method that starts from a base against that base and against every other method on it; variants of one
        method against each other
    """
    pairs = []
    for one, other in combinations({row.entry: row for row in rows}.values(), 2):
        related = other.base == one.method or (other.base and other.base == one.base) or other.method == one.method
        if related:
            pairs.append((other, one))  # the registry has what is compared with first
    return pairs
