# SPDX-License-Identifier: Apache-2.0
"""A forest plot of the differences of a comparison: one line each, with its interval, n and p beside it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from open_r1_vision.compare.comparison import ACCURACY, Comparison, Pair, Table
from open_r1_vision.compare.table import format_p, format_points

# of Okabe and Ito's palette, which colour-blind readers tell apart; what is found also differs by the filling
_BLUE, _INK, _GREY, _LIGHT = "#0072B2", "#222222", "#707070", "#e9e9e9"
_FONT_SIZE = 9.5
_DPI = 200
_LEVEL = 0.05
# inches
_WIDTH, _PLOT, _ROW, _GAP, _FOOT = 8.4, 2.8, 0.29, 0.22, 0.84

Line = tuple[str, Pair | None]


def draw_forest(comparison: Comparison, path: str | Path, measure: str = ACCURACY) -> None:
    """Draw the differences of one measure as PNG, SVG or PDF, by the name of the file.

    A filled dot is significant at 5 % after Holm's correction, a hollow one is not. The grey bar holds the differences
    that so many items are likely to miss, see :func:`open_r1_vision.compare.smallest_difference`.

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
    title, lines = _list_lines(tables)
    columns = _list_columns(lines)
    labels = _text_width([title, *(label for label, _ in lines)]) + _GAP
    widths = [_text_width(column) + _GAP for column in columns]
    width = max(_WIDTH, labels + _PLOT + sum(widths) + _GAP)
    plot = width - labels - sum(widths) - _GAP
    height = _ROW * (len(lines) + 1.4) + _FOOT
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((labels / width, _FOOT / height, plot / width, _ROW * len(lines) / height))
    _draw_axes(axes, lines, measure)
    for place, (label, pair) in enumerate(lines):
        weight = "bold" if pair is None else "normal"
        _write(axes, (_GAP / 2 - labels) / plot, place, label, ha="left", weight=weight)
        if pair is not None:
            _draw_pair(axes, place, pair)
    _write(axes, (_GAP / 2 - labels) / plot, -1.0, title, ha="left", color=_GREY)
    right = plot
    for column, column_width in zip(columns, widths, strict=True):
        right += column_width
        for place, text in enumerate(column, start=-1):
            _write(axes, right / plot, place, text, ha="right", color=_GREY if place < 0 else _INK)
    _draw_legend(figure, lines)
    figure.savefig(path, dpi=_DPI, facecolor="white")


def _list_lines(tables: Sequence[Table]) -> tuple[str, list[Line]]:
    """What is compared in all lines, and each line: a pair, or the name of the benchmark above several."""
    pairs = [pair for table in tables for pair in table.pairs]
    has_one_baseline = len({pair.first for pair in pairs}) == 1
    if all(len(table.pairs) == 1 for table in tables):
        return f"{pairs[0].second} against {pairs[0].first}", [(table.benchmark, table.pairs[0]) for table in tables]
    lines: list[Line] = []
    for table in tables:
        lines.append((table.benchmark, None))
        for pair in table.pairs:
            lines.append((f"    {pair.second}" + ("" if has_one_baseline else f" \N{MINUS SIGN} {pair.first}"), pair))
    return (f"against {pairs[0].first}" if has_one_baseline else ""), lines


def _list_columns(lines: Sequence[Line]) -> list[list[str]]:
    """The columns beside the plot, each with its head."""
    results = [None if pair is None else pair.result for _, pair in lines]
    has_clusters = any(result and result.num_clusters < result.num_items for result in results)
    columns = [["n (sources)" if has_clusters else "n"], ["points [95 %]"], ["p (Holm)"]]
    for (_, pair), result in zip(lines, results, strict=True):
        texts = ["", "", ""]
        if pair is not None and result is not None:
            is_clustered = result.num_clusters < result.num_items
            count = f"{result.num_items:,}" + (f" ({result.num_clusters:,})" if is_clustered else "")
            points = format_points(result.difference, result.interval).replace("-", "\N{MINUS SIGN}")
            texts = [count, points, format_p(pair.holm)]
        for column, text in zip(columns, texts, strict=True):
            column.append(text)
    return columns


def _draw_axes(axes: Any, lines: Sequence[Line], measure: str) -> None:
    ends = [0.0]
    for result in (pair.result for _, pair in lines if pair is not None):
        ends += [*(result.interval or (result.difference,)), result.smallest or 0.0, -(result.smallest or 0.0)]
    low, high = 100 * min(ends), 100 * max(ends)
    margin = 0.04 * max(high - low, 1.0)
    axes.set_xlim(low - margin, high + margin)
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.axvline(0.0, color=_INK, linewidth=1, zorder=1)
    axes.set_xlabel(f"difference in {measure}, points", fontsize=_FONT_SIZE, color=_INK)
    axes.tick_params(axis="x", labelsize=_FONT_SIZE - 0.5, colors=_INK)
    axes.locator_params(axis="x", nbins=6, steps=[1, 2, 5, 10])
    axes.set_yticks([])
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_GREY)


def _draw_pair(axes: Any, place: int, pair: Pair) -> None:
    result = pair.result
    if result.smallest is not None:
        axes.barh(place, 200 * result.smallest, left=-100 * result.smallest, height=0.62, color=_LIGHT, zorder=0)
    if result.interval is not None:
        axes.plot([100 * end for end in result.interval], [place, place], color=_BLUE, linewidth=2, zorder=2)
    axes.plot([100 * result.difference], [place], zorder=3, **_dot(_is_found(pair)))


def _is_found(pair: Pair) -> bool:
    return pair.holm is not None and pair.holm < _LEVEL


def _dot(is_found: bool) -> dict[str, Any]:
    face = _BLUE if is_found else "white"
    style = {"markerfacecolor": face, "markeredgecolor": _BLUE, "markeredgewidth": 1.5, "markersize": 6.5}
    return {"marker": "o", "linestyle": "none", **style}


def _draw_legend(figure: Any, lines: Sequence[Line]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    pairs = [pair for _, pair in lines if pair is not None]
    found = {_is_found(pair) for pair in pairs}
    texts = {True: "significant at 5 % after Holm's correction", False: "not significant"}
    handles: list[Any] = [Line2D([], [], label=text, **_dot(state)) for state, text in texts.items() if state in found]
    if any(pair.result.smallest is not None for pair in pairs):
        handles.append(Patch(color=_LIGHT, label="n is too small to see these (80 % power)"))
    style = {"fontsize": _FONT_SIZE - 1.5, "labelcolor": _GREY, "frameon": False, "borderaxespad": 0.4}
    figure.legend(handles=handles, loc="lower left", ncols=3, columnspacing=1.6, handletextpad=0.5, **style)


def _text_width(texts: Sequence[str]) -> float:
    """Inches of the widest text."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    bold = FontProperties(weight="bold")
    # no path comes of blanks, and a formula of what stands between dollars
    plain = [text.strip(" ").replace("$", "S").rjust(len(text), ".") or "." for text in texts]
    return max(TextPath((0, 0), text, size=_FONT_SIZE, prop=bold).get_extents().x1 for text in plain) / 72


def _write(axes: Any, x: float, y: float, text: str, **style: Any) -> None:
    """Text in a line of the plot; x as a share of the width of the axes."""
    style = {"fontsize": _FONT_SIZE, "va": "center_baseline", "color": _INK, **style}
    axes.text(x, y, text, transform=axes.get_yaxis_transform(), clip_on=False, parse_math=False, **style)
