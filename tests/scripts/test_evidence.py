"""The queue of evidence: real cells in real processes, killed, shared, died; and plans that are refused."""

import csv
import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("fcntl", reason="locks of files")
import evidence
from matplotlib.figure import Figure
from studies import drawing
from studies.plan import read_plan
from studies.queue import Places, Queue
from studies.rows import COLUMNS, Row, _made, add_rows, read_rows

ROOT = Path(__file__).resolve().parents[2]
CONTRACT = "suite,task,obs,method,seed,frames,agent_steps,episode_return,success,wall_s,cpu_s,commit,settings"
TIMES = ("wall_s", "cpu_s")

TINY = """
[[study]]
name = "tiny"
question = "Does the queue lose or double a cell?"
commit = "{commit}"
tasks = ["gymnasium/Pendulum-v1"]
methods = ["sac", "ppo"]
seeds = [0, 1]
frames = {frames}
eval_episodes = 1
settings.sac = {sac}
settings.ppo = {{ n_steps = 100, batch_size = 50, n_epochs = 1, policy_kwargs = {{ net_arch = [8] }} }}
"""
SAC = "{ learning_starts = 50, batch_size = 16, policy_kwargs = { net_arch = [8] } }"


def git(*arguments):
    answer = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True)
    if answer.returncode != 0:
        pytest.skip("no git repository")
    return answer.stdout.strip()


@functools.cache
def head():
    """The same for all tests, whatever is committed meanwhile."""
    return git("rev-parse", "HEAD")


def write_plan(folder, text=TINY, **values):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "plan.toml"
    path.write_text(text.format(**{"commit": head()[:12], "frames": 600, "sac": SAC} | values))
    return path


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Starts a queue: today's program, in a clone, so that no tree is registered in the repository itself."""
    clone = tmp_path_factory.mktemp("evidence") / "clone"
    git("clone", "--quiet", "--shared", "--no-checkout", ".", str(clone))
    shutil.copytree(ROOT / "scripts", clone / "scripts", ignore=shutil.ignore_patterns("__pycache__"))

    def start(plan, work, *arguments):
        work.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, clone / "scripts" / "evidence.py", "--plan", plan, "--work", work, "run"]
        with (work / "queue.txt").open("a") as log:  # what keeps a queue from going on is in it
            return subprocess.Popen([*command, "--min-free-gb", "0.1", *arguments], stdout=log, stderr=log)

    yield start
    assert str(tmp_path_factory.getbasetemp()) not in git("worktree", "list")


def table(path):
    with path.open(newline="") as file:
        return [{key: row[key] for key in row if key not in TIMES} for row in csv.DictReader(file)]


def wait_for(condition, seconds=240):
    deadline = time.time() + seconds
    while not condition():
        assert time.time() < deadline
        time.sleep(0.1)


@pytest.mark.slow
def test_a_queue_that_is_killed_twice_and_shared_has_the_rows_of_an_undisturbed_one(tmp_path, start):
    work = tmp_path / "work"
    calm = write_plan(tmp_path / "calm")
    quiet = start(calm, work / "calm", "--jobs", "2")
    # The trees are those of the calm queue.
    plan, mine = write_plan(tmp_path / "stormy"), work / "stormy"
    wait_for(lambda: list((work / "calm").glob("logs/tiny/*")))
    mine.mkdir(parents=True)
    (mine / "trees").symlink_to(work / "calm" / "trees")

    first = start(plan, mine)
    run = mine / "cells/tiny/sac-Pendulum-v1-seed0/runs/sac-Pendulum-v1-state-seed0"
    wait_for(lambda: list(run.glob("checkpoint-*/state.json")))
    first.send_signal(signal.SIGTERM)  # asked to end: a checkpoint, or the cell had just ended
    assert first.wait(timeout=240) == 0
    assert list(run.glob("checkpoint-*"))

    second = start(plan, mine)
    wait_for(lambda: len(list((mine / "logs/tiny").glob("*"))) > 1)
    second.kill()  # without warning: what it had started goes on
    second.wait()

    both = [start(plan, mine), start(plan, mine)]
    for process in both:
        process.wait(timeout=400)
    start(plan, mine).wait(timeout=240)  # rows of what was left alone are taken in
    assert quiet.wait(timeout=400) == 0

    rows = table(tmp_path / "stormy" / "tiny.csv")
    assert list(read_rows(tmp_path / "stormy" / "tiny.csv")[0].__dict__) == list(COLUMNS)
    assert ",".join(COLUMNS).startswith(CONTRACT)
    assert rows == table(tmp_path / "calm" / "tiny.csv")
    assert {(row["method"], row["seed"]) for row in rows} == {(m, s) for m in ("sac", "ppo") for s in "01"}
    keys = [(row["method"], row["seed"], row["frames"]) for row in rows]
    assert len(set(keys)) == len(keys)
    first_sac = [row["frames"] for row in rows if (row["method"], row["seed"]) == ("sac", "0")]
    assert first_sac == [str(frames) for frames in range(0, 601, 60)]
    assert {row["commit"] for row in rows} == {head()[:12]}
    assert '"learning_starts": 50' in rows[-1]["settings"]


@pytest.mark.slow
def test_a_cell_that_dies_is_named_and_the_others_go_on(tmp_path, start, capsys):
    bad = SAC.replace("batch_size = 16", "batch_size = -3")
    plan = write_plan(tmp_path / "data", frames=100, sac=bad)
    assert start(plan, tmp_path / "work", "--jobs", "2").wait(timeout=400) == 1
    assert {row["method"] for row in table(tmp_path / "data" / "tiny.csv")} == {"ppo"}
    assert evidence.main(["--plan", str(plan), "--work", str(tmp_path / "work"), "status"]) == 0
    said = capsys.readouterr().out
    assert "Pendulum-v1  x x  + +" in said
    assert "2 of 4 cells done" in said
    assert "died: tiny/sac-Pendulum-v1-seed0: " in said
    assert "negative dimensions are not allowed" in said
    # It is not tried again unless that is asked for.
    assert start(plan, tmp_path / "work").wait(timeout=100) == 0

    figures, page = tmp_path / "figures", tmp_path / "page.md"
    page.write_text("before\n<!-- study tiny -->\nold\n<!-- end of study -->\nafter\n")
    drawing = ["draw", "--figures", str(figures), "--page", str(page)]
    assert evidence.main(["--plan", str(plan), "--work", str(tmp_path / "work"), *drawing]) == 0
    assert (figures / "study_tiny.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    text = page.read_text()
    assert text.startswith("before\n<!-- study tiny -->\n| task | SAC | PPO |")
    assert "Empty, wholly or for some seeds: SAC (all tasks)." in text
    assert text.endswith("<!-- end of study -->\nafter\n")

    # Carried to another machine, which has neither the tables nor the trees.
    away = tmp_path / "away"
    assert start(plan, tmp_path / "work", "--hours", "0", "--export", str(away)).wait(timeout=100) == 0
    assert (away / "trees" / head()[:12] / "examples" / "compare.py").exists()
    assert list(away.glob("cells/tiny/sac-*/runs/*/run.json"))
    there = write_plan(tmp_path / "there", frames=100, sac=bad)
    assert start(there, tmp_path / "elsewhere", "--hours", "0", "--import", str(away)).wait(timeout=100) == 0
    assert table(tmp_path / "there" / "tiny.csv") == table(tmp_path / "data" / "tiny.csv")
    assert list((tmp_path / "elsewhere").glob("cells/tiny/sac-*/runs/*/run.json"))


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (  # of commits before there was one table
            dict(method="sac", frames="80", agent_steps="40", success="0.2500", dead_starts="1"),
            dict(method="sac", frames=80, agent_steps=40, success=0.25, dead_starts=1),
        ),
        (
            dict(method="difftori", base="bc", steps="40", episodes="8", successes="2", mean_return="-3.5"),
            dict(method="difftori+bc", frames=0, agent_steps=40, success=0.25, dead_starts=None),
        ),
        (
            dict(method="sac", base="", frames="80", steps="40", episodes="8", successes="", dead_starts="1"),
            dict(method="sac", frames=80, agent_steps=40, success=None, dead_starts=1),
        ),
        (
            dict(method="difftori", base="bc", frames="0", steps="40", episodes="8", successes="2", dead_starts=""),
            dict(method="difftori+bc", frames=0, agent_steps=40, success=0.25, dead_starts=None),
        ),
    ],
)
def test_tables_of_older_commits_are_read_too(record, expected):
    task = dict(suite="metaworld", task="reach", obs="state")
    score = {} if "mean_return" in record else {"episode_return": "-3.5"}
    made = _made({**task, "seed": "3", "wall_s": "1.5", "cpu_s": "1.25", **score, **record})
    assert made == {**task, "seed": 3, "wall_s": 1.5, "cpu_s": 1.25, "episode_return": -3.5, **expected}


def test_engines_reach_the_cells():
    def told(*words):
        return evidence.engine_arguments(evidence.parse_arguments(["run", *words]))

    assert told() == []
    assert told("--engine", "ray", "--cpus-per-run", "2") == ["--engine", "ray", "--cpus-per-run", "2.0"]
    assert told("--engine", "slurm", "--slurm", "partition=a", "time=5") == [
        *("--engine", "slurm"),
        *("--slurm", "partition=a", "time=5"),
    ]


def refused(capsys, plan, work, *arguments):
    assert evidence.main(["--plan", str(plan), "--work", str(work), *(arguments or ["status"])]) == 2
    said = capsys.readouterr().err
    assert said.startswith("evidence: ")
    assert said.count("\n") == 1
    return said


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"gymnasium/Pendulum-v1"', '"dm_control/walker-fly"', "'tiny'.*walker-fly"),
        ('"ppo"]', '"ppa"]', "'tiny': Unknown method 'ppa'"),
        ("eval_episodes", "episodes", "'tiny': unknown setting 'episodes'"),
        ("settings.sac", "settings.sax", "'tiny': settings name 'sax'"),
        ("seeds = [0, 1]", "seeds = [0, 0]", "'tiny': expected different tasks, methods and seeds"),
        ("frames = ", "steps = 5\nframes = ", "'tiny': expected frames .* or steps"),
        ('commit = "', 'commit = "main', "'tiny': commit needs 7 to 40 hexadecimal digits"),
        ("[[study]]", "[[study", "cannot be read"),
    ],
)
def test_a_plan_that_cannot_be_carried_out_is_one_line(tmp_path, capsys, old, new, message):
    plan = write_plan(tmp_path)
    plan.write_text(plan.read_text().replace(old, new, 1))
    assert re.search(message, refused(capsys, plan, tmp_path / "work"))


def test_a_commit_that_is_not_there_is_named_and_loses_nothing(tmp_path, capsys, caplog):
    plan = write_plan(tmp_path, commit="0123456789abcdef")
    assert evidence.main(["--plan", str(plan), "--work", str(tmp_path / "work"), "run", "--min-free-gb", "0"]) == 0
    assert "study tiny: there is no commit 0123456789abcdef" in caplog.text
    assert not (tmp_path / "work" / "died").exists()


def test_without_space_nothing_is_started(tmp_path, caplog):
    plan = write_plan(tmp_path)
    assert evidence.main(["--plan", str(plan), "--work", str(tmp_path / "work"), "run", "--min-free-gb", "1e9"]) == 0
    assert "make space" in caplog.text
    assert not (tmp_path / "work" / "trees").exists()


def test_a_plan_may_be_edited_while_cells_run(tmp_path, monkeypatch, caplog):
    started = []
    monkeypatch.setattr(Queue, "_start", lambda self, cell, lock: started.append(cell.name))
    path = write_plan(tmp_path)
    queue = Queue(lambda: read_plan(path), Places(ROOT, tmp_path, tmp_path / "work"))
    queue._start_next()
    assert len(started) == 4
    path.write_text("[[study]]\nname = ")
    queue._start_next()  # the plan before stays
    assert len(started) == 8
    assert caplog.text
    write_plan(tmp_path, TINY.replace("seeds = [0, 1]", "seeds = [7]"))
    queue._start_next()
    assert started[8:] == ["tiny/sac-Pendulum-v1-seed7", "tiny/ppo-Pendulum-v1-seed7"]


def a_row(**values):
    fields = dict(suite="gymnasium", task="Pendulum-v1", obs="state", method="sac", seed=0, frames=600, agent_steps=600)
    fields |= dict(episode_return=-900.5, success=None, wall_s=3.0, cpu_s=2.5, commit="0123456789ab", settings="")
    return Row(**{**fields, "dead_starts": 0, **values})


def test_rows_of_other_settings_or_lost_studies_are_refused(tmp_path, capsys):
    plan, lock = write_plan(tmp_path), tmp_path / "lock"
    (cell, *_) = read_plan(plan)[0].cells()
    sound = a_row(settings=cell.settings)
    for row, message in (
        (a_row(), "settings were the preset, now"),
        (a_row(settings=cell.settings, frames=300), "frames or steps were 300, now 600"),
        (a_row(settings=cell.settings, seed=7), "a run that the plan does not name any more"),
    ):
        (tmp_path / "tiny.csv").unlink(missing_ok=True)
        add_rows(tmp_path / "tiny.csv", [row], lock)
        assert message in refused(capsys, plan, tmp_path / "work")
    (tmp_path / "tiny.csv").rename(tmp_path / "old.csv")
    assert "old.csv holds rows of a study that the plan does not name" in refused(capsys, plan, tmp_path / "work")
    (tmp_path / "old.csv").unlink()
    add_rows(tmp_path / "tiny.csv", [sound], lock)
    # The code of another library did not change with our commit; our own learner's may have.
    assert evidence.main(["--plan", str(plan), "--work", str(tmp_path / "work"), "status"]) == 0
    plan.write_text(plan.read_text().replace('"sac"', '"difftori"').replace("settings.sac", "settings.difftori"))
    (tmp_path / "tiny.csv").unlink()
    add_rows(tmp_path / "tiny.csv", [a_row(settings=cell.settings, method="difftori")], lock)
    assert "made at commit 0123456789ab, now" in refused(capsys, plan, tmp_path / "work")


def test_a_panel_of_means_holds_every_method(tmp_path):
    (study,) = read_plan(write_plan(tmp_path))
    (task,) = study.tasks
    ends = {"sac": (1.0, 10.0), "ppo": (50.0, 900.0)}  # processor seconds and return
    runs = {
        (task, method): [[a_row(frames=0, cpu_s=0.0, episode_return=0.0), a_row(cpu_s=cpu_s, episode_return=last)]]
        for method, (cpu_s, last) in ends.items()
    }
    axis = Figure().subplots()
    for method in ends:
        drawing._draw_mean(axis, study, runs, [task], method, over_time=True)
    assert axis.get_xlim()[0] == axis.get_ylim()[0] == 0.0
    assert axis.get_xlim()[1] >= 50.0
    assert axis.get_ylim()[1] >= 900.0


def test_rows_are_sorted_replaced_and_survive_a_write_that_fails(tmp_path, monkeypatch):
    path, lock = tmp_path / "tiny.csv", tmp_path / "lock"
    add_rows(path, [a_row(seed=1), a_row(seed=1, frames=0)], lock)
    add_rows(path, [a_row(seed=0), a_row(seed=1, episode_return=5.0)], lock)
    assert [(row.seed, row.frames, row.episode_return) for row in read_rows(path)] == [(0, 600, -900.5), (1, 600, 5.0)]
    before = path.read_bytes()

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        add_rows(path, [a_row(seed=2)], lock)
    assert path.read_bytes() == before


def test_the_order_is_one_seed_of_everything_and_a_task_at_a_time_where_asked(tmp_path):
    text = TINY.replace('"gymnasium/Pendulum-v1"', '"dm_control/walker-run", "dm_control/cup-catch"')
    text = text.replace('methods = ["sac", "ppo"]', 'methods = [["sac", "ppo"], ["td3"]]')
    pytest.importorskip("dm_control")
    (study,) = read_plan(write_plan(tmp_path, text))
    names = [(cell.method, cell.task.task, cell.seed) for cell in study.cells()]
    assert names[:3] == [("sac", "walker-run", 0), ("sac", "cup-catch", 0), ("ppo", "walker-run", 0)]
    assert names[4:7] == [("td3", "walker-run", 0), ("td3", "cup-catch", 0), ("sac", "walker-run", 1)]
    (study,) = read_plan(write_plan(tmp_path, text.replace("seeds", "task_at_a_time = true\nseeds")))
    names = [(cell.method, cell.task.task) for cell in study.cells()]
    assert names[:4] == [("sac", "walker-run"), ("ppo", "walker-run"), ("sac", "cup-catch"), ("ppo", "cup-catch")]


def test_the_plan_of_the_repository_is_sound():
    plan = ROOT / "docs" / "data" / "plan.toml"
    pytest.importorskip("dm_control")
    for study in read_plan(plan):
        assert study.question.endswith("?")
    assert evidence.main(["--plan", str(plan), "--work", str(ROOT / "results" / "evidence"), "status"]) == 0


def test_imitation_shares_a_folder_and_names_its_base(tmp_path):
    text = TINY.replace('"gymnasium/Pendulum-v1"', '"metaworld/push"').replace(
        "frames =", 'demos = 10\nsize = "small"\nsteps ='
    )
    text = "\n".join(line for line in text.splitlines() if not line.startswith(("settings", "eval_episodes")))
    text = text.replace('methods = ["sac", "ppo"]', 'methods = ["bc", "difftori+bc"]')
    pytest.importorskip("metaworld")
    (study,) = read_plan(write_plan(tmp_path, text))
    bc, ours, _, _ = study.cells()
    assert bc.folder == ours.folder == "tiny/push-seed0"
    arguments = " ".join(ours.arguments(Path("out")))
    assert "--methods difftori --base bc --tasks metaworld/push --seeds 0" in arguments
    assert "--eval-episodes 50 --steps 600 --demos 10 --size small" in arguments
    assert Places(ROOT, tmp_path, tmp_path).lock(bc) == Places(ROOT, tmp_path, tmp_path).lock(ours)


def test_gains_over_a_base_are_means_over_the_tasks_of_both(tmp_path):
    text = TINY.replace('"gymnasium/Pendulum-v1"', '"metaworld/push", "metaworld/soccer", "metaworld/sweep"')
    text = text.replace('methods = ["sac", "ppo"]', 'methods = ["bc", "difftori+bc"]').replace("frames =", "steps =")
    text = "\n".join(line for line in text.splitlines() if not line.startswith(("settings", "eval_episodes")))
    pytest.importorskip("metaworld")
    (study,) = read_plan(write_plan(tmp_path, text))
    push, soccer, sweep = study.tasks
    ends = {(push, "bc"): [0.5, 0.7], (push, "difftori+bc"): [0.8], (soccer, "bc"): [0.4], (sweep, "bc"): [0.1]}
    ends[soccer, "difftori+bc"] = [0.3, 0.5]
    runs = {key: [[a_row(success=success)] for success in seeds] for key, seeds in ends.items()}
    told = "| DiffTORI (+BC) minus BC | 2 | 2 | +10.0 [+0.0, +20.0] | points of success |"
    assert drawing.gains(study, runs)[3:] == [told]
    assert drawing.gains(study, {}) == []
    assert drawing._empty_text(study, {key: [*runs[key], *runs[key]] for key in runs if key[0] != sweep}, 2) == (
        "Empty, wholly or for some seeds: all methods (sweep)."
    )
    assert "BC (sweep). DiffTORI (+BC) (push, sweep)." in drawing._empty_text(
        study, {**runs, (soccer, "bc"): [1, 2]}, 2
    )


def test_gains_without_the_policy_gradient_are_heights_of_curves_by_seed(tmp_path):
    text = TINY.replace('methods = ["sac", "ppo"]', 'methods = ["difftori", "difftori_nopg"]')
    text = "\n".join(line for line in text.splitlines() if not line.startswith("settings"))
    (study,) = read_plan(write_plan(tmp_path, text))
    (task,) = study.tasks

    def curve(seed, *returns):
        return [
            a_row(seed=seed, frames=100 * at, agent_steps=50 * at, episode_return=each)
            for at, each in enumerate(returns)
        ]

    runs = {
        (task, "difftori"): [curve(0, 0.0, 10.0, 10.0), curve(1, 0.0, 0.0, 0.0)],
        (task, "difftori_nopg"): [curve(1, 0.0, 0.0, 4.0), curve(0, 0.0, 20.0, 20.0), curve(2, 9.0, 9.0, 9.0)],
    }
    who = "DiffTORI, no policy gradient minus DiffTORI"
    assert drawing.gains(study, runs)[3:] == [f"| {who} | 1 | 2 | +4.2 [+1.0, +7.5] | return over all frames |"]
