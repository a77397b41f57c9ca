"""
What is measured when a GPU is at hand for half an hour: stages in order of worth, each with its tables.

    python scripts/gpu_evidence.py --out results/gpu           # all stages
    python scripts/gpu_evidence.py --stages a b f --minutes 4  # some of them, beside the queue of evidence
    python scripts/gpu_evidence.py --smoke                     # every stage at tiny sizes on a CPU

a: plans and updates with and without CUDA graphs; b: walker-walk with the paper's networks; c: 1024 environments
beside SAC and TD3; d: many seeds as batched products; e: from images; f: scripts/evidence.py on the processor's cores,
beside all others from the first second. Rows are on the disk as soon as they are measured, and those that are there are
not measured again. docs/gpu.md has what to bring. Exit code: 0 when every stage ran, 1 when one could not, 2 when the
request cannot be carried out.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from gpu_stages.tree import make_importable

ROOT = Path(__file__).resolve().parents[1]
STAGES = {"a": "planning", "b": "walking", "c": "batched", "d": "seeds", "e": "pixels"}
BESIDE = "f"
LATE_S = 60.0
"""Seconds that a stage may be late, before its process is ended."""


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """
    :param arguments: command line without the program
    :return: its values
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--stages", nargs="+", choices=[*STAGES, BESIDE], default=[*STAGES, BESIDE], help="default: all")
    add("--minutes", type=float, default=8.0, help="of each stage, default: 8")
    add("--device", default="cuda", help="cuda, cuda:1, or cpu with --smoke; default: cuda")
    out = os.environ.get("OUT") or str(ROOT / "results" / "gpu")
    add("--out", type=Path, default=Path(out), help="folder of the tables, default: $OUT, else results/gpu")
    add("--work", type=Path, default=ROOT / "results" / "gpu", help="where a later call goes on, default: results/gpu")
    add("--smoke", action="store_true", help="every stage at tiny sizes, on a CPU")
    add("--jobs", type=int, default=12, help="cells of f side by side, default: 12")
    add("--plan", type=Path, default=ROOT / "docs" / "data" / "plan.toml", help="of f")
    add("--study", nargs="+", default=[], metavar="NAME", help="of f: only these")
    add("--import", dest="import_from", type=Path, metavar="FOLDER", help="of f: what evidence.py --export wrote")
    add("--alone", choices=STAGES, help=argparse.SUPPRESS)  # one stage in this process
    values = parser.parse_args(arguments)
    if values.smoke and "--device" not in arguments:
        values.device = "cpu"
    return values


def run_stage(letter: str, values: argparse.Namespace) -> bool:
    """
    Run one stage in this process.

    :param letter: of the stage
    :param values: of the command line
    :return: whether it could run
    """
    import torch
    from gpu_stages.stage import CannotRunError, Stage
    from gpu_stages.tables import Budget

    if values.device == "cpu":
        torch.set_num_threads(1)
    device = torch.device(values.device)
    stage = Stage(device, values.smoke, Budget(60.0 * values.minutes), values.work, values.out)
    try:
        importlib.import_module(f"gpu_stages.{STAGES[letter]}").run(stage)
    except (ImportError, CannotRunError) as error:
        print(f"stage {letter} cannot run: {str(error).strip().splitlines()[0]}", flush=True)
        return False
    return True


def run_apart(letter: str, values: argparse.Namespace) -> bool:
    """
    Run one stage in a process of its own, which a fault of the device ends alone.

    :param letter: of the stage
    :param values: of the command line
    :return: whether it could run
    """
    command = [sys.executable, str(Path(__file__).resolve()), "--alone", letter, "--minutes", str(values.minutes)]
    command += ["--device", values.device, "--out", str(values.out), "--work", str(values.work)]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        code = process.wait(timeout=60.0 * values.minutes + LATE_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        print(f"stage {letter} was late and was ended; its rows so far are there", flush=True)
        return False
    except BaseException:
        os.killpg(process.pid, signal.SIGTERM)
        raise
    if code not in (0, 1):
        print(f"stage {letter} died with exit code {code}; its rows so far are there", flush=True)
    return code == 0


def refusal(values: argparse.Namespace) -> str | None:
    """:return: why the request cannot be carried out, None if it can"""
    try:
        import torch
    except ImportError:
        return "torch is not installed: bring torch with CUDA for this Python (docs/gpu.md)."
    if values.device.startswith("cuda") and not torch.cuda.is_available():
        return f"--device {values.device}: torch {torch.__version__} finds no CUDA device here. Use --smoke for a CPU."
    if values.device == "cpu" and not values.smoke:
        return "--device cpu needs --smoke: at full sizes a CPU takes days."
    return None


def evidence_of(values: argparse.Namespace):
    """:return: the queue that runs beside, None if it cannot, which is said"""
    from gpu_stages.beside import Evidence, smoke_plan

    plan, work = values.plan, values.work / "evidence"
    if values.smoke:
        plan = smoke_plan(work / "plan")
        if plan is None:
            print("stage f cannot run: there is no git repository here", flush=True)
            return None
    jobs = 1 if values.smoke else values.jobs
    return Evidence(plan, work, values.out, jobs, values.study, values.import_from)


def main(arguments: list[str]) -> int:
    """
    :param arguments: command line without the program
    :return: exit code
    """
    values = parse_arguments(arguments)
    make_importable(ROOT)
    if values.alone:
        return 0 if run_stage(values.alone, values) else 1
    said = refusal(values)
    if said is not None:
        print(f"gpu_evidence: {said}", file=sys.stderr)
        return 2
    from gpu_stages import needs

    print(needs.versions(), flush=True)
    for line in needs.told("".join(values.stages)):
        print(line, flush=True)
    values.out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    evidence = evidence_of(values) if BESIDE in values.stages else None
    if evidence is not None:
        evidence.start()
    well = evidence is not None or BESIDE not in values.stages
    run: Callable[[str, argparse.Namespace], bool] = run_stage if values.smoke else run_apart
    try:
        others = [letter for letter in STAGES if letter in values.stages]
        for letter in others:
            print(f"== stage {letter}, {time.monotonic() - began:.0f} s after the start", flush=True)
            well = run(letter, values) and well
            if evidence is not None:
                evidence.copy()
        if evidence is not None and (values.smoke or not others):
            evidence.wait(60.0 * values.minutes)
    finally:
        if evidence is not None:
            print(evidence.stop(), flush=True)
    print(f"== {time.monotonic() - began:.0f} s, tables in {values.out}", flush=True)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
