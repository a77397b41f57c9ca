"""Pages one can read: short sentences, tables that fit their column, numbers that lead to their commands."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    ROOT / "benchmarks" / "README.md",
    *sorted(DOCS.rglob("*.md")),
    *sorted(DOCS.glob("*.ipynb")),
]
DIARY = DOCS / "lab.md"

MAX_WORDS = 35
#: Pixels of the column at a window of 1400, of a cell's padding, and of a letter, a little more than the mean.
COLUMN, PADDING, LETTER = 853, 17, 7

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
BAR = re.compile(r"(?<!\\)\|")
ITEM = re.compile(r"(?:[-*]|\d+\.) ")
#: A stop, what closes behind it, and a beginning; "e.g. this" and "0.5" are no ends.
END = re.compile(r"(?<=[.!?])[)\"*_]*\s+(?=[\"(*_\[]*[A-Z0-9])")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def text_of(page: Path) -> str:
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".ipynb":
        return "\n\n".join("".join(c["source"]) for c in json.loads(text)["cells"] if c["cell_type"] == "markdown")
    return text


def plain(text: str) -> str:
    """Without programs and comments; inline code is one word, a link its text."""
    text = re.sub(r"<!--.*?-->", "", FENCE.sub("\n", text), flags=re.DOTALL)
    text = re.sub(r"`[^`\n]*`", "Code", text)
    return re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)


def passages(text: str) -> Iterator[str]:
    """Paragraphs, items of lists and headings; of tables each phrase of a cell. Indented code is none."""
    paragraph: list[str] = []
    for line in [*plain(text).splitlines(), ""]:
        stripped = line.strip()
        if line.startswith("    ") and not paragraph:
            continue
        apart = stripped.startswith(("|", "#", ":::"))
        if (not stripped or apart or ITEM.match(stripped)) and paragraph:
            yield " ".join(paragraph)
            paragraph = []
        if stripped.startswith("|"):
            for cell in BAR.split(stripped.strip("|")):
                yield from cell.split(";")
        elif stripped and not apart:
            paragraph.append(stripped)


def sentences(text: str) -> Iterator[str]:
    for passage in passages(text):
        yield from END.split(passage)


def words(sentence: str) -> int:
    return len(re.findall(r"\S*\w\S*", sentence))


def test_sentences_are_told_apart():
    text = (
        'One `a. B` is so. ("Two," it said.) *Three* took 0.5 s, e.g. here.\n\n'
        "- an item\n- [a link](to/some.md)\n  that goes on\n\n| a cell | of; two |\n|---|---|\n\n    code here\n\n"
        "```sh\nmore code\n```\n# Head\nLast"
    )
    found = [sentence.strip() for sentence in sentences(text) if words(sentence)]
    told = ["One Code is so.", '("Two," it said.', "*Three* took 0.5 s, e.g. here.", "- an item"]
    assert found == [*told, "- a link that goes on", "a cell", "of", "two", "Last"]
    assert words("two words - and 3") == 4


@pytest.mark.parametrize("page", [page for page in PAGES if page != DIARY], ids=name_of)
def test_no_sentence_is_longer_than_one_breath(page):
    long = [(words(sentence), sentence) for sentence in sentences(text_of(page)) if words(sentence) > MAX_WORDS]
    assert long == []


# Tables


def tables(text: str) -> list[list[list[str]]]:
    """Rows of cells, the line of dashes left out."""
    found: list[list[list[str]]] = [[]]
    for line in plain(text).splitlines():
        if not line.startswith("|"):
            found.append([])
        elif not re.fullmatch(r"[|\s:-]+", line) or not re.search("---", line):
            found[-1].append([cell.strip() for cell in BAR.split(line.strip("|"))])
    return [rows for rows in found if rows]


def least_width(rows: list[list[str]]) -> int:
    """Pixels that a table cannot fall below: every column is as wide as its longest word."""
    longest = [
        max(len(word) for cell in column for word in re.split(r"[\s-]", cell)) for column in zip(*rows, strict=True)
    ]
    return sum(PADDING + LETTER * letters for letters in longest)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_tables_fit_their_column(page):
    wide = [(least_width(rows), rows[0]) for rows in tables(text_of(page)) if least_width(rows) > COLUMN]
    assert wide == []


def test_the_site_has_the_styles_that_keep_code_and_tables_in_their_column():
    shipped = re.findall(r"^  - (\S+\.css)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert shipped == ["stylesheets/site.css"]
    assert "white-space: pre-wrap" in (DOCS / shipped[0]).read_text(encoding="utf-8")


# Numbers and their commands


def section(page: Path, anchor: str) -> str:
    """From the heading of this address to the next of its level or above."""
    text = page.read_text(encoding="utf-8")
    for heading in re.finditer(r"^(#+) (.+)$", FENCE.sub(lambda match: " " * len(match[0]), text), re.MULTILINE):
        if re.sub(r"[^\w\s-]", "", heading[2].lower()).strip().replace(" ", "-") == anchor:
            rest = text[heading.end() :]
            return re.split(rf"^#{{1,{len(heading[1])}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]
    raise AssertionError(f"{name_of(page)} has no section {anchor}")


def has_command(page: Path, link: str) -> bool:
    target, _, anchor = link.partition("#")
    path = (page.parent / target).resolve() if target else page
    text = section(path, anchor) if anchor else path.read_text(encoding="utf-8")
    if any(language == "sh" for language, _ in FENCE.findall(text)):
        return True
    # A table of tables: each of its rows leads on.
    return any(has_command(path, onward) for onward in re.findall(r"\]\(([^)]*#[^)]*)\)", text))


@pytest.mark.parametrize(
    ("page", "title", "least", "most"),
    [("README.md", "numbers", 7, 12), ("docs/results.md", "everything-that-was-measured", 20, 30)],
)
def test_rows_of_numbers_lead_to_their_command(page, title, least, most):
    lines = section(ROOT / page, title).splitlines()
    rows = [line for line in lines if line.startswith("|") and re.search(r"\d", line.partition("](")[2])]
    assert least <= len(rows) <= most
    links = {row: re.findall(r"\]\(([^)]+)\)", row) for row in rows}
    assert [row for row, found in links.items() if not found] == []
    assert [row for row, found in links.items() if not all(has_command(ROOT / page, link) for link in found)] == []


def test_a_link_without_a_command_is_noticed():
    assert not has_command(ROOT / "README.md", "docs/notation.md")
    assert has_command(ROOT / "README.md", "docs/results.md#cartpole-swingup-40000-frames")


def test_the_readme_shows_the_film_first_and_is_short():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 120
    film = re.match(r"!\[.+\]\((.+\.gif)\)", next(line for line in lines[1:] if line))
    assert film
    assert (ROOT / film[1]).is_file()


def test_benchmarks_begin_with_a_summary():
    rows = tables(section(ROOT / "benchmarks" / "README.md", "summary"))[0]
    assert 10 <= len(rows) - 1 <= 25
    text = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.+)$", text, flags=re.MULTILINE)[0] == "Summary"


def test_the_diary_has_dates():
    days = re.findall(r"^## (.+)$", DIARY.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(days) >= 3
    assert [day for day in days if not re.fullmatch(r"\d{1,2} [A-Z][a-z]+ 20\d\d", day)] == []
