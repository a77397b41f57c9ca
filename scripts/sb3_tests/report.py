"""The page docs/sb3_tests.md."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any

from sb3_tests.edits import CONTRIB_EDITS, EDITS
from sb3_tests.not_applicable import NOT_APPLICABLE, NOT_APPLICABLE_TO
from sb3_tests.subjects import CRITIC, IDENTITY_STEPS, SMALL


def report(outcomes: dict[str, dict[str, Any]]) -> str:
    """:return: docs/sb3_tests.md"""
    lines = [
        "# Stable-Baselines3's and sb3-contrib's own tests",
        "",
        "```sh",
        "python scripts/run_sb3_tests.py",
        "```",
        "",
        f"downloads the source distributions of Stable-Baselines3 {version('stable-baselines3')} and, where it is "
        f"installed, sb3-contrib {version('sb3-contrib')}, which carry their tests, puts the algorithms into them and "
        f"runs them. Last run: Python {platform.python_version()}, torch "
        f"{version('torch')}, gymnasium {version('gymnasium')}, numpy {version('numpy')}.",
        "",
        "Not applicable are tests of something that an off-policy algorithm for continuous actions does not have; the "
        "reasons are below. Variants of a test for other algorithms, and tests of parts without an algorithm "
        "(normalisation, opening files), are not counted.",
        "",
        "| file | " + " | ".join(f"{name}: passed | failed | not applicable" for name in outcomes) + " |",
        "|---|" + "---:|---:|---:|" * len(outcomes),
    ]
    files = list(next(iter(outcomes.values())))
    for file in files:
        counts = [outcomes[name][file] for name in outcomes]
        cells = [f"{c['passed']} | {len(c['failed'])} | {sum(c['not_applicable'].values())}" for c in counts]
        lines.append(f"| `{file}` | " + " | ".join(cells) + " |")
    failed = [
        f"- {name}: `{file}::{test}`" for name in outcomes for file in files for test in outcomes[name][file]["failed"]
    ]
    if failed:
        lines += ["", "## Failed", "", *failed]
    lines += ["", "## Not applicable", "", "| tests | reason |", "|---|---|"]
    lines += [f"| `{show(pattern)}` | {reason} |" for pattern, reason in NOT_APPLICABLE.items()]
    for name in outcomes:
        lines += [f"| `{show(test)}`, {name} | {reason} |" for test, reason in NOT_APPLICABLE_TO[name].items()]
    found = {reason for name in outcomes for file in files for reason in outcomes[name][file]["not_applicable"]}
    lines += [f"| a test that skips itself | {each} |" for each in sorted(found) if each.startswith("Skipped: ")]
    lines += [
        "",
        "## What is changed in the tests",
        "",
        "Everywhere, the algorithm stands in the place of `TD3` (of `TQC` in sb3-contrib's files). Where a test says "
        "nothing else, it is built with "
        + "; ".join(f"`{', '.join(f'{k}={v}' for k, v in kw.items())}` ({name})" for name, kw in SMALL.items())
        + ": the tests count on the 100 random steps of SAC and TD3 before the first update, and small batches save "
        "time. CRITIC is "
        + ", ".join(f"`{network}` ({name})" for name, network in CRITIC.items())
        + ": what takes observations and is trained. IDENTITY_STEPS is "
        + ", ".join(f"{steps} ({name})" for name, steps in IDENTITY_STEPS.items())
        + ". Besides:",
        "",
        "| where | what becomes what | reason |",
        "|---|---|---|",
    ]
    for edit in (*EDITS, *CONTRIB_EDITS):
        new = edit.new.strip() or "nothing"
        lines.append(f"| `{edit.where}` | `{cell(edit.old)}` → `{cell(new)}` | {edit.reason} |")
    return "\n".join(lines) + "\n"


def show(pattern: str) -> str:
    """A shell pattern with its brackets."""
    head, bracket, tail = pattern.replace("ALGO", "*").partition("?")
    return head + (f"[{tail.rstrip('?')}]" if bracket else "")


def cell(text: str) -> str:
    """A regular expression inside a cell of a table."""
    return text.replace("\n", "\\n").replace("|", "\\|")
