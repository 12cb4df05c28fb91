# SPDX-License-Identifier: Apache-2.0
"""A comparison as tables for the terminal, rows for CSV, and JSON."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from open_r1_vision.compare.comparison import ACCURACY, Comparison, Pair, Table
from open_r1_vision.compare.reading import Run

_STATUS_WORDS = {"truncated": "truncated", "failed": "failed", "no_answer": "unanswered"}
_LEGEND = (
    "Intervals: 95 %. Points: second - first, paired by item. p: two-sided; holm: p after Holm's correction over the",
    "pairs and benchmarks of a measure. sees: the smallest true difference that so many items, differing as they do,",
    "show with 80 % power; a difference that is not significant may still be there below it.",
)


def format_tables(comparison: Comparison) -> str:
    """All tables as text, with the notes below."""
    lines: list[str] = []
    for table in comparison.tables:
        lines += [*_format_table(table), ""]
    lines += [f"Note: {note}." for note in comparison.notes]
    return "\n".join([*lines, *_LEGEND])


def to_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """One row for each pair of each table, everything in it as a number; shares and differences are in [-1, 1]."""
    rows = []
    for table in comparison.tables:
        for pair in table.pairs:
            result, sides = pair.result, (table.estimates[pair.first], table.estimates[pair.second])
            row: dict[str, Any] = {"benchmark": table.benchmark, "measure": table.measure}
            row |= {"first": pair.first, "second": pair.second}
            row |= {"items": result.num_items, "clusters": result.num_clusters}
            for name, run, side in zip(("first", "second"), _runs_of(table, pair), sides, strict=True):
                low, high = side.interval or (None, None)
                row |= {f"{name}_mean": side.mean, f"{name}_low": low, f"{name}_high": high}
                row |= {f"{name}_interval": side.method, f"{name}_samples": run.num_samples}
            low, high = result.interval or (None, None)
            row |= {"difference": result.difference, "low": low, "high": high}
            row |= {"gained": result.gained, "lost": result.lost, "p": result.p_value, "p_holm": pair.holm}
            rows.append(row | {"test": result.test, "reason": result.reason, "smallest": result.smallest})
    return rows


def to_csv(comparison: Comparison) -> str:
    """:func:`to_rows` as CSV; an empty cell is no value."""
    return _write_csv(to_rows(comparison))


def to_json(comparison: Comparison) -> dict[str, Any]:
    """Everything that was found, with the notes and the versions behind it; nothing in it is NaN."""
    packages = ("open_r1_vision", "scipy", "statsmodels")
    return {
        "tables": [
            {
                "benchmark": table.benchmark,
                "measure": table.measure,
                "runs": [_describe(table, run) for run in table.runs],
                "pairs": [
                    {"first": pair.first, "second": pair.second, **asdict(pair.result), "holm": pair.holm}
                    for pair in table.pairs
                ],
            }
            for table in comparison.tables
        ],
        "notes": list(comparison.notes),
        "versions": {name: version(name) for name in packages},
    }


def items_to_csv(comparison: Comparison) -> str:
    """Each item with its score in each run, the mean over samples, to look for what was gained and lost."""
    rows = []
    for table in comparison.tables:
        if table.measure == ACCURACY:
            for index, answers in table.runs[0].items.items():
                row: dict[str, Any] = {"benchmark": table.benchmark, "index": index, "cluster": answers.cluster}
                scores = {run.name: run.items[index].scores for run in table.runs}
                rows.append(row | {f"score {name}": sum(each) / len(each) for name, each in scores.items()})
    return _write_csv(rows)


def format_p(p_value: float | None) -> str:
    """Four decimals, or a power of ten where they would be 0."""
    if p_value is None:
        return "-"
    return f"{p_value:.4f}" if p_value >= 0.00005 else f"{p_value:.0e}"


def format_points(value: float, interval: tuple[float, float] | None) -> str:
    """A difference in points, with its sign and interval."""
    if interval is None:
        return f"{100 * value:+.1f}"
    return f"{100 * value:+.1f} [{100 * interval[0]:+.1f}, {100 * interval[1]:+.1f}]"


def _format_table(table: Table) -> list[str]:
    result = table.pairs[0].result
    counts = f"{result.num_items:,} items"
    if result.num_clusters < result.num_items:
        counts += f" from {result.num_clusters:,} sources"
    lines = [f"{table.benchmark}, {table.measure}: {counts}"]
    rows = [["run", table.measure, "interval", "samples", "not ok, scored 0"]]
    rows += [
        [
            run.name,
            str(table.estimates[run.name]),
            table.estimates[run.name].method,
            f"{run.num_samples:,}",
            _format_statuses(run),
        ]
        for run in table.runs
    ]
    lines += _align(rows)
    rows = [["difference", "points", "gained", "lost", "p", "holm", "test", "sees"]]
    for pair in table.pairs:
        result = pair.result
        sees = "-" if result.smallest is None else f"{100 * result.smallest:.1f}"
        cells = [f"{pair.second} - {pair.first}", format_points(result.difference, result.interval)]
        cells += [str(result.gained), str(result.lost), format_p(result.p_value), format_p(pair.holm)]
        rows.append([*cells, result.test, sees])
    lines += ["", *_align(rows)]
    reasons = dict.fromkeys(pair.result.reason for pair in table.pairs if pair.result.reason)
    return [*lines, *(f"  {reason}." for reason in reasons)]


def _format_statuses(run: Run) -> str:
    counts = [f"{run.statuses[key]:,} {word}" for key, word in _STATUS_WORDS.items() if run.statuses.get(key)]
    return ", ".join(counts) or "-"


def _runs_of(table: Table, pair: Pair) -> list[Run]:
    return [run for name in (pair.first, pair.second) for run in table.runs if run.name == name]


def _describe(table: Table, run: Run) -> dict[str, Any]:
    return {
        "name": run.name,
        "folder": str(run.folder),
        "model": run.settings.get("model"),
        **asdict(table.estimates[run.name]),
        "samples": run.num_samples,
        "statuses": dict(run.statuses),
        "judged_by": dict(run.judged_by),
        "prompt_styles": list(run.styles),
        "no_gold": len(run.no_gold),
    }


def _align(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _write_csv(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(dict.fromkeys(name for row in rows for name in row)))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
