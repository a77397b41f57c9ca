"""
Run a policy that ``export_onnx`` wrote at a fixed rate. Needs numpy and onnxruntime, neither torch nor this package:
copy this file, POLICY.onnx and POLICY.json to the machine that acts.

    python examples/deploy.py policy.onnx --hz 50 --seconds 10

``observe`` and ``act`` in ``main`` stand for the robot's; here observations are random. The report counts deadlines
that were missed: actions that were not there before the next observation was due. Exit code: 0, 1 if there were any,
2 if the file cannot be used.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime

Observation = Any
"""An array, or a dictionary of arrays under the names of the file's inputs."""

SCHEMA, VERSION = "difftori-gym/onnx-policy", 1
MOST_NUMBERS = 1 << 28
"""Of one input: a file that asks for more is not one of ours."""
TYPES = {f"tensor({'float' if name == 'float32' else 'double' if name == 'float64' else name})": name for name in (
    "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32",
)}  # fmt: skip


class OnnxPolicy:
    """
    A policy from a file: ``predict`` maps an observation to an action, ``reset`` forgets what was before.

    :param path: file of ``export_onnx``; its description lies beside it under the same name with ``.json``
    :param threads: that compute
    :raises ValueError: in one line, if onnxruntime refuses the file, or the description does not fit it
    """

    def __init__(self, path: str | Path, threads: int = 1) -> None:
        self.path = Path(path)
        self.description = _read_description(self.path.with_suffix(".json"))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 4
        try:
            # As bytes: a file that names other files as parts of itself does not get to read them.
            self._session = onnxruntime.InferenceSession(
                self.path.read_bytes(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's have no class of their own
            raise _refusal(self.path, f"onnxruntime does not load it: {_one_line(error)}") from error
        self._names: list[str] = [each.name for each in self._session.get_outputs()]
        self._check()
        self._memory: dict[str, np.ndarray] = {}
        self.reset()

    def reset(self) -> None:
        """To be called where an episode starts."""
        for part in self.description["memory"]:
            self._memory[part["input"]] = np.full(part["shape"], part["initial"], part["dtype"])

    def predict(self, observation: Observation) -> np.ndarray:
        """
        :param observation: in the environment's units, without a batch axis
        :return: action, in the environment's units and inside its bounds
        :raises ValueError: if the observation has other names or shapes, or a number that is not finite
        """
        inputs = self._inputs(observation)
        try:
            found = self._session.run(self._names, {**inputs, **self._memory})
        except Exception as error:
            raise _refusal(self.path, f"onnxruntime does not run it: {_one_line(error)}") from error
        outputs: dict[str, np.ndarray] = dict(zip(self._names, found, strict=True))
        for part in self.description["memory"]:
            self._memory[part["input"]] = outputs[part["output"]]
        return outputs[self.description["action"]["output"]]

    def _inputs(self, observation: Observation) -> dict[str, np.ndarray]:
        expected = self.description["observations"]
        given = observation if isinstance(observation, dict) else {expected[0]["input"]: observation}
        names = [each["input"] for each in expected]
        if sorted(given) != sorted(names):
            raise ValueError(f"{self.path}: expected observations {sorted(names)}, got {sorted(given)}.")
        inputs = {}
        for each in expected:
            name, shape = each["input"], tuple(each["shape"])
            array = np.asarray(given[name])
            if array.shape != shape and len(shape) == 3 and array.shape == (*shape[1:], shape[0]):
                array = array.transpose(2, 0, 1)  # an image with its channels last
            if array.shape != shape:
                raise ValueError(f"{self.path}: expected {name!r} of shape {shape}, got {array.shape}.")
            inputs[name] = np.ascontiguousarray(array, each["dtype"]) if shape else np.asarray(array, each["dtype"])
            if inputs[name].dtype.kind == "f" and not np.isfinite(inputs[name]).all():
                raise ValueError(f"{self.path}: expected finite observations, got nan or infinity in {name!r}.")
        return inputs

    def _check(self) -> None:
        """Compare the description with the graph."""
        try:
            described = self.description
            inputs = {each["input"]: _layout(each) for each in [*described["observations"], *described["memory"]]}
            outputs = {each["output"]: _layout(each) for each in [described["action"], *described["memory"]]}
            finite = all(math.isfinite(part["initial"]) for part in described["memory"])
            count = len(described["observations"])
        except (KeyError, TypeError, AttributeError) as error:
            raise _refusal(self.path, f"its description lacks something: {_one_line(repr(error))}") from error
        if not finite or not count or any(math.prod(shape) > MOST_NUMBERS for shape, _ in inputs.values()):
            raise _refusal(self.path, "its description has no observations, or too large ones, or no initial memory")
        for what, there, told in (
            ("inputs", self._session.get_inputs(), inputs),
            ("outputs", self._session.get_outputs(), outputs),
        ):
            found = {each.name: (tuple(each.shape), TYPES.get(each.type, each.type)) for each in there}
            if found != told:
                other = sorted(name for name in {*found, *told} if found.get(name) != told.get(name))
                raise _refusal(self.path, f"its {what} and its description differ in {_one_line(repr(other[:3]))}")


def _layout(part: dict[str, Any]) -> tuple[tuple[int, ...], str]:
    if not all(type(size) is int and size >= 0 for size in part["shape"]):
        raise TypeError("a shape")
    return tuple(part["shape"]), part["dtype"]


def _read_description(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _refusal(path, f"it cannot be read: {_one_line(error)}") from error
    if not isinstance(found, dict) or found.get("schema") != SCHEMA or found.get("version") != VERSION:
        raise _refusal(path, f"expected version {VERSION} of {SCHEMA}, which export_onnx writes")
    return found


def _refusal(path: Path, why: str) -> ValueError:
    return ValueError(f"{path}: {why}.")


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:300].rstrip(".")


class Report(NamedTuple):
    """
    :param seconds: that each action took ``[steps]``
    :param missed: deadlines
    """

    seconds: np.ndarray
    missed: int

    def __str__(self) -> str:
        half, most, worst = np.quantile(self.seconds, [0.5, 0.99, 1.0]) * 1e3
        return (
            f"{len(self.seconds)} actions, {self.missed} deadlines missed; ms an action: "
            f"50th percentile {half:.2f}, 99th {most:.2f}, worst {worst:.2f}"
        )


def run(
    policy: OnnxPolicy,
    observe: Callable[[], Observation],
    act: Callable[[np.ndarray], None],
    *,
    hz: float,
    steps: int,
) -> Report:
    """
    :param policy: acts
    :param observe: what is seen now
    :param act: carries an action out
    :param hz: actions a second
    :param steps: number of actions
    :return: how long they took
    """
    policy.reset()
    seconds, missed, due = np.zeros(steps), 0, time.perf_counter()
    for step in range(steps):
        begun = time.perf_counter()
        act(policy.predict(observe()))
        ended = time.perf_counter()
        seconds[step] = ended - begun
        due += 1.0 / hz
        if ended > due:
            missed, due = missed + 1, ended  # what was missed is not made up for in a rush
        else:
            time.sleep(due - ended)
    return Report(seconds, missed)


def random_observations(policy: OnnxPolicy) -> Callable[[], Observation]:
    """:return: observations of the right shapes that mean nothing"""
    rng = np.random.default_rng(0)

    def observe() -> Observation:
        return {
            each["input"]: (rng.standard_normal(each["shape"]) if each["dtype"].startswith("float") else
                            np.zeros(each["shape"])).astype(each["dtype"])
            for each in policy.description["observations"]
        }  # fmt: skip

    return observe


def main(arguments: list[str]) -> int:
    """:return: exit code"""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policy", type=Path, help="file of export_onnx")
    parser.add_argument("--hz", type=float, help="actions a second, default: what the policy was trained at, else 50")
    parser.add_argument("--seconds", type=float, default=10.0)
    values = parser.parse_args(arguments)
    try:
        policy = OnnxPolicy(values.policy)
    except ValueError as error:
        print(f"deploy: {error}", file=sys.stderr)
        return 2
    hz = values.hz or policy.description.get("control_hz") or 50.0
    actions: list[np.ndarray] = []
    report = run(policy, random_observations(policy), actions.append, hz=hz, steps=max(1, round(values.seconds * hz)))
    print(report)
    return 1 if report.missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
