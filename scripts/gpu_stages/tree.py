"""The package without an installation: a machine that is lent for half an hour has none."""

from __future__ import annotations

import os
import sys
from pathlib import Path

MAPPED = ("wrappers", "baselines")
"""Folders at the top that belong into the package."""


def make_importable(root: Path) -> Path:
    """
    Let this process and those that it starts import ``difftori_gym`` from a checkout.

    :param root: the checkout
    :return: the folder that is searched first: the checkout itself if its package is whole, else one of links
    """
    place = root
    if not all((root / "difftori_gym" / name).exists() for name in MAPPED):
        place = root / "build" / "importable"
        package = place / "difftori_gym"
        package.mkdir(parents=True, exist_ok=True)
        for part in (*(root / "difftori_gym").iterdir(), *(root / name for name in MAPPED)):
            link = package / part.name
            if part.name != "__pycache__" and not link.exists():
                link.unlink(missing_ok=True)  # one that leads nowhere
                link.symlink_to(part)
    sys.path.insert(0, str(place))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(place), os.environ.get("PYTHONPATH"))))
    return place
