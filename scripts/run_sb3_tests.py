"""
Runs Stable-Baselines3's own tests on the algorithms of this package.

    python scripts/run_sb3_tests.py                       # DiffTORI and TDMPC, writes docs/sb3_tests.md
    python scripts/run_sb3_tests.py --algo DiffTORI --files test_run

The tests come from the source distribution of the installed Stable-Baselines3 (``--sdist`` names one that is there
already). Copies of them are edited by the table EDITS, which puts the algorithm where an off-policy algorithm for
continuous actions is meant; their assertions stay. What cannot be asked of it is in NOT_APPLICABLE, with the reason.
A test that is neither run, nor listed there, nor another algorithm's variant of such a test, is an error.

This file is also the pytest plugin of those runs: see the hooks at its end.
"""

from __future__ import annotations

import argparse
import ast
import fnmatch
import inspect
import json
import os
import platform
import re
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import pytest

FILES = (
    "test_run",
    "test_save_load",
    "test_predict",
    "test_deterministic",
    "test_spaces",
    "test_identity",
    "test_train_eval_mode",
    "test_callbacks",
    "test_dict_env",
    "test_cnn",
    "test_vec_normalize",
)
ALGORITHMS = {"DiffTORI": "difftori_gym", "TDMPC": "difftori_gym.baselines"}
ROOT = Path(__file__).resolve().parents[1]
DOC = ROOT / "docs" / "sb3_tests.md"

# The tests count on the 100 random steps that SAC and TD3 begin with: after ours, 1000, most of them would have ended
# before the first update. The other settings make updates cheap; what a test sets itself stays.
SMALL: dict[str, dict[str, int]] = {
    "DiffTORI": dict(learning_starts=100, batch_size=32, pg_batch_size=8, max_iterations=3),
    "TDMPC": dict(learning_starts=100, batch_size=32, num_samples=32, num_elites=8, max_iterations=2),
}
# What the tests call critic: what takes observations and is trained beside the encoder, where there is such a network.
CRITIC = {"DiffTORI": "raw_critic", "TDMPC": "encoder"}
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


class Edit(NamedTuple):
    """
    A change to the copy of a test, which must find something to change.

    :param where: file, or file::function, or file::first function, second function
    :param old: regular expression
    :param new: replacement; ``ALGO`` stands for the algorithm's name, ``CRITIC`` for what the table of that name says
    :param reason: for the report
    """

    where: str
    old: str
    new: str
    reason: str


SHARED = "tests what all algorithms share, written with the one it names"
CONTINUOUS = "an environment with continuous actions"
ON_POLICY_ARGUMENTS = "argument of on-policy algorithms"
ROLLOUT_SIZE = "replay of images instead of a rollout of images"
SPACE_ERROR = "an unsupported space is a ValueError here"
NAMES = "names of the networks: encoder for actor, CRITIC for critic, the same for their targets"
ZERO_VALUES = "values start at zero here, and this environment's rewards are zero, too"

EDITS = (
    Edit("test_run::test_n_critics, test_train_freq, test_train_freq_fail", r"\bSAC\b", "ALGO", SHARED),
    Edit("test_save_load::test_load_invalid_object, test_cast_lr_schedule", r"\bPPO\b", "ALGO", SHARED),
    Edit("test_save_load::test_load_bad_zip, test_save_load_net_arch_none", r"\bPPO\b", "ALGO", SHARED),
    Edit("test_save_load::test_no_resource_warning", r"\b(PPO|SAC)\b", "ALGO", SHARED),
    Edit("test_save_load::test_dqn_target_update_interval", r"\bDQN\b", "ALGO", SHARED),
    Edit(
        "test_save_load::test_no_resource_warning, test_save_load_net_arch_none, test_dqn_target_update_interval",
        r"CartPole-v1",
        "Pendulum-v1",
        CONTINUOUS,
    ),
    Edit(
        "test_save_load::test_dqn_target_update_interval",
        r"model\.target_update_interval ==",
        "model.update_settings.target_update_interval ==",
        "where the setting lies",
    ),
    Edit(
        "test_save_load::test_save_load_policy",
        r"in \[SAC, ALGO\]:\n        actor",
        "in [SAC]:\n        actor",
        "the policy plans: it has no actor that acts alone",
    ),
    Edit("test_predict::test_mixing_gym_vecenv_api", r"\bPPO\b", "ALGO", SHARED),
    Edit("test_predict::test_mixing_gym_vecenv_api", r"CartPole-v1", "Pendulum-v1", CONTINUOUS),
    Edit("test_spaces::test_action_spaces", r"raises\(AssertionError\)", "raises(ValueError)", SPACE_ERROR),
    Edit("test_identity::test_continuous", r"dict\(net_arch=\[64, 64\]\),", r"\g<0> **FULL,", "default settings"),
    Edit("test_train_eval_mode", r"model\.actor(_target)?\.", r"model.policy.encoder\1.", NAMES),
    Edit("test_train_eval_mode", r"model\.critic(_target)?\.", r"model.policy.CRITIC\1.", NAMES),
    Edit("test_callbacks::test_callbacks_can_cancel_runs", r"\bSAC\b", "ALGO", SHARED),
    Edit("test_callbacks::test_eval_callback_logs_are_written_with_the_correct_timestep", r"DQN", "ALGO", SHARED),
    Edit("test_callbacks::test_eval_friendly_error", r"A2C(.*)n_steps=50, ", r"ALGO\1", ON_POLICY_ARGUMENTS),
    Edit("test_callbacks::test_eval_callback_chaining", r"PPO(.*), n_steps=.*\)", r"ALGO\1)", ON_POLICY_ARGUMENTS),
    Edit("test_callbacks::test_checkpoint_additional_info", r"\bDQN\b", "ALGO", SHARED),
    Edit(
        "test_callbacks::test_eval_friendly_error, test_checkpoint_additional_info",
        r"CartPole-v1",
        "Pendulum-v1",
        CONTINUOUS,
    ),
    Edit("test_dict_env::test_policy_hint, test_dict_nested", r"\bPPO\b", "ALGO", SHARED),
    Edit("test_dict_env::test_goal_env", r"\[PPO, A2C\]", "[PPO, A2C, ALGO]", SHARED),
    Edit("test_dict_env::test_goal_env", r", n_steps=64", "", ON_POLICY_ARGUMENTS),
    Edit("test_dict_env::test_policy_hint, test_goal_env", r"n_bits=4", "n_bits=4, continuous=True", CONTINUOUS),
    Edit("test_dict_env::test_multiprocessing", r"A2C, SAC, DQN\]", "A2C, ALGO, DQN]", SHARED),
    Edit("test_dict_env::test_dict_nested", r"NotImplementedError(\):\s+_)", r"ValueError\1", SPACE_ERROR),
    Edit("test_cnn::test_vec_transpose_skip", r"\[A2C\]", "[A2C, ALGO]", SHARED),
    Edit("test_cnn::test_vec_transpose_skip", r"n_steps=64,", "buffer_size=250,", ROLLOUT_SIZE),
    Edit("test_cnn::test_channel_first_env", r"discrete=True", "discrete=False", CONTINUOUS),
    Edit("test_cnn::test_channel_first_env", r", n_steps=100", ", buffer_size=250", ROLLOUT_SIZE),
    Edit("test_cnn::test_channel_first_env", r"\bA2C\b", "ALGO", SHARED),
    Edit(
        "test_cnn::test_features_extractor_target_net",
        r'kwargs\["policy_kwargs"\]\["share_features_extractor"\] = share_features_extractor',
        "pass",
        "encoder and Q-tilde never share a feature extractor",
    ),
    Edit(
        "test_cnn::test_features_extractor_target_net",
        r"policy_delay",
        "target_update_interval",
        "the argument that makes targets follow every update",
    ),
    Edit(
        "test_cnn::test_features_extractor_target_net",
        r"patch_dqn_names_\(model\)",
        "wake_values(model)",
        ZERO_VALUES,
    ),
    Edit(
        "test_cnn",
        r"model\.(?:policy\.)?actor(_target)?\.(?=features|named|parameters)",
        r"model.policy.encoder\1.",
        NAMES,
    ),
    Edit(
        "test_cnn",
        r"model\.(?:policy\.)?critic(_target)?\.(?=features|parameters)",
        r"model.policy.CRITIC\1.",
        NAMES,
    ),
)

ON_POLICY = "on-policy algorithms"
DISCRETE = "discrete actions"
DQN_TWIN = "DQN's version of a test that runs in TD3's"
ENTROPY = "entropy coefficient of SAC"
SDE = "state-dependent exploration of A2C, PPO and SAC"
CLIP_RANGE = "clip range of PPO"
HINDSIGHT = "hindsight replay is a buffer of single transitions"
EMPTY = "checks nothing for algorithms with continuous actions: it returns at once for CartPole-v1"
SHARED_EXTRACTOR = "actor and critic that share a feature extractor"

# Shell patterns of file::test, where "?" stands for "[" and "]", and reasons.
NOT_APPLICABLE = {
    "test_run::test_a2c*": ON_POLICY,
    "test_run::test_advantage_normalization*": ON_POLICY,
    "test_run::test_ppo*": ON_POLICY,
    "test_run::test_sac*": ENTROPY,
    "test_run::test_dqn": DISCRETE,
    "test_run::test_warn_dqn_multi_env": DISCRETE,
    "test_save_load::test_save_load_pytorch_var": ENTROPY,
    "test_save_load::test_save_load_policy?True-*-ALGO?": SDE,
    "test_save_load::test_save_load_q_net*": DISCRETE,
    "test_save_load::test_save_load_large_model": "several GB of weights, to test the file format",
    "test_save_load::test_save_load_no_target_params": "files of old versions of DQN",
    "test_save_load::test_save_load_backward_compatible*": CLIP_RANGE,
    "test_save_load::test_save_load_clip_range_portable*": CLIP_RANGE,
    "test_predict::test_predict?*CartPole-v1-ALGO?": EMPTY,
    "test_predict::test_dqn_epsilon_greedy": DISCRETE,
    "test_spaces::test_sde_multi_dim": SDE,
    "test_spaces::test_discrete_obs_space*": DISCRETE,
    "test_spaces::test_multidim_binary_not_supported": DISCRETE,
    "test_identity::test_discrete*": DISCRETE,
    "test_train_eval_mode::test_dqn_train_with_batch_norm": DQN_TWIN,
    "test_train_eval_mode::test_sac_train_with_batch_norm": "SAC's version of a test that runs in TD3's",
    "test_train_eval_mode::test_a2c_ppo*": ON_POLICY,
    "test_train_eval_mode::test_predict_with_dropout_batch_norm?CartPole-v1-ALGO?": EMPTY,
    "test_callbacks::test_eval_callback_vec_env": DISCRETE,
    "test_callbacks::test_eval_success_logging": HINDSIGHT,
    "test_cnn::test_cnn?True-ALGO?": SHARED_EXTRACTOR,
    "test_cnn::test_features_extractor_target_net?True-ALGO?": SHARED_EXTRACTOR,
    "test_vec_normalize::test_her_normalization": HINDSIGHT,
}
NOT_APPLICABLE_TO: dict[str, dict[str, str]] = {
    "DiffTORI": {},
    "TDMPC": {
        "test_cnn::test_features_extractor_target_net?False-ALGO?": "two networks that take observations: it has one"
    },
}


def fetch_tests(sdist: Path | None, work: Path) -> Path:
    """:return: folder of the unpacked source distribution of the installed Stable-Baselines3"""
    if sdist is None:
        wanted = f"stable-baselines3=={version('stable-baselines3')}"
        options = ["--no-binary", ":all:", "--no-deps", "--no-build-isolation", "--quiet", "--dest", str(work)]
        subprocess.run([sys.executable, "-m", "pip", "download", *options, wanted], check=True)
        (sdist,) = work.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(work, filter="data")
    (tests,) = work.glob("*/tests")
    return tests.parent


def segment(text: str, function: str) -> tuple[int, int]:
    """:return: where a function of a module begins, its decorators included, and where it ends, in characters"""
    starts = [0, *(match.end() for match in re.finditer("\n", text))]
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            assert node.end_lineno is not None
            return starts[first - 1], starts[node.end_lineno] if node.end_lineno < len(starts) else len(text)
    raise SystemExit(f"error: expected a test {function}, found none: EDITS are for another Stable-Baselines3.")


def edited(name: str, text: str, algorithm: str) -> str:
    """:return: the source of test file ``name`` with the algorithm in it"""
    text = re.sub(r"^(from stable_baselines3 import .*), TD3", r"\1", text, flags=re.MULTILINE)
    text = re.sub(r"\bTD3\b", "ALGO", text)
    for edit in EDITS:
        file, _, functions = edit.where.partition("::")
        if file != name:
            continue
        for function in functions.split(", "):
            begin, end = segment(text, function) if function else (0, len(text))
            part, count = re.subn(edit.old, edit.new, text[begin:end])
            if count == 0:
                raise SystemExit(f"error: expected {edit.old!r} in {file}::{function}, found nothing to edit.")
            text = text[:begin] + part + text[end:]
    imports = "from sb3_subject import ALGO, FULL, wake_values  # noqa: F401\n"
    return (imports + text).replace("ALGO", algorithm).replace("CRITIC", CRITIC[algorithm])


def run(folder: Path, algorithm: str, files: list[str]) -> dict[str, Any]:
    """:return: for each file the outcomes of its tests, see :class:`Outcomes`"""
    work = Path(tempfile.mkdtemp(prefix=f"{algorithm}-", dir=folder))
    small = SMALL[algorithm]
    full = {name: default(algorithm, name) for name in small if name != "learning_starts"}
    module = ALGORITHMS[algorithm]
    (work / "sb3_subject.py").write_text(SUBJECT.format(module=module, name=algorithm, small=small, full=full))
    for name in files:
        source = (folder / "tests" / f"{name}.py").read_text(encoding="utf-8")
        (work / f"{name}.py").write_text(edited(name, source, algorithm), encoding="utf-8")
    paths = os.pathsep.join([str(work), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": paths, "SB3_SUBJECT": algorithm}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "run_sb3_tests", "-c", str(folder / "pyproject.toml")]
    command += ["--rootdir", str(work), "-p", "no:cacheprovider", "--durations=5", "--tb=short"]
    subprocess.run([*command, *(f"{name}.py" for name in files)], cwd=work, env=environment, check=False)
    return json.loads((work / "outcomes.json").read_text())  # type: ignore[no-any-return]


def default(algorithm: str, argument: str) -> Any:
    """:return: default of a constructor argument, also of one that the class hands on to its base"""
    for cls in getattr(__import__(ALGORITHMS[algorithm], fromlist=[algorithm]), algorithm).__mro__:
        parameter = inspect.signature(cls.__init__).parameters.get(argument)
        if parameter is not None:
            return parameter.default
    raise SystemExit(f"error: {algorithm} has no argument {argument!r}.")


def report(outcomes: dict[str, dict[str, Any]]) -> str:
    """:return: docs/sb3_tests.md"""
    lines = [
        "# Stable-Baselines3's own tests",
        "",
        "    python scripts/run_sb3_tests.py",
        "",
        f"downloads the source distribution of Stable-Baselines3 {version('stable-baselines3')}, which carries its "
        f"tests, puts the algorithms into them and runs them. Last run: Python {platform.python_version()}, torch "
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
        "Everywhere, the algorithm stands in the place of `TD3`. Where a test says nothing else, it is built with "
        + "; ".join(f"`{', '.join(f'{k}={v}' for k, v in kw.items())}` ({name})" for name, kw in SMALL.items())
        + ": the tests count on the 100 random steps of SAC and TD3 before the first update, and small batches save "
        "time. CRITIC is "
        + ", ".join(f"`{network}` ({name})" for name, network in CRITIC.items())
        + ": what takes observations and is trained. Besides:",
        "",
        "| where | what becomes what | reason |",
        "|---|---|---|",
    ]
    for edit in EDITS:
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algo", nargs="+", choices=ALGORITHMS, default=list(ALGORITHMS))
    parser.add_argument("--files", nargs="+", choices=FILES, default=list(FILES))
    parser.add_argument("--sdist", type=Path, help="a stable_baselines3-*.tar.gz that is here already")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        folder = fetch_tests(arguments.sdist, Path(work))
        outcomes = {name: run(folder, name, arguments.files) for name in arguments.algo}
    failures = 0
    for name, files in outcomes.items():
        for file, found in files.items():
            failures += len(found["failed"])
            reasons = "; ".join(f"{count} {reason}" for reason, count in found["not_applicable"].items())
            total = sum(found["not_applicable"].values())
            print(f"{name} {file}: {found['passed']} passed, {len(found['failed'])} failed, {total} n/a ({reasons})")
            for test in found["failed"]:
                print(f"    failed: {test}")
    if arguments.algo == list(ALGORITHMS) and arguments.files == list(FILES):
        DOC.write_text(report(outcomes), encoding="utf-8")
        print(f"wrote {DOC.relative_to(ROOT)}")
    return 1 if failures else 0


# What follows are pytest's hooks, for the runs that ``run`` starts.


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
        elif algorithm in named or (not {"A2C", "DDPG", "DQN", "PPO", "SAC"} & set(named) and algorithm in body):
            kept.append(item)
            answered.add((item.path, item.originalname))
        elif re.search(r"\b(model_class|algo|A2C|DDPG|DQN|PPO|SAC)\b", source):
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


if __name__ == "__main__":
    sys.exit(main())
