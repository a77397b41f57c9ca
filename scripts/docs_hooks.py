"""
Hooks of the documentation site: pages that lie outside docs/, notebooks as pages, and a check that nothing is fetched.

Some pages have their place elsewhere in the repository, where people look for them. They keep it, and links to them and
from them work in both places: as files, and on the site.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
import shutil
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]

#: file in the repository -> page of the site
OUTSIDE = {
    "benchmarks/README.md": "benchmarks.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
}
#: folder in the repository -> where it lies in the installed package
PARTS = {"difftori_gym": ".", "wrappers": "wrappers", "baselines": "baselines"}

LINK = re.compile(r"(\]\()([^)#\s]+)(#[^)\s]*)?(\))")
FETCHED = re.compile(r"<(?:script|img|link|iframe|source|video)\b[^>]*?\b(?:src|href)=[\"']?(?:https?:)?//[^>]*>", re.I)


def on_startup(command: str, dirty: bool) -> None:
    """
    Lay a copy of the package where mkdocstrings reads it, with its parts in the places where they are installed.

    Before mkdocstrings is configured: it looks into the folder only then.
    """
    copy = ROOT / "build" / "docs-source" / "difftori_gym"
    shutil.rmtree(copy, ignore_errors=True)
    for folder, place in PARTS.items():
        shutil.copytree(ROOT / folder, copy / place, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that lie outside docs/, and a page for each notebook."""
    for source, page in OUTSIDE.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    for notebook in sorted((ROOT / "docs").glob("*.ipynb")):
        files.append(File.generated(config, f"{notebook.stem}.md", content=page_of(notebook)))
    return files


def page_of(notebook: Path) -> str:
    """
    :param notebook: without outputs
    :return: its cells as Markdown, with a link to the notebook itself behind the title
    """
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    texts = [
        "".join(cell["source"]) if cell["cell_type"] == "markdown" else f"```python\n{''.join(cell['source'])}\n```"
        for cell in cells
    ]
    title, _, rest = texts[0].partition("\n")
    return "\n\n".join(
        [title, f"This page is a notebook: [{notebook.name}]({notebook.name}).", rest.strip(), *texts[1:]]
    )


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Turn links between files of the repository into links between pages of the site."""
    pages = {page_name: source for source, page_name in OUTSIDE.items()}
    place = pages.get(page.file.src_uri, f"docs/{page.file.src_uri}")  # where this page lies in the repository

    def on_the_site(match: re.Match[str]) -> str:
        opening, target, anchor, closing = match.groups()
        if ":" in target or target.startswith("/"):
            return match.group(0)
        in_repository = posixpath.normpath(posixpath.join(posixpath.dirname(place), target))
        if in_repository == "README.md":
            in_site = "index.md"
        elif in_repository in OUTSIDE:
            in_site = OUTSIDE[in_repository]
        elif in_repository.startswith("docs/"):
            in_site = in_repository.removeprefix("docs/")
        else:
            raise PluginError(f"{place}: link to {target}, which is no page of the site: name the file without a link.")
        here = posixpath.dirname(page.file.src_uri)
        return f"{opening}{posixpath.relpath(in_site, here or '.')}{anchor or ''}{closing}"

    parts = re.split(r"(^```.*?^```$)", markdown, flags=re.MULTILINE | re.DOTALL)  # code is left alone
    return "".join(part if part.startswith("```") else LINK.sub(on_the_site, part) for part in parts)


def on_post_build(config: Any) -> None:
    """Refuse a page that would fetch something from elsewhere when it is opened."""
    site = Path(config["site_dir"])
    found = [
        f"{path.relative_to(site)}: {tag}"
        for path in sorted(site.rglob("*.html"))
        for tag in FETCHED.findall(path.read_text(encoding="utf-8"))
        if 'rel="canonical"' not in tag
    ]
    if found:
        raise PluginError("Pages must not fetch anything, found:" + os.linesep + os.linesep.join(found))
