"""
Everything in a code block of the documentation is run: Python as it stands, of shell commands the programs and options.

Training is cut short: ``learn`` takes a few steps whatever a page says, a film a few pictures. All else is as written.
"""

import contextlib
import io
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import pytest
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

import difftori_gym
from difftori_gym.envs import SUITES
from difftori_gym.trajopt import SampledSolution
from difftori_gym.trajopt.optimizer import SOLVERS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    ROOT / "benchmarks" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
#: page -> a package that its Python needs and that no extra of ours brings
NEEDS = {"docs/known_dynamics.md": "mpc"}

STEPS, RANDOM_STEPS, PICTURES = 14, 8, 6
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    language: str
    code: str
    line: int  # of its first line


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks_of(page: Path, *languages: str) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = [Block(match[1], match[2], text[: match.start()].count("\n") + 1) for match in FENCE.finditer(text)]
    return [block for block in found if block.language in languages or not languages]


def pages_with(*languages: str) -> list[str]:
    return [name_of(page) for page in PAGES if blocks_of(page, *languages)]


@pytest.fixture
def contained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A folder to write to, and suites and environments that are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    before = [(registry, set(registry)) for registry in (SUITES, gym.registry)]
    yield
    for registry, names in before:
        for name in set(registry) - names:
            del registry[name]


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cuts training and films short."""
    set_up, film = BaseAlgorithm._setup_learn, difftori_gym.record_video

    def few_steps(self, total_timesteps, *args, **kwargs):
        self.learning_starts = min(getattr(self, "learning_starts", 0), RANDOM_STEPS)
        return set_up(self, min(total_timesteps, STEPS), *args, **kwargs)

    def few_pictures(*args, max_steps=None, **kwargs):
        return film(*args, max_steps=min(max_steps or PICTURES, PICTURES), **kwargs)

    pretrain = difftori_gym.DiffTORI._pretrain
    monkeypatch.setattr(difftori_gym.DiffTORI, "_pretrain", lambda self, steps: pretrain(self, min(steps, STEPS)))
    monkeypatch.setattr(BaseAlgorithm, "_setup_learn", few_steps)
    monkeypatch.setattr(difftori_gym, "record_video", few_pictures)


@pytest.mark.parametrize("name", pages_with("python"))
def test_python_runs_from_the_top_of_the_page_to_its_end(name, short, contained):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name], reason=f"{name} repeats a measurement with a package of others")
    namespace: dict[str, Any] = {"__name__": "documentation"}
    try:
        for block in blocks_of(ROOT / name, "python"):
            # So that a traceback names the line of the page.
            exec(compile("\n" * block.line + block.code, name, "exec"), namespace)
    finally:
        for value in namespace.values():
            if isinstance(value, gym.Env | VecEnv):
                value.close()


def test_every_block_says_what_it_is():
    known = {"python", "sh", "text"}
    assert [
        (name_of(page), block.line) for page in PAGES for block in blocks_of(page) if block.language not in known
    ] == []


def test_no_program_hides_in_an_indented_block():
    hidden = re.compile(r"^    (?:python|pip|make|uv|from \w+ import|import) .*", flags=re.MULTILINE)
    found = [
        (name_of(page), line)
        for page in PAGES
        for line in hidden.findall(FENCE.sub("", page.read_text(encoding="utf-8")))
    ]
    assert found == []


# Shell commands


class Command(NamedTuple):
    words: list[str]
    page: str

    def __str__(self) -> str:
        return f"{self.page}: {' '.join(self.words)}"


def commands() -> Iterator[Command]:
    for page in PAGES:
        for block in blocks_of(page, "sh"):
            for line in block.code.replace("\\\n", " ").splitlines():
                words: list[str] = []
                lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;<>")
                lexer.whitespace_split, lexer.commenters = True, "#"
                for word in [*lexer, "&&"]:
                    if word in {"&&", "||", "|", ";"}:
                        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):  # environment variables
                            words.pop(0)
                        if words:
                            yield Command(words, name_of(page))
                        words = []
                    else:
                        words.append(word)


COMMANDS = list(commands())


def help_of(words: list[str]) -> str:
    """What a Python program of this repository says of itself, run in this process: torch is loaded already."""
    output, argv, path = io.StringIO(), sys.argv, list(sys.path)
    try:
        with contextlib.redirect_stdout(output), pytest.raises(SystemExit) as end:
            start(words)
    finally:
        sys.argv, sys.path[:] = argv, path
    assert end.value.code in (0, None)
    return output.getvalue()


def start(words: list[str]) -> None:
    if words[0] == "-m":
        sys.argv = [words[1], *words[2:], "--help"]
        sys.modules.pop(f"{words[1]}.__main__", None)  # another test has imported it, which runpy warns of
        runpy.run_module(words[1], run_name="__main__", alter_sys=False)
    else:
        program = ROOT / words[0]
        sys.argv = [str(program), *words[1:], "--help"]
        sys.path.insert(0, str(program.parent))
        runpy.run_path(str(program), run_name="__main__")


def python_programs() -> dict[tuple[str, ...], list[Command]]:
    """Each program with its subcommand, and the commands that start it."""
    found: dict[tuple[str, ...], list[Command]] = {}
    for command in COMMANDS:
        if command.words[0] != "python":
            continue
        length = 3 if command.words[1] == "-m" else 2
        program = command.words[1:length]
        rest = command.words[length:]
        # A subcommand is a bare word at the beginning of programs that have them.
        has_subcommands = program[-1] in {"difftori_gym.zoo", "examples/ablations.py", "scripts/evidence.py"}
        subcommand = rest[:1] if has_subcommands and rest and not rest[0].startswith("-") else []
        if len(rest) > len(subcommand):
            found.setdefault((*program, *subcommand), []).append(command)
    return found


PROGRAMS = python_programs()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("program", list(PROGRAMS), ids=" ".join)
def test_programs_have_the_options_that_are_shown(program):
    options = set(re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", help_of(list(program))))
    for command in PROGRAMS[program]:
        used = {word.split("=")[0] for word in command.words if re.match(r"--?[a-zA-Z]", word)} - {"-m"}
        assert used <= options, f"{command}: {sorted(used - options)} not among {sorted(options)}"


def test_there_are_commands_of_every_kind():
    assert len(PROGRAMS) >= 15
    assert {"python", "make", "pip"} <= {command.words[0] for command in COMMANDS}


def test_make_has_the_targets_and_variables_that_are_shown():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, flags=re.MULTILINE))
    variables = set(re.findall(r"^([A-Z_]+) \?=", makefile, flags=re.MULTILINE))
    for command in COMMANDS:
        if command.words[0] == "make":
            for word in command.words[1:]:
                name, is_variable, _ = word.partition("=")
                assert name in (variables if is_variable else targets), str(command)


def test_pip_is_asked_for_extras_that_there_are():
    with (ROOT / "pyproject.toml").open("rb") as file:
        extras = set(tomllib.load(file)["project"]["optional-dependencies"])
    asked = [
        (command, extra)
        for command in COMMANDS
        if "pip" in command.words
        for word in command.words
        for group in re.findall(r"^(?:\.|difftori-gym)\[([\w,-]+)\]$", word)
        for extra in group.split(",")
    ]
    assert len(asked) >= 10
    assert [str(command) for command, extra in asked if extra not in extras] == []


def test_no_other_programs_are_shown():
    known = {"python", "make", "pip", "uv", "echo", "git", "cd"}
    others = [command for command in COMMANDS if command.words[0] not in known]
    assert [str(command) for command in others if not (ROOT / command.words[0]).is_file()] == []
    files = [command.words[1] for command in COMMANDS if command.words[0] == "python" and command.words[1] != "-m"]
    assert [file for file in files if not (ROOT / file).is_file()] == []


# Links, and the page of the solvers


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if not re.match(r"[a-z]+:", link)]
    missing = [link for link in links if not (page.parent / link).exists()]
    # Made from a notebook when the site is built, see scripts/docs_hooks.py.
    assert [link for link in missing if not (page.parent / link).with_suffix(".ipynb").exists()] == []


SOLVER_PAGE = ROOT / "docs" / "solvers.md"


def test_programs_about_solvers_assert_something():
    blocks = blocks_of(SOLVER_PAGE, "python")
    assert len(blocks) >= 4
    assert all("\nassert " in block.code for block in blocks)


def test_every_solver_and_every_field_is_explained():
    text = SOLVER_PAGE.read_text(encoding="utf-8")
    assert [name for name in SOLVERS if f"| `{name}` |" not in text] == []
    assert [field.name for field in fields(SampledSolution) if f"`{field.name}`" not in text] == []
