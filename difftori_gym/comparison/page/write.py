"""Writes the page."""

from __future__ import annotations

import functools
import json
import logging
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timezone
from html import escape
from importlib import resources
from pathlib import Path
from urllib.parse import quote

from difftori_gym.comparison.files import write_text
from difftori_gym.comparison.page import numbers, tables
from difftori_gym.comparison.page.records import STATES, RunRecord, read_records
from difftori_gym.comparison.results import Row, group_rows

_logger = logging.getLogger(__name__)


def write_page(
    out: Path,
    rows: Sequence[Row],
    *,
    running: Collection[str] = (),
    waiting: Collection[str] = (),
    died: Mapping[str, str] | None = None,
    commands: Sequence[str] = (),
    published: bool = True,
    reload_s: float = 30.0,
) -> Path | None:
    """
    Write ``out/report.html``, one file that needs nothing but the films in ``out/videos``.

    :param out: folder of the results
    :param rows: all evaluations
    :param running: names of the runs that are being worked on
    :param waiting: names of the runs that are still to be started
    :param died: tracebacks of runs that died, by name; those in ``out/runs`` are found without
    :param commands: command lines that made the results
    :param published: whether to quote what others published
    :param reload_s: an open page reloads after that many seconds while runs go on
    :return: the page; None, told once in the log, if plotly is not installed
    """
    plotly = _plotly()
    if plotly is None:
        return None
    records = read_records(out, running, waiting, died or {})
    grouped = group_rows(rows)
    unfinished = {record.key for record in records if record.key and record.state != "done"}
    fullest = sorted(grouped.values(), key=len, reverse=True)  # a task that lacks methods does not change their order
    labels = {row.entry: row.label for entries in fullest for row in numbers.rows_of(entries)}
    overall = numbers.overall(grouped, unfinished)
    now = datetime.now(timezone.utc)
    data = {
        "written": now.timestamp() * 1000,
        "live": bool(running or waiting),
        "reload": reload_s * 1000,
        "labels": labels,
        "panels": numbers.panels(grouped, published=published),
        "overall": overall,
        "differences": numbers.differences(grouped, labels),
        "films": _films(records, list(labels)),
    }
    newest = {(row.group, row.entry, row.seed): row for each in grouped.values() for row in numbers.rows_of(each)}
    plan_ms = {record.key: record.plan_ms for record in records if record.key and record.plan_ms is not None}
    states = Counter(record.state for record in records)
    runs = [f"{len(records)} runs", *(f"{states[state]} {state}" for state in STATES if states[state])]
    templates = resources.files(__package__).joinpath("templates")
    page, css, js = (templates.joinpath(f"page.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js"))
    parts = {
        "css": css,
        "js": js,
        "plotly": plotly,
        "data": json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
        "written": now.strftime("%Y-%m-%d %H:%M:%S UTC"),
        "counts": ", ".join((f"{len(labels)} methods", f"{len(grouped)} tasks", *runs)),
        "final": tables.final_tables(grouped, unfinished, plan_ms),
        "overall": tables.overall_tables(overall, labels),
        "runs": "".join(tables.run_text(each, newest.get(each.key) if each.key else None) for each in records),
        "commands": escape("\n".join(commands)),
    }
    path = out / "report.html"
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


def _films(records: Sequence[RunRecord], order: Sequence[str]) -> list[numbers.Json]:
    """Films by task and seed, which is what their starts depend on."""
    starts: dict[str, list[numbers.Json]] = {}
    for record in records:
        if record.film and record.key:
            group, entry, seed = record.key
            film = {"entry": entry, "address": quote(record.film)}
            starts.setdefault(f"{numbers.title(group)}, seed {seed}", []).append(film)
    for films in starts.values():
        films.sort(key=lambda film: order.index(film["entry"]))
    return [{"start": start, "films": starts[start]} for start in sorted(starts)]
