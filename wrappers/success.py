"""When an episode has succeeded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def told_success(info: Mapping[str, Any]) -> bool | None:
    """
    What a step says of success: ``info["is_success"]``, or ``info["success"]`` where there is none.

    An episode has succeeded when any of its steps says so, also if later ones, or the last one, do not.

    :param info: of one step
    :return: whether the task is solved, None where the step does not tell
    """
    told = info.get("is_success", info.get("success"))
    return None if told is None else bool(told)
