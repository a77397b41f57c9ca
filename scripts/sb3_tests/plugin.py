"""The pytest plugin of the runs: which tests are kept, and what became of them."""

from __future__ import annotations

import fnmatch
import inspect
import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

from sb3_tests.not_applicable import NOT_APPLICABLE, NOT_APPLICABLE_TO

OTHER_ALGORITHMS = {"A2C", "DDPG", "DQN", "PPO", "SAC", "ARS", "CrossQ", "MaskablePPO", "QRDQN", "RecurrentPPO", "TRPO"}


class Outcomes(NamedTuple):
    """
    Outcomes of one file.

    :param passed: names of tests
    :param failed: names of tests
    :param not_applicable: reason -> number of tests
    """

    passed: list[str]
    failed: list[str]
    not_applicable: Counter[str]


_outcomes: dict[str, Outcomes] = {}


def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """Keep the tests that involve the algorithm, and account for all others."""
    algorithm = os.environ["SB3_SUBJECT"]
    for item in items:
        _outcomes.setdefault(item.path.stem, Outcomes([], [], Counter()))
    table = {**NOT_APPLICABLE, **NOT_APPLICABLE_TO[algorithm]}
    kept, variants, answered = [], [], set()
    for item in items:
        name = f"{item.path.stem}::{item.name.replace(algorithm, 'ALGO')}"
        reasons = [reason for pattern, reason in table.items() if fnmatch.fnmatchcase(name, pattern)]
        arguments = item.callspec.params.values() if hasattr(item, "callspec") else []
        named = [value.__name__ for value in arguments if isinstance(value, type)]
        source = inspect.getsource(item.function)
        # The parameter lists above the function name other algorithms as well.
        body = source[source.index("def test_") :]
        if reasons:
            _outcomes[item.path.stem].not_applicable[reasons[0]] += 1
            answered.add((item.path, item.originalname))
        elif algorithm in named or (not OTHER_ALGORITHMS & set(named) and algorithm in body):
            kept.append(item)
            answered.add((item.path, item.originalname))
        elif re.search(rf"\b(model_class|algo|{'|'.join(OTHER_ALGORITHMS)})\b", source):
            variants.append(item)
    forgotten = [item.nodeid for item in variants if (item.path, item.originalname) not in answered]
    if forgotten:
        raise pytest.UsageError(f"neither run nor listed as not applicable: {forgotten}")
    items[:] = kept


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note each outcome."""
    path, _, name = report.nodeid.partition("::")
    found = _outcomes[Path(path).stem]
    if report.skipped:
        assert isinstance(report.longrepr, tuple)
        found.not_applicable[report.longrepr[2]] += 1
    elif report.failed:
        found.failed.append(name)
    elif report.when == "call":
        found.passed.append(name)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Leave the outcomes for the process that started this one."""
    outcomes = {file: {**found._asdict(), "passed": len(found.passed)} for file, found in _outcomes.items()}
    Path("outcomes.json").write_text(json.dumps(outcomes))
