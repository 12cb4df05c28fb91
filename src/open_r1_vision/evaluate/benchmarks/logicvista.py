# SPDX-License-Identifier: Apache-2.0
"""LogicVista (Xiao et al., arXiv 2407.04973): 447 items, options in the image; `logicvista_micro`.

The gold is one letter or several, joined by a comma: an answer is right where it has the same letters, no more and no
fewer. VLMEvalKit has a judge extract the letters and returns nothing without one; ours reads them by rule.
"""

import re
from dataclasses import dataclass

from open_r1_vision.evaluate.benchmarks.base import TableBenchmark
from open_r1_vision.evaluate.benchmarks.extraction import FORMS, NO_RULE, find_answer, find_option
from open_r1_vision.evaluate.items import Item
from open_r1_vision.evaluate.sources import Row

_LETTERS = dict.fromkeys("ABCDEFGH", "")
_BETWEEN = re.compile(r"[\s,;/&().:]+|\band\b")


@dataclass(frozen=True)
class LogicVista(TableBenchmark):
    """Several options may be right at once."""

    def check(self, item: Item, row: Row) -> Item:
        if item.answer is not None and not letters_of(item.answer):
            raise ValueError(
                f"{row.place}: the gold answer is {item.answer!r}, but LogicVista's are letters like 'B' or 'A, C'. "
                "Correct it."
            )
        return item

    def has_option_columns(self, item: Item) -> bool:
        return False

    def extract(self, item: Item, text: str) -> tuple[str | None, str]:
        answer, rule = find_answer(text)
        letters = letters_of(answer or "")
        if letters:
            return ", ".join(letters), rule
        if rule in FORMS:
            letter = find_option(answer or "", _LETTERS)[0]
            return letter or answer, rule
        letter, rule = find_option(text, _LETTERS)
        return (letter, rule) if letter in _LETTERS else (None, NO_RULE)

    def score(self, item: Item, answer: str | None) -> float | None:
        if item.answer is None:
            return None
        return float(bool(answer) and letters_of(answer or "") == letters_of(item.answer))


def letters_of(text: str) -> list[str]:
    """The letters of a text that is a list of letters and nothing else, in order and once each."""
    words = {word.upper() for word in _BETWEEN.split(text) if word}
    return sorted(words) if words <= set(_LETTERS) else []


BENCHMARKS = (LogicVista("logicvista", kit_names=("LogicVista",), splits=("train", "test"), parts=("skill",)),)
