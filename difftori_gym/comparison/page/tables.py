"""The parts of the page that are there without its script. What is not markup of ours is escaped."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import quote

from difftori_gym.comparison.page.numbers import Grouped, Json, estimate, rows_of, score_name, title
from difftori_gym.comparison.page.records import Key, RunRecord
from difftori_gym.comparison.results import Row
from difftori_gym.comparison.statistics import bootstrap


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


def final_tables(grouped: Grouped, unfinished: Collection[Key], plan_ms: Mapping[Key, float]) -> str:
    """The newest evaluations, a table per task; ``plan_ms`` is of runs whose rows do not tell it."""
    text = ""
    for group, entries in grouped.items():
        rows = rows_of(entries)
        score, told = score_name(rows), any(row.success is not None for row in rows)
        lines = {}
        for entry, seeds in entries.items():
            last = [run[-1] for run in seeds.values()]
            amounts = [row.amount for row in last]
            lines[entry] = {
                "method": last[0].label,
                "seeds done": f"{sum((group, entry, seed) not in unfinished for seed in seeds)} of {len(seeds)}",
                rows[0].unit: " to ".join(f"{amount:,}" for amount in dict.fromkeys((min(amounts), max(amounts)))),
                score: interval(estimate(bootstrap([row.score for row in last]))),
                **({"success": _mean([row.success for row in last], ".2f")} if told and score == "return" else {}),
                "wall-clock s": _mean([row.wall_s for row in last], ",.0f"),
                "processor s": _mean([row.cpu_s for row in last], ",.0f"),
                f"{score} per processor s": _mean([row.score / row.cpu_s for row in last if row.cpu_s], ".3g"),
                "plan ms": _mean([row.plan_ms or plan_ms.get((group, entry, row.seed)) for row in last], ".2f"),
            }
        text += f'<div data-task="{escape(title(group))}">{_table(title(group), lines)}</div>'
    return text


def overall_tables(aggregates: Sequence[Json], labels: Mapping[str, str]) -> str:
    """Aggregate scores."""
    text = ""
    for each in aggregates:
        lines = {
            entry: {
                "method": labels[entry],
                "tasks": str(len(each["tasks"])),
                "runs": str(method["runs"]),
                "interquartile mean": interval(method["iqm"], ".3f"),
                "score per processor hour": _mean([method["per_hour"]], ".3g"),
            }
            for entry, method in each["methods"].items()
        }
        text += _table(f"Aggregate scores, {each['kind']}", lines)
    return text


def run_text(record: RunRecord, row: Row | None) -> str:
    """What is to be known about a run; ``row`` is its newest evaluation."""
    scored = f"{score_name([row])} {row.score:.1f} at {row.amount:,} {row.unit}" if row else ""
    told = "; ".join(filter(None, ("" if record.state == "done" else record.progress, scored)))
    text = _block("Traceback", record.traceback)
    if record.film:
        text += f'<p><a href="{escape(quote(record.film))}">film of its final policy</a></p>'
    elif record.film_error:
        text += f"<p>No film: {escape(record.film_error)}</p>"
    text += _block("The command that repeats it", record.command)
    for session in record.sessions:
        versions = ", ".join(f"{name} {version}" for name, version in session["versions"].items())
        place = f"{session['started']} on {session['machine']}, commit {session['commit']}: {versions}"
        text += f"<p>{escape(place)}</p>"
    return (
        f'<details id="run-{escape(record.name)}" data-state="{record.state}"><summary>{escape(record.name)} '
        f'<span class="state">{record.state}</span> {escape(told)}</summary>{text}'
        f"{_block('Settings', record.settings)}</details>\n"
    )


def _block(heading: str, text: str) -> str:
    return f'<h4>{heading}</h4><pre tabindex="0">{escape(text.strip())}</pre>' if text.strip() else ""


def interval(value: Sequence[float | None], form: str = ".1f") -> str:
    """A statistic and the ends of its interval as text."""
    middle, low, high = ("-" if each is None else format(each, form) for each in value)
    return middle if low == "-" else f"{middle} [{low}, {high}]"


def _mean(values: Sequence[Any], form: str) -> str:
    known = [value for value in values if value is not None]
    return format(sum(known) / len(known), form) if known else "-"
