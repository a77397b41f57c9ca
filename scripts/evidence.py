"""
Results that are made while other work goes on: the runs of docs/data/plan.toml, one after the other.

    python scripts/evidence.py run &            # until nothing is open; SIGTERM: checkpoints, then the end
    python scripts/evidence.py status           # what is done, running, died, open
    python scripts/evidence.py draw             # figures and tables of the studies

A study is a question, with tasks, methods, seeds and the commit that its runs are made at; a cell is one run of it,
made by examples/compare.py of that commit. Rows of finished cells stand in docs/data/STUDY.csv; commit them. Exit
code: 0 when all went well, 1 when a cell died, 2 when the request cannot be carried out.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from studies.plan import Cell, Study, read_plan
from studies.queue import Places, Queue, is_held
from studies.rows import check_rows, finished, made_rows

from difftori_gym.comparison.engines import add_engine_arguments

ROOT = Path(__file__).resolve().parents[1]


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """
    :param arguments: command line without the program
    :return: its values
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", type=Path, default=ROOT / "docs" / "data" / "plan.toml", help="the studies")
    parser.add_argument("--work", type=Path, default=ROOT / "results" / "evidence", help="folder of cells and trees")
    verbs = parser.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run", help="do what is open")
    run.add_argument("--jobs", type=int, default=1, help="cells side by side, one thread each, default: 1")
    when = run.add_mutually_exclusive_group()
    when.add_argument("--until", type=_time_of_day, metavar="HH:MM", help="end at this time of day")
    when.add_argument("--hours", type=float, help="end after so many hours; 0: only export and import")
    run.add_argument("--retry", action="store_true", help="take cells that died, too")
    run.add_argument("--min-free-gb", type=float, default=2.0, help="start nothing with less space, default: 2")
    run.add_argument("--import", dest="import_from", type=Path, metavar="FOLDER", help="first take over an export")
    run.add_argument("--export", dest="export_to", type=Path, metavar="FOLDER", help="in the end write one")
    add_engine_arguments(run)
    status = verbs.add_parser("status", help="what is done, running, died, open")
    drawing = verbs.add_parser("draw", help="figures into docs/figures, tables into docs/results.md")
    for verb in (run, status, drawing):
        verb.add_argument("--study", nargs="+", metavar="NAME", help="only these")
    drawing.add_argument("--figures", type=Path, default=ROOT / "docs" / "figures", help="folder of the figures")
    drawing.add_argument("--page", type=Path, default=ROOT / "docs" / "results.md", help="page with the tables")
    return parser.parse_args(arguments)


def _time_of_day(text: str) -> float:
    """:return: the next such moment, as ``time.time``"""
    try:
        clock = datetime.strptime(text, "%H:%M").time()
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected a time such as 17:30, got {text!r}") from error
    moment = datetime.combine(datetime.now().date(), clock)
    return (moment if moment > datetime.now() else moment + timedelta(days=1)).timestamp()


def run(values: argparse.Namespace, studies: Sequence[Study], places: Places) -> int:
    """
    :param values: of the command line
    :param studies: to work on
    :param places: where everything lies
    :return: exit code
    """
    from studies.carrying import export_to, import_from

    places.work.mkdir(parents=True, exist_ok=True)
    if values.import_from is not None:
        import_from(values.import_from, studies, places)
    for cell in (cell for study in studies for cell in study.cells() if values.retry):
        places.died(cell).unlink(missing_ok=True)
    limits = dict(jobs=values.jobs, min_free_gb=values.min_free_gb)
    queue = Queue(lambda: read_studies(values), places, **limits, arguments=engine_arguments(values))
    until = values.until if values.hours is None else time.time() + 3600 * values.hours
    kinds = signal.SIGTERM, signal.SIGINT
    before = [signal.signal(kind, lambda number, frame: queue.end()) for kind in kinds]
    try:
        went_well = queue.run(until)
    finally:
        for kind, handler in zip(kinds, before, strict=True):
            signal.signal(kind, handler)
    if values.export_to is not None:
        export_to(values.export_to, studies, places)
    return 0 if went_well else 1


def engine_arguments(values: argparse.Namespace) -> list[str]:
    """:return: for compare.py, beyond the cell; nothing for the default, which alone older commits know"""
    words = []
    for name in ("engine", "address", "cpus_per_run", "gpus_per_run", "storage"):
        if (value := getattr(values, name)) not in (None, "local"):
            words += [f"--{name.replace('_', '-')}", str(value)]
    return words + (["--slurm", *values.slurm] if values.slurm else [])


def print_status(studies: Sequence[Study], places: Places) -> None:
    """
    A grid a study: ``+`` done, a number: per cent of a running cell, ``x`` died, ``:`` begun, ``.`` open.

    :param studies: to show
    :param places: where everything lies
    """
    for study in studies:
        cells = study.cells()
        done = finished(cells, places.data)
        marks = {(cell.task, cell.method, cell.seed): _mark(cell, cell.name in done, places) for cell in cells}
        methods = [method for group in study.methods for method in group]
        width = max(len(task.task) for task in study.tasks)
        print(f"{study.name}: {study.question}")
        print(f"  {'':{width}}  {'  '.join(methods)}")
        for task in study.tasks:
            texts = [" ".join(marks[task, method, seed] for seed in study.seeds) for method in methods]
            words = [f"{text:<{len(method)}}" for text, method in zip(texts, methods, strict=True)]
            print(f"  {task.task:{width}}  {'  '.join(words)}".rstrip())
        print(f"  {len(done)} of {len(cells)} cells done, {_hours_text(cells, done)}")
        for cell in cells:
            if places.died(cell).exists():
                print(f"  died: {cell.name}: {places.died(cell).read_text(encoding='utf-8').strip()}")
        print()


def _mark(cell: Cell, done: bool, places: Places) -> str:
    if done:
        return "+"
    if places.died(cell).exists():
        return "x"
    rows = made_rows(cell, places.out(cell), "")
    if not is_held(places.lock(cell)):
        return ":" if rows else "."
    begun = rows or cell.study.frames is not None
    return f"{100 * rows[-1].amount // cell.study.amount if rows else 0}%" if begun else "."


def _hours_text(cells: Sequence[Cell], done: dict[str, list]) -> str:
    """:return: hours of training so far, and those that are left at the mean of each method, else of all"""
    spent: dict[str, list[float]] = {}
    for cell in cells:
        if cell.name in done:
            spent.setdefault(cell.method, []).append(done[cell.name][-1].wall_s / 3600)
    every = [hours for each in spent.values() for hours in each]
    if not every:
        return "no rate is known yet"
    left = 0.0
    for cell in cells:
        if cell.name not in done:
            rate = spent.get(cell.method, every)
            left += sum(rate) / len(rate)
    return f"{sum(every):.1f} hours of training, about {left:.1f} hours left on one core"


def read_studies(values: argparse.Namespace) -> list[Study]:
    """
    :param values: of the command line
    :return: the studies that are asked for
    :raises ValueError: if the plan is none, or has no such study, or has rows of other settings
    """
    studies = read_plan(values.plan)
    check_rows(studies, values.plan.parent)
    names = [study.name for study in studies]
    for name in values.study or ():
        if name not in names:
            raise ValueError(f"--study: there is no {name!r}. Studies: {', '.join(names)}.")
    return [study for study in studies if not values.study or study.name in values.study]


def draw_all(values: argparse.Namespace, studies: Sequence[Study], places: Places) -> None:
    """
    :param values: of the command line
    :param studies: to draw
    :param places: where everything lies
    """
    from studies.drawing import draw, put_into, runs_of, table

    for study in studies:
        if not runs_of(study, places.data):
            print(f"{study.name}: no run has finished yet")
            continue
        figure = values.figures / f"study_{study.name}.png"
        draw(study, places.data, figure)
        text = table(study, places.data)
        placed = values.page.exists() and put_into(values.page, study, text)
        print(f"{figure}\n{text}\n" + (f"put into {values.page}" if placed else ""))


def main(arguments: list[str]) -> int:
    """
    :param arguments: command line without the program
    :return: exit code
    """
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("evidence").setLevel(logging.INFO)
    values = parse_arguments(arguments)
    try:
        studies = read_studies(values)
        places = Places(ROOT, values.plan.parent, values.work)
        if values.verb == "run":
            return run(values, studies, places)
        if values.verb == "status":
            print_status(studies, places)
        else:
            draw_all(values, studies, places)
    except (ValueError, OSError) as error:
        print(f"evidence: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
