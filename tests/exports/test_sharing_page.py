"""The programs of docs/sharing.md run, one after the other, and its list of classes is the one in the code."""

import re
from pathlib import Path

from difftori_gym.exports.classes import EXTRACTORS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "sharing.md"
TEXT = PAGE.read_text(encoding="utf-8")


def test_every_program_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    names: dict = {"__name__": "sharing_page"}
    for block in blocks:
        assert "\nassert " in block
        exec(compile(block, str(PAGE), "exec"), names)


def test_every_extractor_is_named():
    assert [name for name in EXTRACTORS if f"`{name}`" not in TEXT] == []
