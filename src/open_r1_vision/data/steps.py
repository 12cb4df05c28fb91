# SPDX-License-Identifier: Apache-2.0
r"""Split a written solution into its steps, without losing a word of it.

| way | a step begins | what is left out |
|---|---|---|
| `steps` | at `Step 1:`, `### Step 2`, `**Step 3.** …` | that label |
| `numbers` | at an item of a numbered list: `1. `, `2) `, `(3) ` | its number |
| `headings` | at a markdown heading, or a line that is bold as a whole | `#` and `**` |
| `sentences` | at a sentence | nothing |

`auto` takes the first of these that finds two steps. What stands before the first label belongs to the first step: a
hint that is only "Let us go step by step:" would say nothing. Joined by a space, the steps are the text again, but for
the labels, rules (`---`) and the width of its spaces.

A label stands at the start of a line or behind a sentence, and its number goes up: "By Step 1, …" is no label, nor are
the 3 of "3.5 cm" and the second 1 of a nested list. In a text without full stops ("Step 1: a Step 2: b") a label may
follow any word that does not lead up to it, as "in Step 2:" does.
"""

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

#: How a text can be split.
WAYS = ("auto", "steps", "numbers", "headings", "sentences")

_RULE = re.compile(r"^[ \t]*(?:-{3,}|\*{3,}|_{3,})[ \t]*$", re.MULTILINE)
_STEP = re.compile(
    r"""(?P<bold>\*\*)?(?<!\w)(?:Step|STEP|step)[ \t]+(?P<number>\d{1,2})(?!\d)
    (?:[ \t]*(?P<closed>\*\*)?[ \t]*(?:(?P<sign>[:：]|[.)](?=\s|\*\*|$)|[-–—](?=\s))|(?=\n|$))(?P<closed_behind>\*\*)?
    |(?P<bare>[ \t]+(?=[A-Z(\\$∠△])))[ \t]*""",
    re.VERBOSE,
)
_ITEM = re.compile(
    r"""(?P<bold>\*\*)?(?<![\w.(])(?:(?P<number>\d{1,2})[.)]|\((?P<in_brackets>\d{1,2})\))(?P<closed_behind>\*\*)?
    (?:[ \t]+(?=\S)|(?=[A-Z]))""",
    re.VERBOSE,
)
_LEADS_UP = re.compile(
    r"(?<!\w)(?:in|from|by|of|to|at|on|see|use|using|with|as|per|and|or|the|this|after|before|via|for|is|than|step"
    r"|apply|repeat|follow|like|through|until|under|since)\s*$|\($",
    re.IGNORECASE,
)
_HEADING = re.compile(
    r"^[ \t]*(?:#{1,6}[ \t]+(?=\S)(?P<bold>\*\*)?|(?P<whole>\*\*)(?=[^*\n]+\*\*[ \t]*:?[ \t]*$))",
    re.MULTILINE,
)
_LINE_START = re.compile(r"(?:^|\n)(?P<lead>[ \t]*(?:[-*•][ \t]+)?(?:#{1,6}[ \t]*)?)$")
_SENTENCE_END = re.compile(r"""[.!?:;。！？]["'”’)\]*]*\s+$|[。！？]$""")

#: Where a sentence may end: a full stop, a blank line, a bullet on the next line.
_BREAK = re.compile(r"""[.!?]+["'”’)\]}*]*(?=\s)|[。！？]+|\n[ \t]*\n|\n(?=[ \t]*[-*•][ \t]+\S)""")
_MATHS = re.compile(r"\$\$.*?\$\$|\$[^$\n]+\$|\\\[.*?\\\]|\\\(.*?\\\)", re.DOTALL)
_ABBREVIATION = re.compile(
    r"(?<!\w)(?:e\.?g|i\.?e|cf|vs|ca|viz|approx|resp|figs?|eqs?|thms?|prop|w\.r\.t|s\.t|No|Nos|Dr|Mr|Mrs)\.$",
    re.IGNORECASE,
)
_ENUMERATOR = re.compile(r"(?:[-*•]\s*)?\(?(?:\d{1,2}|[A-Za-z])\)?[.)]?")


class _Marker(NamedTuple):
    """The label of a step: its place, its number, and the sign that ends its bold type behind it."""

    start: int
    end: int
    number: int
    closing: str


def split_steps(text: str, way: str = "auto") -> list[str]:
    """The steps of a written solution; see the module for what a step is.

    Args:
        text: markdown or plain text.
        way: one of `WAYS`; but for `auto`, one that finds no two steps gives the text as one step.

    Returns:
        No empty step; an empty list for a text that is only whitespace.

    Raises:
        ValueError: another way.
    """
    check_way(way)
    text = _RULE.sub("", text).strip()
    for name, find_markers in _LABELS.items():
        markers = list(find_markers(text)) if way in ("auto", name) else []
        if len(markers) > 1:
            return _cut(text, markers)
    if way in ("auto", "sentences"):
        return _sentences(text)
    return [text] if text else []


def check_way(way: str) -> None:
    """Refuse a way of splitting that there is not.

    Raises:
        ValueError: it is none of `WAYS`.
    """
    if way not in WAYS:
        raise ValueError(f"A solution can't be split by {way!r}: set `steps` to one of {', '.join(WAYS)}.")


def _step_markers(text: str) -> Iterator[_Marker]:
    last = None
    for match in _STEP.finditer(text):
        start, on_line = _label_start(text, match.start())
        number = int(match["number"])
        in_order = number <= 1 if last is None else number > last
        if start is None and match["sign"] and number - 1 == last:
            words_before = text[max(match.start() - 20, 0) : match.start()]
            start = None if _LEADS_UP.search(words_before) else match.start()
        if start is None or not in_order or (match["bare"] and not on_line):
            continue
        last = number
        closing = match["bold"] if match["bold"] and not (match["closed"] or match["closed_behind"]) else ""
        yield _Marker(start, match.end(), number, closing or "")


def _item_markers(text: str) -> Iterator[_Marker]:
    for in_a_row in (False, True):
        markers = list(_find_items(text, in_a_row))
        if len(markers) > 1:
            return iter(markers)
    return iter(())


def _find_items(text: str, in_a_row: bool) -> Iterator[_Marker]:
    """The items of a list of lines, or of one within a paragraph."""
    next_number, indent = 1, 0
    for match in _ITEM.finditer(text):
        start, on_line = _label_start(text, match.start())
        number = int(match["number"] or match["in_brackets"])
        if start is None or number != next_number:
            continue
        width = match.start() - start
        if in_a_row:  # 1 and 2 are the values in "then x is: 1. So y is: 2. Now …"
            words_before = text[max(match.start() - 20, 0) : match.start()].rstrip()
            if (number > 1 and words_before.endswith((":", "："))) or not text[match.end()].isupper():
                continue
        elif not on_line or (number > 1 and width > indent):
            continue  # not a line, or one of a nested list
        indent = width if number == 1 else indent
        next_number += 1
        yield _Marker(start, match.end(), number, "" if match["closed_behind"] else match["bold"] or "")


def _heading_markers(text: str) -> Iterator[_Marker]:
    for number, match in enumerate(_HEADING.finditer(text)):
        yield _Marker(match.start(), match.end(), number, match["bold"] or match["whole"] or "")


def _label_start(text: str, position: int) -> tuple[int | None, bool]:
    """Where a label at this position begins with its `#` or bullet, and whether it starts its line."""
    line = text.rfind("\n", 0, position)
    lead = _LINE_START.search(text, max(line, 0), position)
    if lead is not None:
        return lead.start("lead"), True
    behind_sentence = _SENTENCE_END.search(text, max(line, position - 20, 0), position)
    return (position if behind_sentence else None), False


_LABELS: dict[str, Callable[[str], Iterator[_Marker]]] = {
    "steps": _step_markers,
    "numbers": _item_markers,
    "headings": _heading_markers,
}


def _cut(text: str, markers: list[_Marker]) -> list[str]:
    ends = [*(marker.start for marker in markers[1:]), len(text)]
    steps = [
        _without_closing(text[marker.end : end], marker.closing).strip()
        for marker, end in zip(markers, ends, strict=True)
    ]
    lead_in = text[: markers[0].start].strip()
    if lead_in:
        steps[0] = f"{lead_in}\n{steps[0]}"
    return [step.strip() for step in steps if step.strip()]


def _without_closing(step: str, closing: str) -> str:
    """The step without the sign that ends a bold type that its label began, if it stands in the first line."""
    first, newline, rest = step.partition("\n")
    return (first.replace(closing, "", 1) if closing else first) + newline + rest


def _sentences(text: str) -> list[str]:
    maths = [match.span() for match in _MATHS.finditer(text)]
    steps, start = [], 0
    for match in _BREAK.finditer(text):
        step = text[start : match.end()].strip()
        if any(first <= match.start() < last for first, last in maths) or not _ends_here(step, text, match):
            continue
        steps.append(step)
        start = match.end()
    rest = text[start:].strip()
    return [*steps, rest] if rest else steps


def _ends_here(step: str, text: str, match: re.Match[str]) -> bool:
    if not step or _ENUMERATOR.fullmatch(step):
        return False
    following = text[match.end() : match.end() + 20].lstrip()
    if match[0][0] == "\n":  # an equation on lines of its own belongs to its sentence
        return step[-1] not in ",:;=+-−(&" and (step[-1] in ".!?。！？" or not following.startswith(("\\[", "$$")))
    following = following[:1]
    if following.islower() or following in (",", ";", ":", ")", "]", "}"):
        return False
    return _ABBREVIATION.search(text, max(match.start() - 8, 0), match.start() + 1) is None
