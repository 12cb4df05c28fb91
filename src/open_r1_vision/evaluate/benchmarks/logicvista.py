# SPDX-License-Identifier: Apache-2.0
"""LogicVista (Xiao et al., arXiv 2407.04973): 447 items, options in the image; `logicvista_micro`.

The gold is one label or several, letters or digits joined by a comma: an answer is right where it has the same ones,
no more and no fewer. VLMEvalKit has a judge extract them and returns nothing without one; ours reads them by rule. An
item counts for each of the five skills that its `skill` names.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from open_r1_vision.evaluate.benchmarks.aggregate import accuracy, accuracy_by, collect_scores
from open_r1_vision.evaluate.benchmarks.base import TableBenchmark, field_text
from open_r1_vision.evaluate.benchmarks.extraction import FORMS, NO_RULE, find_answer, find_option
from open_r1_vision.evaluate.items import Item, Metric, Record
from open_r1_vision.evaluate.sources import Row

SKILLS = ("inductive", "deductive", "numerical", "spatial", "mechanical")
#: What a reply may name without a form; an "I" would be a pronoun.
_LETTERS = dict.fromkeys("ABCDEFGH", "")
_LABEL = re.compile(r"[A-Za-z0-9]")
_TOGETHER = re.compile(r"[A-H]{2,8}")
_BETWEEN = re.compile(r"[\s,;/&().:]+|\band\b")


@dataclass(frozen=True)
class LogicVista(TableBenchmark):
    """Several options may be right at once."""

    def check(self, item: Item, row: Row) -> Item:
        if item.answer is not None and not labels_of(item.answer):
            raise ValueError(
                f"{row.place}: the gold answer is {item.answer!r}, but LogicVista's are labels like 'B' or 'A, C'. "
                "Correct it."
            )
        return item

    def has_option_columns(self, item: Item) -> bool:
        return False

    def extract(self, item: Item, text: str) -> tuple[str | None, str]:
        answer, rule = find_answer(text)
        labels = labels_of(answer or "")
        if labels:
            return ", ".join(labels), rule
        if rule in FORMS:
            letter = find_option(answer or "", _LETTERS)[0]
            return letter or answer, rule
        letter, rule = find_option(text, _LETTERS)
        return (letter, rule) if letter in _LETTERS else (None, NO_RULE)

    def score(self, item: Item, answer: str | None) -> float | None:
        if item.answer is None:
            return None
        return float(bool(answer) and labels_of(answer or "") == labels_of(item.answer))

    def metrics(self, items: Sequence[Item], records: Sequence[Record]) -> list[Metric]:
        scores = collect_scores(self.name, items, records)
        micro = accuracy("logicvista_micro", items, scores)
        return micro + accuracy_by("logicvista_skill", items, scores, _skills)


def labels_of(text: str) -> list[str]:
    """The labels of a text that is a list of them and nothing else, such as `A, C` or `AC`, in order and once each."""
    words = [word for word in _BETWEEN.split(text) if word]
    if len(words) == 1 and _TOGETHER.fullmatch(words[0]):
        words = list(words[0])
    return sorted({word.upper() for word in words}) if all(map(_LABEL.fullmatch, words)) else []


def _skills(item: Item) -> list[str]:
    text = field_text(item, "skill").lower()
    return [skill for skill in SKILLS if skill in text]


BENCHMARKS = (LogicVista("logicvista", kit_names=("LogicVista",), splits=("train", "test")),)
