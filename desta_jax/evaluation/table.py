"""Scores as a table to read: our figures beside the published rows, then every group of figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from desta_jax.evaluation.benchmark import Benchmark


def write(benchmark: Benchmark, report: Mapping[str, Any]) -> str:
    """A benchmark's report (as scores.json holds it) in Markdown."""
    figures = _table(["figure", "value", "questions"], _figures(report["scores"]))
    return "\n".join([summarise(benchmark, report), *figures]) + "\n"


def summarise(benchmark: Benchmark, report: Mapping[str, Any]) -> str:
    """The same without the figures of every group."""
    lines = [f"## {benchmark.title}, split {report['split']}", "", _extent(report), ""]
    ours = [value_at(report["scores"], path) for path in benchmark.columns.values()]
    rows = [[report["model"] or "this run", *map(_number, ours)]]
    rows += [[name, *map(_number, values)] for name, values in benchmark.published.items()]
    lines += _table(["", *benchmark.columns], rows)
    lines += ["", f"Published: {benchmark.sources}."]
    lines += [f"Judge: {report['judge'] or 'none'}."]
    lines += [f"Note: {note}." for note in report["notes"]]
    if report["problems"]:
        found = [[kind, str(each["count"]), ", ".join(each["ids"][:3])] for kind, each in report["problems"].items()]
        lines += ["", *_table(["problem", "count", "such as"], found)]
    return "\n".join(lines) + "\n"


def _extent(report: Mapping[str, Any]) -> str:
    answered, questions = report["answered"], report["questions"]
    if report["complete"]:
        return f"All {questions} questions answered."
    share = 100 * answered / questions if questions else 0.0
    return f"PARTIAL: {answered} of {questions} questions answered ({share:.1f} %); the figures are over these alone."


def _figures(tree: Mapping[str, Any], name: str = "") -> list[list[str]]:
    """One row a figure, named by its path in the tree."""
    rows = []
    if "count" in tree:
        metric = f" ({tree['metric']})" if "metric" in tree else ""
        rows.append([name + metric, _number(tree["value"]), str(tree["count"])])
    for key, value in tree.items():
        if isinstance(value, Mapping):
            rows += _figures(value, f"{name} / {key}" if name else key)
    return rows


def value_at(tree: Mapping[str, Any], path: Sequence[str]) -> float | None:
    """The value of the figure at a path of keys; None where there is none."""
    for key in path:
        tree = tree.get(key, {})
    return tree.get("value")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in (header, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]
