"""What pages of the documentation claim, against the code: metrics, spaces, error messages, public names, notebook."""

import ast
import importlib
import re
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import nbformat
import numpy as np
import pytest
from gymnasium import spaces
from nbclient import NotebookClient
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import KVWriter, Logger

import difftori_gym
from difftori_gym import DiffTORI, DiffTORIImitation, baselines
from difftori_gym.baselines import BC, BCRNN, IBC, MIP, TDMPC, TDMPC2, DiffusionPolicy, DrQv2, FlowMatching, Residual
from difftori_gym.il import Demonstrations, Episode

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"

IMAGE = spaces.Box(0, 255, (3, 36, 36), np.uint8)
VECTOR = spaces.Box(-1.0, 1.0, (2,), np.float32)
#: the rows of every "Can I use?" table
SPACES: dict[str, spaces.Space] = {
    "Discrete": spaces.Discrete(3),
    "Box": VECTOR,
    "MultiDiscrete": spaces.MultiDiscrete([2, 3]),
    "MultiBinary": spaces.MultiBinary(3),
    "Dict": spaces.Dict(a=VECTOR, b=spaces.Box(-1.0, 1.0, (1,), np.float32)),
}


class AnySpaces(gym.Env):
    """Episodes of six steps with samples of any observation space; the last step may succeed."""

    def __init__(self, observation_space: spaces.Space, action_space: spaces.Space) -> None:
        self.observation_space, self.action_space, self.steps = observation_space, action_space, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return self.observation_space.sample(), 1.0, False, self.steps >= 6, {"is_success": True}


def demonstrations(observation_space: spaces.Space, action_space: spaces.Space) -> Demonstrations:
    """Two episodes of samples."""
    episodes = []
    for _ in range(2):
        seen = [observation_space.sample() for _ in range(9)]
        stacked: Any = np.array(seen)
        if isinstance(observation_space, spaces.Dict):
            stacked = {key: np.array([each[key] for each in seen]) for key in seen[0]}
        actions = np.array([action_space.sample() for _ in range(8)])
        episodes.append(Episode(stacked, actions, np.zeros(8), False, True))
    return Demonstrations(tuple(episodes), observation_space, action_space)


def policy_name(space: spaces.Space) -> str:
    return "MultiInputPolicy" if isinstance(space, spaces.Dict) else "CnnPolicy" if space is IMAGE else "MlpPolicy"


SMALL = dict(policy_kwargs=dict(net_arch=[8]))
WINDOW = dict(n_obs_steps=2, horizon=4, n_action_steps=2)


def by_reward(cls: type[BaseAlgorithm], **settings: Any) -> Callable[..., BaseAlgorithm]:
    def make(observations: spaces.Space, actions: spaces.Space) -> BaseAlgorithm:
        return cls(
            policy_name(observations),
            AnySpaces(observations, actions),
            learning_starts=8,
            batch_size=4,
            buffer_size=60,
            device="cpu",
            seed=0,
            **settings,
        )

    return make


def by_imitation(cls: type[BaseAlgorithm], *, on_base: bool = False, **settings: Any) -> Callable[..., BaseAlgorithm]:
    def make(observations: spaces.Space, actions: spaces.Space) -> BaseAlgorithm:
        shown = demonstrations(observations, actions)
        name = policy_name(observations)
        base = dict(base_policy=BC(name, None, shown, **SMALL, **WINDOW, device="cpu")) if on_base else {}
        return cls(name, None, shown, batch_size=4, device="cpu", seed=0, **base, **settings)

    return make


PLANNER = dict(horizon=2, planner_kwargs=dict(max_iterations=2), **SMALL)
LEARNERS: dict[str, Callable[..., BaseAlgorithm]] = {
    "difftori": by_reward(DiffTORI, pg_freq=1, pg_batch_size=2, **PLANNER),
    "tdmpc": by_reward(TDMPC, **dict(PLANNER, planner_kwargs=dict(max_iterations=2, num_samples=16, num_elites=4))),
    "tdmpc2": by_reward(
        TDMPC2,
        horizon=2,
        planner_kwargs=dict(max_iterations=2, num_samples=16, num_elites=4, num_prior_samples=2),
        policy_kwargs=dict(net_arch=[8], latent_dim=8),
    ),
    "drqv2": by_reward(DrQv2, policy_kwargs=dict(net_arch=[8])),
    "difftori_imitation": by_imitation(
        DiffTORIImitation, on_base=True, planner_kwargs=dict(max_iterations=2), **SMALL, **WINDOW
    ),
    "bc": by_imitation(BC, **SMALL),
    "bc_rnn": by_imitation(BCRNN, n_obs_steps=3, policy_kwargs=dict(hidden_dim=8)),
    "ibc": by_imitation(
        IBC, policy_kwargs=dict(width=8, depth=2, num_counter_examples=8, num_action_samples=16, num_iterations=2)
    ),
    "diffusion_policy": by_imitation(DiffusionPolicy, size="small", num_inference_steps=2, **WINDOW),
    "flow_matching": by_imitation(FlowMatching, size="small", num_inference_steps=2, **WINDOW),
    "mip": by_imitation(MIP, size="small", **WINDOW),
    "residual": by_imitation(Residual, on_base=True, **SMALL, **WINDOW),
}


def natural(learner: str) -> spaces.Space:
    """The space of observations that a learner is made for."""
    return IMAGE if learner == "drqv2" else VECTOR


def test_every_algorithm_has_a_page_and_every_page_an_algorithm():
    pages = {path.stem for path in (DOCS / "algorithms").glob("*.md")} - {"index"}
    assert pages == set(LEARNERS)
    classes = {type(make(natural(name), VECTOR)).__name__ for name, make in LEARNERS.items()}
    assert classes == {"DiffTORI", "DiffTORIImitation", *baselines.__all__}


# "Can I use?"


def table(page: str) -> dict[str, tuple[str, str]]:
    """Rows of the table of spaces: whether as action, whether as observation."""
    text = (DOCS / "algorithms" / f"{page}.md").read_text(encoding="utf-8")
    rows = text.partition("| Space | Action | Observation |\n|---|---|---|\n")[2].partition("\n\n")[0]
    return {
        name: (action, observation) for name, action, observation in re.findall(r"\| (\w+) \| (\w+) \| (\w+) \|", rows)
    }


def works(learner: str, observations: spaces.Space, actions: spaces.Space) -> str:
    for space in (observations, actions):
        space.seed(0)
    try:
        LEARNERS[learner](observations, actions).learn(10)
    except (ValueError, AssertionError, TypeError) as refusal:
        return "no" if str(refusal) else "refused without a word"
    return "yes"


@pytest.mark.parametrize("learner", list(LEARNERS))
def test_spaces_are_used_or_refused_as_the_page_says(learner):
    told = table(learner)
    assert told.keys() == SPACES.keys()
    for name, space in SPACES.items():
        assert works(learner, natural(learner), space) == told[name][0], f"{name} as action"
        # DrQ-v2 reads images, which are boxes.
        observation = IMAGE if learner == "drqv2" and name == "Box" else space
        assert works(learner, observation, VECTOR) == told[name][1], f"{name} as observation"


# Logged metrics

GROUPS = {
    "planners": {"DiffTORI", "TDMPC", "TDMPC2"},
    "imitation": {"BC", "BCRNN", "IBC", "DiffusionPolicy", "FlowMatching", "MIP", "Residual", "DiffTORIImitation"},
}
GROUPS["all"] = {*GROUPS["planners"], *GROUPS["imitation"], "DrQv2"}


class Keys(KVWriter):
    """Remembers the names of all that is logged."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, Any], step: int = 0) -> None:
        self.seen |= set(key_values)

    def close(self) -> None:
        pass


def explained(learner: str) -> set[str]:
    """Keys that the page of metrics says this class logs."""
    rows = re.findall(
        r"^\| `([\w/]+)` \| ([\w, ]+) \|", (DOCS / "metrics.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert len(rows) > 25
    return {
        key
        for key, loggers in rows
        if any(learner == logger or learner in GROUPS.get(logger, ()) for logger in loggers.split(", "))
    }


@pytest.mark.parametrize("learner", list(LEARNERS))
def test_the_page_of_metrics_lists_what_is_logged(learner):
    model = LEARNERS[learner](natural(learner), VECTOR)
    keys = Keys()
    model.set_logger(Logger(folder=None, output_formats=[keys]))
    model.learn(20, log_interval=1)
    assert keys.seen == explained(type(model).__name__)


# Figures


def figures(page: Path) -> set[str]:
    """Numbers of three digits and more in the text of a page; programs, code and addresses are left out."""
    text = re.sub(
        r"^```.*?^```$|`[^`]*`|\]\([^)]*\)|arXiv \S+", "", page.read_text(encoding="utf-8"), flags=re.M | re.S
    )
    return set(re.findall(r"(?<![\w.,])\d{3,}(?:,\d{3})*(?![\w,])", text)) - {"000"}


def test_figures_of_summaries_stand_where_they_were_measured():
    measured = [ROOT / "benchmarks" / "README.md"]
    measured += [
        DOCS / f"{name}.md" for name in ("results", "results_pixels", "imitation", "pixels", "known_dynamics", "lab")
    ]
    known = "\n".join(page.read_text(encoding="utf-8") for page in measured)
    summaries = [
        ROOT / "README.md",
        DOCS / "choosing.md",
        *(DOCS / "algorithms" / f"{name}.md" for name in ("difftori", "tdmpc", "tdmpc2", "drqv2")),
    ]
    years = {str(year) for year in range(2018, 2027)}
    quoted = {page.name: figures(page) - years for page in summaries}
    assert len(quoted["choosing.md"]) > 20
    missing = {(page, figure) for page, found in quoted.items() for figure in found if figure not in known}
    assert missing == set()


# Error messages


def literals() -> Iterator[str]:
    """Every text in the package; what an f-string fills in is a character that no message has."""
    for folder in ("difftori_gym", "wrappers", "baselines"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value
                elif isinstance(node, ast.JoinedStr):
                    parts = [part.value if isinstance(part, ast.Constant) else "\0" for part in node.values]
                    yield "".join(str(part) for part in parts)


def test_quoted_messages_stand_in_the_source():
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    quoted = re.findall(r"^### `(.+)`$", text, flags=re.MULTILINE)
    assert len(quoted) >= 40
    source = {literal for literal in literals() if " " in literal}
    assert not any("A message that nobody raises" in literal for literal in source)
    missing = []
    for message in quoted:
        pattern = re.compile(".*".join(re.escape(piece) for piece in message.split("…")), re.DOTALL)
        if not any(pattern.search(literal) for literal in source):
            missing.append(message)
    assert missing == []


# Public names


def test_every_public_name_is_in_the_reference():
    pages = "\n".join(path.read_text(encoding="utf-8") for path in DOCS.rglob("*.md"))
    rendered = {name.rpartition(".")[2] for name in re.findall(r"^::: ([\w.]+)$", pages, flags=re.MULTILINE)}
    public = {*difftori_gym.__all__, *baselines.__all__}
    assert public - rendered == set()


def test_what_the_reference_renders_can_be_imported():
    pages = "\n".join(path.read_text(encoding="utf-8") for path in DOCS.rglob("*.md"))
    names = re.findall(r"^::: ([\w.]+)$", pages, flags=re.MULTILINE)
    assert len(names) > 50
    for name in names:
        module, _, attribute = name.rpartition(".")
        found = importlib.import_module(module)
        assert hasattr(found, attribute) or importlib.import_module(name), name


# The site's settings


@pytest.fixture
def hooks() -> dict[str, Any]:
    """What the site's build calls."""
    pytest.importorskip("mkdocs", reason='the extra "docs" builds the site')
    return runpy.run_path(str(ROOT / "scripts" / "docs_hooks.py"))


def test_nothing_is_fetched_when_a_page_is_opened(hooks):
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert "font: false" in text
    assert "strict: true" in text
    fetched = hooks["FETCHED"]
    assert fetched.search('<link rel="stylesheet" href="https://fonts.googleapis.com/css">')
    assert fetched.search("<script defer src=//cdn.example.org/a.js></script>")
    assert not fetched.search('<a href="https://arxiv.org/abs/2402.05421">paper</a><script src="assets/a.js"></script>')


@pytest.mark.parametrize(
    ("page", "written", "shown"),
    [
        ("choosing.md", "[a](../benchmarks/README.md#floor)", "[a](benchmarks.md#floor)"),
        ("guides/suite.md", "[a](../../CONTRIBUTING.md)", "[a](../contributing.md)"),
        ("guides/suite.md", "[a](../film.md)", "[a](../film.md)"),
        ("benchmarks.md", "![a](../docs/figures/f.png)", "![a](figures/f.png)"),
        ("contributing.md", "[a](docs/solvers.md)", "[a](solvers.md)"),
        ("index.md", "[a](https://arxiv.org/abs/1) [b](#here)", "[a](https://arxiv.org/abs/1) [b](#here)"),
        ("index.md", "```python\nx = a[0](../b)\n```", "```python\nx = a[0](../b)\n```"),
    ],
)
def test_links_between_files_become_links_between_pages(hooks, page, written, shown):
    rewrite = hooks["on_page_markdown"]
    place = SimpleNamespace(file=SimpleNamespace(src_uri=page))
    assert rewrite(written, page=place, config=None, files=None) == shown


def test_a_link_to_a_file_that_is_no_page_is_refused(hooks):
    place = SimpleNamespace(file=SimpleNamespace(src_uri="index.md"))
    with pytest.raises(Exception, match="which is no page of the site"):
        hooks["on_page_markdown"]("[a](../Makefile)", page=place, config=None, files=None)


# The notebook


@pytest.mark.filterwarnings("ignore")
def test_the_notebook_runs_from_top_to_bottom(tmp_path):
    notebook = nbformat.read(DOCS / "tutorial.ipynb", as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)
    settings = [cell for cell in cells if "STEPS = 1_000" in cell.source]
    assert len(settings) == 1
    settings[0].source = settings[0].source.replace("STEPS = 1_000", "STEPS = 330")  # the first updates are at 300
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    assert (tmp_path / "tutorial.mp4").stat().st_size > 1000
