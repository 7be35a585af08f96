"""Metrics as tables for people and as JSON for programs."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

logger = logging.getLogger(__name__)


# tables of more classes stand in several columns, as many as fit into WIDTH characters
ROWS = 40
WIDTH = 150

# figures that are no percentages: identity switches
COUNTS = ("IDSw",)

# how detectron2 marks the figures of a group of classes, as in PQ_th, and what the table calls the group
GROUPS = {"": "All", "_th": "Things", "_st": "Stuff"}


def print_results(results: dict[str, dict[str, float]]) -> None:
    """Log a table of the per-class figures of each task, then one of its summary figures."""
    for task, metrics in results.items():
        for title, table in (("by class", class_table(metrics)), ("over all classes", summary_table(metrics))):
            if table:
                counts = "".join(f" ({name}: a number)" for name in COUNTS if name in metrics)
                logger.info("Results of %s %s, in percent%s:\n%s", task, title, counts, table)


def summary_table(metrics: dict[str, float]) -> str:
    """The figures without a class, side by side; where there are some of things and stuff, a row per group."""
    summary = {name: value for name, value in metrics.items() if "-" not in name}
    figures = [name for name in summary if not name.endswith(tuple(GROUPS)[1:])]
    groups = {suffix: group for suffix, group in GROUPS.items() if any(name + suffix in summary for name in figures)}
    if len(groups) < 2:
        return format_table([figures, [_number(summary[name]) for name in figures]]) if summary else ""
    body = [[group, *(_cell(summary, name + suffix) for name in figures)] for suffix, group in groups.items()]
    return format_table([["", *figures], *body])


def class_table(metrics: dict[str, float]) -> str:
    """The figures named <figure>-<class>: a row per class, a column per figure; nan where a class did not occur.

    Many classes stand in several columns side by side, to be read downwards.
    """
    rows: dict[str, dict[str, float]] = {}
    for key, value in metrics.items():
        figure, dash, name = key.partition("-")
        if dash:
            rows.setdefault(name, {})[figure] = value
    figures = list(dict.fromkeys(figure for row in rows.values() for figure in row))
    body = [[name, *(_cell(row, figure) for figure in figures)] for name, row in rows.items()]
    return format_table(_side_by_side(["class", *figures], body)) if body else ""


def _side_by_side(head: list[str], body: list[list[str]]) -> list[list[str]]:
    """Head and rows of a table, broken into columns of one length where it has more than ROWS rows."""
    width = sum(max(len(row[i]) for row in (head, *body)) + 3 for i in range(len(head)))
    columns = max(1, min(-(-len(body) // ROWS), WIDTH // width))
    length = -(-len(body) // columns)
    body = body + [[""] * len(head)] * (columns * length - len(body))
    parts = [body[i * length : (i + 1) * length] for i in range(columns)]
    return [head * columns, *([cell for row in rows for cell in row] for rows in zip(*parts, strict=True))]


def format_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text, the first of them the head, as an aligned Markdown table; numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    right = [all(_is_number(row[i]) for row in rows[1:]) for i in range(len(widths))]
    lines = [
        "| " + " | ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)) + " |"
        for row in rows
    ]
    rule = "|" + "|".join("-" * (w + 1) + (":" if r else "-") for w, r in zip(widths, right, strict=True)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def json_ready(value):
    """A copy of nested dicts, lists and numbers that strict JSON can hold: numbers that are not finite become None."""
    if isinstance(value, dict):
        return {key: json_ready(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_ready(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _cell(row: dict[str, float], figure: str) -> str:
    return _number(row[figure]) if figure in row else ""


def _number(value: float) -> str:
    return f"{value:.2f}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text == ""
    return True
