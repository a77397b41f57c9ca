"""Writes the page. What is not markup of ours is escaped."""

from __future__ import annotations

import functools
import json
import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from html import escape
from importlib import resources
from pathlib import Path
from urllib.parse import quote

from difftori_gym.comparison.files import write_text
from difftori_gym.comparison.page import numbers
from difftori_gym.comparison.records import STATES, Record, Results
from difftori_gym.comparison.report import interval, newest_scores
from difftori_gym.comparison.run_record import FILE
from difftori_gym.comparison.statistics import Estimate

_logger = logging.getLogger(__name__)


def write_page(results: Results, reload_s: float = 30.0) -> Path | None:
    """
    Write ``out/report.html``, one file that needs nothing but the films in ``out/videos``.

    :param reload_s: an open page reloads after that many seconds while runs go on
    :return: the page; None, told once in the log, if plotly is not installed
    """
    plotly = _plotly()
    if plotly is None:
        return None
    records, groups = results.records, results.groups
    unfinished = {record.key for record in records if record.key and record.state != "done"}
    fullest = sorted(groups.values(), key=len, reverse=True)  # a task that lacks methods does not change their order
    labels = {row.entry: row.label for entries in fullest for row in numbers.rows_of(entries)}
    overall = numbers.overall(groups, unfinished)
    now = datetime.now(timezone.utc)
    states = Counter(record.state for record in records)
    data = {
        "written": now.timestamp() * 1000,
        "live": bool(states["running"] or states["waiting"]),
        "reload": reload_s * 1000,
        "labels": labels,
        "panels": numbers.panels(groups, published=results.published),
        "overall": overall,
        "differences": numbers.differences(groups, labels),
        "films": _films(records, list(labels)),
    }
    counts = {"method": len(labels), "task": len(groups), "run": len(records)}
    told = [f"{number} {name}{'' if number == 1 else 's'}" for name, number in counts.items()]
    told += [f"{states[state]} {state}" for state in STATES if states[state]]
    templates = resources.files(__package__).joinpath("templates")
    page, css, js = (templates.joinpath(f"page.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js"))
    parts = {
        "css": css,
        "js": js,
        "plotly": plotly,
        "data": json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
        "written": now.strftime("%Y-%m-%d %H:%M:%S UTC"),
        "counts": ", ".join(told),
        "final": "".join(
            f'<div data-task="{escape(group.title)}">'
            f"{_table(group.title, newest_scores(results, group, ('seeds done', 'score per processor s')))}</div>"
            for group in groups
        ),
        "overall": _overall_tables(overall, labels),
        "runs": "".join(_run(results, record) for record in records),
        "commands": escape("\n".join(results.commands)),
    }
    path = results.out / "report.html"
    # In one pass: what is filled in is not looked at again.
    write_text(path, re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], page))
    return path


@functools.cache
def _plotly() -> str | None:
    """The script of plotly, of which its package has the full bundle only; None if it is not installed."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        _logger.warning("No report.html, which needs plotly: pip install 'difftori-gym[compare]'")
        return None
    return str(get_plotlyjs())


def _films(records: Sequence[Record], order: Sequence[str]) -> list[numbers.Json]:
    """Films by task and seed, which is what their starts depend on."""
    starts: dict[str, list[numbers.Json]] = {}
    for record in records:
        if record.film and record.key:
            group, entry, seed = record.key
            starts.setdefault(f"{group.title}, seed {seed}", []).append({"entry": entry, "address": quote(record.film)})
    for films in starts.values():
        films.sort(key=lambda film: order.index(film["entry"]))
    return [{"start": start, "films": starts[start]} for start in sorted(starts)]


def _table(caption: str, lines: Mapping[str, Mapping[str, str]]) -> str:
    """:param lines: cells by column, by the entry that they are about"""
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in next(iter(lines.values())))
    body = ""
    for entry, cells in lines.items():
        first, *others = map(escape, cells.values())
        cells_text = "".join(f"<td>{cell}</td>" for cell in others)
        body += f'<tr data-entry="{escape(entry)}"><th scope="row">{first}</th>{cells_text}</tr>\n'
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table><caption>'
        f"{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>\n"
    )


def _overall_tables(overall: Sequence[numbers.Json], labels: Mapping[str, str]) -> str:
    text = ""
    for each in overall:
        lines = {
            entry: {
                "method": labels[entry],
                "tasks": str(len(each["tasks"])),
                "runs": str(method["runs"]),
                "interquartile mean": interval(Estimate(*method["iqm"]), form=".3f"),
                "score per processor hour": "-" if method["per_hour"] is None else f"{method['per_hour']:.3g}",
            }
            for entry, method in each["methods"].items()
        }
        text += _table(f"Aggregate scores, {each['kind']}", lines)
    return text


def _run(results: Results, record: Record) -> str:
    """What is to be known about a run."""
    written, progress, sessions = (record.read(results.out, file) for file in (FILE, "progress.json", "sessions.json"))
    told = []
    if progress and record.run and record.state != "done":
        stage = f"{progress['stage']} at {progress['done']:,}"
        told.append(f"{stage} of {record.run.amount:,} {record.run.unit}")
    if record.rows and record.run:
        row = record.rows[-1]
        told.append(f"{numbers.score_name([row])} {row.score:.1f} at {row.amount:,} {record.run.unit}")
    text = _block("Traceback", record.traceback)
    if record.film:
        text += f'<p><a href="{escape(quote(record.film))}">film of its final policy</a></p>'
    elif record.finished and record.finished.film_error:
        text += f"<p>No film: {escape(record.finished.film_error)}</p>"
    text += _block("The command that repeats it", written.get("command", ""))
    for session in sessions.get("sessions", ()):
        versions = ", ".join(f"{name} {version}" for name, version in session["versions"].items())
        place = f"{session['started']} on {session['machine']}, commit {session['commit']}: {versions}"
        text += f"<p>{escape(place)}</p>"
    settings = json.dumps(written["settings"], indent=1) if written else ""
    return (
        f'<details id="run-{escape(record.name)}" data-state="{record.state}"><summary>{escape(record.name)} '
        f'<span class="state">{record.state}</span> {escape("; ".join(told))}</summary>{text}'
        f"{_block('Settings', settings)}</details>\n"
    )


def _block(heading: str, text: str) -> str:
    return f'<h4>{heading}</h4><pre tabindex="0">{escape(text.strip())}</pre>' if text.strip() else ""
