"""The text of a card: YAML that model hubs read, then markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from difftori_gym.card.trained import Subject
from difftori_gym.evaluation import Evaluation


@dataclass(frozen=True)
class Run:
    """
    :param env: id of the environment
    :param environment: further arguments of ``make_env``
    :param seed: of the first episode
    :param evaluation: what came out
    :param guessed: which of these arguments neither the model's run nor the command told
    """

    env: str
    environment: Mapping[str, Any]
    seed: int
    evaluation: Evaluation
    guessed: Sequence[str] = ()


def result(run: Run) -> str:
    """:return: mean return and standard deviation over episodes"""
    return f"{run.evaluation.mean_return:.2f} +/- {run.evaluation.returns.std():.2f}"


def card_text(subject: Subject, run: Run | None, files: Mapping[str, str], command: str) -> str:
    """
    :param subject: the model
    :param run: its evaluation, None without one
    :param files: names of ``film``, ``curve`` and ``onnx`` beside the card, where there are
    :param command: that made the card
    :return: README.md
    """
    name = (subject.about.algorithm or type(subject.policy).__name__) + (f" on {run.env}" if run else "")
    parts = [_front_matter(subject, run, name), f"# {name}", _introduction(subject)]
    if run is not None:
        parts.append(_evaluation(run))
    if "film" in files:
        parts.append(f"## Film\n\n[{files['film']}]({files['film']}), one episode from seed {run.seed if run else 0}.")
    if "curve" in files:
        parts.append(f"## Training\n\n![training curve]({files['curve']})")
    about = subject.about
    seen = [("observations", f"`{about.observation_space}`"), ("actions", f"`{about.action_space}`")]
    settings = [(f"`{name}`", f"`{json.dumps(value)}`") for name, value in _flat(about.settings)]
    parts += [
        _usage(subject, run) + _without_torch(files.get("onnx")),
        "## Spaces\n\n" + _table(("", ""), [(name, " ".join(t.split())) for name, t in seen]),
    ]
    parts += ["## Settings\n\n" + _table(("setting", "value"), settings)] if about.settings else []
    parts.append("## Versions\n\n" + _table(("package", "at the export"), list(about.versions.items())))
    parts.append(f"Written by\n\n    {command}")
    return "\n\n".join(parts) + "\n"


def _front_matter(subject: Subject, run: Run | None, name: str) -> str:
    # YAML takes JSON's strings, so nothing needs a package or can break out of its quotes.
    tags = ["reinforcement-learning", "difftori-gym", "stable-baselines3", subject.about.algorithm or "policy"]
    lines = ["---", "library_name: difftori-gym", "tags:", *(f"- {json.dumps(tag)}" for tag in tags)]
    if run is not None:
        lines += [
            "model-index:",
            f"- name: {json.dumps(name)}",
            "  results:",
            "  - task:",
            "      type: reinforcement-learning",
            "      name: reinforcement-learning",
            "    dataset:",
            f"      name: {json.dumps(run.env)}",
            f"      type: {json.dumps(run.env)}",
            "    metrics:",
            "    - type: mean_reward",
            "      name: mean_reward",
            f"      value: {json.dumps(result(run))}",
            "      verified: false",
        ]
    return "\n".join([*lines, "---"])


def _introduction(subject: Subject) -> str:
    trained = "" if subject.about.num_timesteps is None else f", trained for {subject.about.num_timesteps:,} steps"
    return (
        f"A policy of the class `{type(subject.policy).__name__}` with {subject.about.num_parameters:,} "
        f"numbers{trained}, for [Stable-Baselines3](https://stable-baselines3.readthedocs.io) environments."
    )


def _evaluation(run: Run) -> str:
    found = run.evaluation
    success = "not told by the environment" if found.success_rate is None else f"{100 * found.success_rate:.0f} %"
    rows = [
        ("environment", f"`{run.env}`" + "".join(f", `{text}`" for text in _arguments(run))),
        ("episodes", f"{len(found.returns)}, seeds {run.seed} to {run.seed + len(found.returns) - 1}, deterministic"),
        ("return, mean ± standard deviation", result(run).replace("+/-", "±")),
        ("least and greatest return", f"{found.returns.min():.2f}, {found.returns.max():.2f}"),
        ("agent steps per episode", f"{found.lengths.mean():.1f}"),
        ("success rate", success),
    ]
    if run.guessed:
        rows.insert(1, ("not told by the model, and taken as preset", ", ".join(f"`{name}`" for name in run.guessed)))
    return "## Evaluation\n\n" + _table(("", ""), rows)


def _arguments(run: Run) -> list[str]:
    """Arguments of ``make_env`` that say how the policy sees and acts, as Python."""
    return [f"{name}={value!r}" for name, value in run.environment.items() if value not in (None, {})]


def _usage(subject: Subject, run: Run | None) -> str:
    name = subject.about.path.name
    if subject.package is None:
        lines = ["from difftori_gym import load_export, make_env"]
        lines += ["", f"policy = load_export({name!r})  # tensors and JSON: nothing is unpickled"]
    else:
        lines = ["from difftori_gym import make_env", f"from {subject.package} import {subject.about.algorithm}"]
        lines += ["", f"policy = {subject.about.algorithm}.load({name!r})  # unpickled: only from people you trust"]
    if run is not None:
        lines += [
            f"env = make_env({', '.join([repr(run.env), *_arguments(run)])})",
            f"observation, _ = env.reset(seed={run.seed})",
            "state, done = None, False",
            "while not done:",
            "    action, state = policy.predict(observation, state, deterministic=True)",
            "    observation, reward, terminated, truncated, info = env.step(action)",
            "    done = terminated or truncated",
        ]
    return "## How to use it\n\n```python\n" + "\n".join(lines) + "\n```"


def _without_torch(name: str | None) -> str:
    if name is None:
        return ""
    described = name.rpartition(".")[0] + ".json"
    return (
        f"\n\n[{name}]({name}) acts the same without torch, by onnxruntime; [{described}]({described}) says what its "
        "inputs and outputs are."
    )


def _flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """The leaves of nested settings; the spaces of a base policy are left out."""
    found: list[tuple[str, Any]] = []
    for name, value in settings.items():
        if isinstance(value, dict) and value and not name.endswith("_space"):
            found += _flat(value, f"{prefix}{name}.")
        elif not name.endswith("_space"):
            found.append((f"{prefix}{name}", value))
    return found


def _table(head: tuple[str, str], rows: list[tuple[str, str]]) -> str:
    lines = [f"| {head[0]} | {head[1]} |", "|---|---|"]
    return "\n".join(lines + [f"| {name} | {value.replace('|', '/')} |" for name, value in rows])
