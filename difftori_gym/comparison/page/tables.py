"""The parts of the page that are there without its script. Everything that is not markup of ours is escaped."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from html import escape
from typing import Any

from difftori_gym.comparison.page.numbers import Grouped, Json, estimate, rows_of, score_name, title
from difftori_gym.comparison.page.records import Key, RunRecord
from difftori_gym.comparison.results import Row
from difftori_gym.comparison.statistics import bootstrap


def table(caption: str, header: Sequence[str], lines: Sequence[tuple[str, Sequence[str]]]) -> str:
    """
    :param caption: what it shows
    :param header: names of the columns
    :param lines: the entry that a line is about, and its cells
    :return: HTML
    """
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    body = "".join(
        f'<tr data-entry="{escape(entry)}"><th scope="row">{escape(cells[0])}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in cells[1:])
        + "</tr>\n"
        for entry, cells in lines
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table><caption>'
        f"{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>\n"
    )


def final_tables(grouped: Grouped, unfinished: Collection[Key], plan_ms: dict[Key, float]) -> str:
    """
    :param grouped: runs by group, entry and seed
    :param unfinished: those of them that are not done
    :param plan_ms: milliseconds per plan of runs whose rows have none
    :return: HTML, a table per task
    """
    tables = []
    for group, entries in grouped.items():
        score = score_name(rows_of(entries))
        succeeds = score == "return" and any(row.success is not None for row in rows_of(entries))
        lines = []
        for entry, seeds in entries.items():
            last = [run[-1] for run in seeds.values()]
            done = sum((group, entry, row.seed) not in unfinished for row in last)
            plans = [row.plan_ms or plan_ms.get((group, entry, row.seed)) for row in last]
            amounts = sorted({row.amount for row in last})
            cells = [
                last[0].label,
                f"{done} of {len(last)}",
                " to ".join(f"{amount:,}" for amount in dict.fromkeys((amounts[0], amounts[-1]))),
                interval(estimate(bootstrap([row.score for row in last]))),
                *([_mean([row.success for row in last], ".2f")] if succeeds else []),
                _mean([row.wall_s for row in last], ",.0f"),
                _mean([row.cpu_s for row in last], ",.0f"),
                _mean([row.score / row.cpu_s for row in last if row.cpu_s > 0], ".3g"),
                _mean(plans, ".2f"),
            ]
            lines.append((entry, cells))
        unit = next(iter(rows_of(entries))).unit
        success = ["success"] if succeeds else []
        header = [
            "method",
            "seeds done",
            unit,
            score,
            *success,
            "wall-clock s",
            "processor s",
            f"{score} per processor s",
        ]
        tables.append(
            f'<div data-task="{escape(title(group))}">{table(title(group), [*header, "plan ms"], lines)}</div>'
        )
    return "".join(tables)


def overall_tables(aggregates: Sequence[Json], labels: dict[str, str]) -> str:
    """
    :param aggregates: see :func:`difftori_gym.comparison.page.numbers.overall`
    :param labels: of entries
    :return: HTML
    """
    header = ("method", "tasks", "runs", "interquartile mean", "score per processor hour")
    return "".join(
        table(
            f"Aggregate scores, {each['kind']}",
            header,
            [
                (
                    entry,
                    [
                        labels[entry],
                        str(len(each["tasks"])),
                        str(method["runs"]),
                        interval(method["iqm"], ".3f"),
                        f"{method['per_hour']:.3g}",
                    ],
                )
                for entry, method in each["methods"].items()
            ],
        )
        for each in aggregates
    )


def run_list(records: Sequence[RunRecord], newest: dict[Key, Row]) -> str:
    """
    :param records: all runs
    :param newest: their newest evaluations
    :return: HTML, what is to be known about each run
    """
    return "".join(_run(record, newest.get(record.key) if record.key else None) for record in records)


def _run(record: RunRecord, row: Row | None) -> str:
    scored = f"{score_name([row])} {row.score:.1f} at {row.amount:,} {row.unit}" if row else ""
    told = "; ".join(filter(None, (record.progress if record.state != "done" else "", scored)))
    parts = [_block("Traceback", record.traceback)]
    if record.film:
        parts.append(f'<p><a href="{escape(film_address(record))}">film of its final policy</a></p>')
    elif record.film_error:
        parts.append(f"<p>No film: {escape(record.film_error)}</p>")
    parts.append(_block("The command that repeats it", record.command))
    for session in record.sessions:
        versions = ", ".join(f"{name} {version}" for name, version in dict(session.get("versions", {})).items())
        text = f"{session.get('started')} on {session.get('machine')}, commit {session.get('commit')}: {versions}"
        parts.append(f"<p>{escape(text)}</p>")
    parts.append(_block("Settings", record.settings))
    return (
        f'<details id="run-{escape(record.name)}" data-state="{record.state}"><summary>{escape(record.name)} '
        f'<span class="state">{record.state}</span> {escape(told)}</summary>{"".join(parts)}</details>\n'
    )


def film_address(record: RunRecord) -> str:
    """
    :param record: a run with a film
    :return: where it lies, as part of an address
    """
    from urllib.parse import quote

    return quote(record.film)


def _block(heading: str, text: str) -> str:
    return f'<h4>{heading}</h4><pre tabindex="0">{escape(text.strip())}</pre>' if text.strip() else ""


def interval(value: Sequence[float | None], form: str = ".1f") -> str:
    """
    :param value: a statistic and the ends of its interval
    :param form: of numbers
    :return: text
    """
    middle, low, high = ("-" if each is None else format(each, form) for each in value)
    return middle if low == "-" else f"{middle} [{low}, {high}]"


def _mean(values: Sequence[Any], form: str) -> str:
    known = [value for value in values if value is not None]
    return format(sum(known) / len(known), form) if known else "-"
