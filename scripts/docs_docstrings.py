"""Docstrings for the documentation site: Sphinx's roles become plain code, links of wrapped lines stay whole."""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:class|func|meth|mod|attr|data):`(~?)([^`]+)`")


def plain(text: str) -> str:
    """
    :param text: of a docstring
    :return: the same, with roles such as ``:class:`~difftori_gym.DiffTORI``` as the name they show
    """

    def shown(match: re.Match[str]) -> str:
        shortened, name = match.groups()
        return f"`{name.rpartition('.')[2] if shortened else name}`"

    return ROLE.sub(shown, text)


class PlainRoles(griffe.Extension):
    """Rewrites every docstring when it is loaded."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """:param obj: a module, class, function or attribute"""
        if obj.docstring is not None:
            obj.docstring.value = plain(obj.docstring.value)
