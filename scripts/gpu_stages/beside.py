"""Stage f: runs of scripts/evidence.py on the processor's cores, beside what the GPU does."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gpu_stages.stage import ROOT

GRACE_S = 250.0
"""Seconds that cells get to end an evaluation and to write their checkpoints."""

SMOKE_PLAN = """
[[study]]
name = "smoke"
question = "Does a queue run beside the other stages?"
commit = "{commit}"
tasks = ["gymnasium/Pendulum-v1"]
methods = ["ppo"]
seeds = [0]
frames = 200
eval_episodes = 1
settings.ppo = {{ n_steps = 100, batch_size = 50, n_epochs = 1, policy_kwargs = {{ net_arch = [8] }} }}
"""


@dataclass
class Evidence:
    """
    The queue of a plan, in a process of its own.

    :param plan: ``plan.toml``, whose folder may hold tables of its studies
    :param work: where cells and trees lie; a later call goes on there
    :param out: folder that plan, tables and log are copied to
    :param jobs: cells side by side
    :param studies: only these; all if empty
    :param import_from: an export of ``evidence.py run --export``, with trees for a copy without git
    """

    plan: Path
    work: Path
    out: Path
    jobs: int
    studies: Sequence[str] = ()
    import_from: Path | None = None

    def __post_init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def tables(self) -> Path:
        """Folder of the plan that is run and of its tables."""
        return self.work / "tables"

    def start(self) -> None:
        """Start the queue; cells see no GPU, one thread each."""
        self.tables.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.plan, self.tables / "plan.toml")
        for table in self.plan.parent.glob("*.csv"):
            if not (self.tables / table.name).exists():
                shutil.copyfile(table, self.tables / table.name)
        command = [sys.executable, str(ROOT / "scripts" / "evidence.py"), "--plan", str(self.tables / "plan.toml")]
        command += ["--work", str(self.work / "queue"), "run", "--jobs", str(self.jobs)]
        command += ["--study", *self.studies] if self.studies else []
        command += ["--import", str(self.import_from)] if self.import_from is not None else []
        variables = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"}
        with (self.work / "log.txt").open("a", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                command, cwd=ROOT, env=variables, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def wait(self, seconds: float) -> None:
        """Until nothing is open or the time is over."""
        assert self._process is not None
        try:
            self._process.wait(timeout=max(seconds, 0.0))
        except subprocess.TimeoutExpired:
            return

    def stop(self) -> str:
        """
        Let cells write their checkpoints, and copy what there is.

        :return: one line that says what came of it
        """
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(timeout=GRACE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self.copy()
        lines = (self.work / "log.txt").read_text(encoding="utf-8", errors="replace").splitlines()
        done = sum(": done, " in line for line in lines)
        last = lines[-1] if lines else "nothing was said"
        return f"evidence: {done} cells done so far, exit code {self._process.returncode}; {last}"

    def copy(self) -> None:
        """Copy tables and log to the output folder."""
        target = self.out / "evidence"
        target.mkdir(parents=True, exist_ok=True)
        for path in (*self.tables.glob("*.csv"), self.tables / "plan.toml", self.work / "log.txt"):
            if path.exists():
                shutil.copyfile(path, target / path.name)


def smoke_plan(folder: Path) -> Path | None:
    """:return: a plan of one tiny cell at the commit of this checkout, None without a git repository"""
    try:
        answer = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True)
    except OSError:
        return None
    if answer.returncode != 0:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.toml").write_text(SMOKE_PLAN.format(commit=answer.stdout.strip()[:12]), encoding="utf-8")
    return folder / "plan.toml"
