"""Every program in the documentation of the solvers runs, and what it lists is what there is."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from difftori_gym.trajopt import SampledSolution
from difftori_gym.trajopt.optimizer import SOLVERS

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = DOCS / "solvers.md"
TEXT = PAGE.read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("index", range(len(BLOCKS)))
def test_every_block_is_a_program_that_runs(index):
    before = TEXT[: TEXT.index(BLOCKS[index])].count("\n")  # so that a traceback names the line on the page
    exec(compile("\n" * before + BLOCKS[index], str(PAGE), "exec"), {"__name__": "solvers_page"})


def test_there_are_blocks_and_each_asserts_something():
    assert len(BLOCKS) >= 4
    assert all("\nassert " in block for block in BLOCKS)


def test_every_solver_and_every_field_is_explained():
    assert [name for name in SOLVERS if f"| `{name}` |" not in TEXT] == []
    assert [field.name for field in fields(SampledSolution) if f"`{field.name}`" not in TEXT] == []


def test_the_page_is_found_and_its_links_lead_somewhere():
    assert "(solvers.md)" in (DOCS / "index.md").read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", TEXT) if not link.startswith("http")]
    assert links
    assert [link for link in links if not (DOCS / link).exists()] == []
