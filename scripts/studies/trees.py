"""Source trees of the commits that studies name."""

from __future__ import annotations

import subprocess
from pathlib import Path

# setup maps these folders of the repository into the package; a tree that is not installed needs links.
_MAPPED = ("wrappers", "baselines")


def tree_of(commit: str, repository: Path, trees: Path) -> Path:
    """
    Find or make the tree of a commit. The main tree may change meanwhile.

    :param commit: at least seven digits of it
    :param repository: the git repository
    :param trees: folder of all such trees, named by twelve digits
    :return: the tree: with it on PYTHONPATH, ``difftori_gym`` is imported from there
    :raises ValueError: if there is no such commit
    """
    found = sorted(trees.glob(f"{commit[:12]}*"))
    if len(found) == 1 and _is_whole(found[0]):
        return found[0]
    answer = _git(repository, "rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}")
    if answer.returncode != 0:
        raise ValueError(f"there is no commit {commit} in {repository}: name one that `git log` shows.")
    tree = trees / answer.stdout.strip()[:12]
    if not _is_whole(tree):
        _git(repository, "worktree", "prune")
        trees.mkdir(parents=True, exist_ok=True)
        made = _git(repository, "worktree", "add", "--force", "--detach", str(tree), commit)
        if made.returncode != 0:
            raise ValueError(f"git could not make a worktree of {commit}: {made.stderr.strip()}")
        link_mapped(tree)
    return tree


def link_mapped(tree: Path) -> None:
    """:param tree: a source tree, whose package gets the folders that lie beside it"""
    for name in _MAPPED:
        link = tree / "difftori_gym" / name
        if not link.is_symlink():
            link.symlink_to(Path("..") / name)


def _is_whole(tree: Path) -> bool:
    return all((tree / "difftori_gym" / name / "__init__.py").exists() for name in _MAPPED)


def _git(repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(["git", "-C", str(repository), *arguments], capture_output=True, text=True, check=False)
    except OSError as error:  # no git on this machine
        return subprocess.CompletedProcess([], 1, "", str(error))
