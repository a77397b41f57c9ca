"""No message advises to delete what was trained or collected."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ADVICE = re.compile(
    r"\b(remove|delete) (it\b|(its|that|the|this) (folder|file|run|checkpoint|model|data))|\brm -r", re.I
)


def messages(path: Path) -> list[str]:
    """Every text in an expression that is raised or printed, f-strings joined."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.Raise, ast.Call)):
            texts = [each.value for each in ast.walk(node) if isinstance(each, ast.Constant)]
            found.append("".join(text for text in texts if isinstance(text, str)))
    return found


def test_no_message_advises_to_delete():
    said = {
        f"{path.relative_to(ROOT)}: {message}"
        for folder in ("difftori_gym", "wrappers", "baselines", "examples", "scripts")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for message in messages(path)
        if ADVICE.search(message)
    }
    assert not said
