# SPDX-License-Identifier: Apache-2.0
"""A forest plot of the differences of a comparison: one line each, with its interval, n and p beside it."""

from pathlib import Path
from typing import Any

from open_r1_vision.compare.comparison import ACCURACY, Comparison, Pair, Table
from open_r1_vision.compare.table import format_p, format_points

# of Okabe and Ito's palette, which colour-blind readers tell apart
_BLUE, _INK, _GREY = "#0072B2", "#222222", "#8a8a8a"
_WIDTH, _ROW, _DPI = 8.4, 0.31, 200
_LEVEL = 0.05


def draw_forest(comparison: Comparison, path: str | Path, measure: str = ACCURACY) -> None:
    """Draw the differences of one measure as PNG, SVG or PDF, by the name of the file.

    A filled dot is significant at 5 % after Holm's correction, a hollow one is not. The grey bar is what so many items
    can't tell from no difference with 80 % power.

    Args:
        comparison: of :func:`open_r1_vision.compare.compare_runs`.
        path: of the picture.
        measure: `accuracy`, or a `pass@k` that was compared.

    Raises:
        ValueError: no such measure was compared.
    """
    from matplotlib.figure import Figure

    tables = [table for table in comparison.tables if table.measure == measure]
    if not tables:
        known = ", ".join(dict.fromkeys(table.measure for table in comparison.tables))
        raise ValueError(f"No {measure!r} was compared: set the measure to one of {known}.")
    lines = _list_lines(tables)
    height = _ROW * (len(lines) + 1) + 0.85
    figure = Figure(figsize=(_WIDTH, height))
    axes = figure.add_axes((0.27, 0.55 / height, 0.31, _ROW * (len(lines) + 1) / height))
    axes.set_ylim(len(lines) - 0.4, -1.4)
    axes.set_xlim(*_find_limits(tables))
    axes.axvline(0.0, ymax=1 - 0.9 / (len(lines) + 1), color=_INK, linewidth=1, zorder=1)
    for place, (label, pair) in enumerate(lines):
        _write(axes, -0.85, place, label, ha="left", weight="bold" if pair is None else "normal")
        if pair is not None:
            _draw_pair(axes, place, pair)
    header = ("n", "points [95 %]", "p (Holm)")
    for x, text in zip(_COLUMNS, header, strict=True):
        _write(axes, x, -1, text, ha="right", color=_GREY)
    _write(axes, -0.85, -1, _title(tables), ha="left", color=_GREY)
    axes.set_xlabel(f"difference in {measure}, points", fontsize=9.5, color=_INK)
    axes.tick_params(axis="x", labelsize=9, colors=_INK)
    axes.set_yticks([])
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_GREY)
    figure.savefig(path, dpi=_DPI, facecolor="white")


_COLUMNS = (1.19, 1.88, 2.30)


def _list_lines(tables: list[Table]) -> list[tuple[str, Pair | None]]:
    """What stands in each line: a pair, or the name of the benchmark above several."""
    if all(len(table.pairs) == 1 for table in tables):
        return [(table.benchmark, table.pairs[0]) for table in tables]
    lines: list[tuple[str, Pair | None]] = []
    for table in tables:
        lines.append((table.benchmark, None))
        lines += [("   " + _name(pair, _has_one_baseline(tables)), pair) for pair in table.pairs]
    return lines


def _has_one_baseline(tables: list[Table]) -> bool:
    return len({pair.first for table in tables for pair in table.pairs}) == 1


def _name(pair: Pair, short: bool) -> str:
    return pair.second if short else f"{pair.second} - {pair.first}"


def _title(tables: list[Table]) -> str:
    pair = tables[0].pairs[0]
    if all(len(table.pairs) == 1 for table in tables):
        return f"{pair.second} against {pair.first}"
    return f"against {pair.first}" if _has_one_baseline(tables) else ""


def _find_limits(tables: list[Table]) -> tuple[float, float]:
    ends = [0.0]
    for pair in (pair for table in tables for pair in table.pairs):
        result = pair.result
        ends += [*(result.interval or (result.difference,)), result.smallest or 0.0, -(result.smallest or 0.0)]
    low, high = 100 * min(ends), 100 * max(ends)
    margin = 0.04 * max(high - low, 1.0)
    return low - margin, high + margin


def _draw_pair(axes: Any, place: int, pair: Pair) -> None:
    result = pair.result
    if result.smallest is not None:
        axes.barh(place, 200 * result.smallest, left=-100 * result.smallest, height=0.62, color="#ececec", zorder=0)
    if result.interval is not None:
        axes.plot([100 * end for end in result.interval], [place, place], color=_BLUE, linewidth=2, zorder=2)
    is_found = pair.holm is not None and pair.holm < _LEVEL
    face = _BLUE if is_found else "white"
    style = {"markerfacecolor": face, "markeredgecolor": _BLUE, "markeredgewidth": 1.5, "markersize": 6.5}
    axes.plot([100 * result.difference], [place], "o", zorder=3, **style)
    count = f"{result.num_items:,}"
    texts = (count, format_points(result.difference, result.interval), format_p(pair.holm))
    for x, text in zip(_COLUMNS, texts, strict=True):
        _write(axes, x, place, text, ha="right")


def _write(axes: Any, x: float, y: float, text: str, **style: Any) -> None:
    """Text in a line of the plot; x as a share of the width of the axes."""
    style = {"fontsize": 9.5, "va": "center", "color": _INK, **style}
    axes.text(x, y, text, transform=axes.get_yaxis_transform(), clip_on=False, parse_math=False, **style)
