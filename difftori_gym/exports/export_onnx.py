"""What users call to write a policy as an ONNX file; what does it stands in ``onnx/`` and needs the package onnx."""

from __future__ import annotations

import math
import os
from pathlib import Path

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy

from difftori_gym.exports.export import check_free_plans

SUFFIX = ".onnx"


def export_onnx(
    model: BaseAlgorithm | BasePolicy, path: str | os.PathLike[str], *, control_hz: float | None = None
) -> Path:
    """
    Write a policy as one ONNX file of standard operations, from observations to actions, planner included, and a JSON
    file of the same name beside it that says what inputs and outputs are, see docs/deploy.md. Runs without torch.

    Its actions are those of ``predict(observation, deterministic=True)``, for one observation at a time.

    :param model: a learner of this package, or its policy
    :param path: file; ``.onnx`` is added where there is no ending
    :param control_hz: actions a second that the policy was trained at, for the description; None if unknown
    :return: the file
    :raises ValueError: if a part of the policy cannot be written, naming the part and what to do
    :raises ImportError: if the package onnx is not installed
    """
    path = Path(path)
    path = path if path.suffix else path.with_suffix(SUFFIX)
    if path.suffix == ".json":
        raise ValueError(f"export_onnx writes a description under {path} itself, give the file another ending: .onnx.")
    if control_hz is not None and not (math.isfinite(control_hz) and control_hz > 0):
        raise ValueError(f"export_onnx needs a positive number of actions a second as control_hz, got {control_hz!r}.")
    check_free_plans(model.policy if isinstance(model, BaseAlgorithm) else model)
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise ImportError("export_onnx needs the package onnx: pip install 'difftori-gym[onnx]'.") from error
    from difftori_gym.exports.onnx.export import write_onnx

    return write_onnx(model, path, control_hz)
