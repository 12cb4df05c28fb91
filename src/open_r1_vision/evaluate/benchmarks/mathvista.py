# SPDX-License-Identifier: Apache-2.0
"""MathVista testmini (Lu et al., arXiv 2310.02255): 1,000 items, options or free answers; `mathvista_micro`.

Official rule, on top of the rewards' own, as `mathvista_rounding`: an answer to an `integer` is cut off at its point,
one to a `float` is rounded to the item's `precision` (as many digits as the gold has, where that column is missing).
Answers to a `list` are compared without blanks. Ours: the official code takes the option nearest to an unknown text by
edit distance, we take none; VLMEvalKit does not round.
"""

import re
from dataclasses import dataclass

from open_r1_vision.evaluate.benchmarks.base import TableBenchmark, field_text
from open_r1_vision.evaluate.benchmarks.scoring import same_answer
from open_r1_vision.evaluate.items import Item
from open_r1_vision.evaluate.sources import Row
from open_r1_vision.rewards.numbers import parse_number

_PRECISION = re.compile(r"\d{1,2}(\.0*)?", re.ASCII)
_NO_PRECISION = ("", "nan", "None")


@dataclass(frozen=True)
class MathVista(TableBenchmark):
    """The `question` of VLMEvalKit's table, and `query` of the data set, hold hint and choices already."""

    def build(self, row: Row) -> Item:
        is_choice = row.text("question_type") == "multi_choice"
        if row.text("question_type") not in ("multi_choice", "free_form"):
            raise ValueError(
                f"{row.place}: 'question_type' is {row.text('question_type')!r}, but MathVista's is multi_choice or "
                "free_form. Give MathVista's own data."
            )
        return Item(
            index=row.text("index"),
            question=row.text("query") or self.question(row),
            images=row.images,
            answer=(row.text("answer_option") if is_choice else "") or row.text("answer") or None,
            options=row.options() if is_choice else {},
            fields=row.columns,
        )

    def check(self, item: Item, row: Row) -> Item:
        if row.text("question_type") == "multi_choice" and len(item.options) < 2:
            raise ValueError(f"{row.place}: the question is multi_choice, but 'choices' holds {len(item.options)}.")
        precision = row.text("precision")
        is_number = precision in _NO_PRECISION or _PRECISION.fullmatch(precision)
        if row.text("answer_type") == "float" and not is_number:
            raise ValueError(
                f"{row.place}: 'precision' is {precision!r:.80}, but it must be a number of digits behind the point, "
                "such as 1 or 1.0. Correct it, or leave it empty for as many digits as the answer has."
            )
        return super().check(item, row)

    def has_option_columns(self, item: Item) -> bool:
        return False

    def score(self, item: Item, answer: str | None) -> float | None:
        if item.options or item.answer is None or answer is None:
            return super().score(item, answer)
        kind = str(item.fields.get("answer_type", ""))
        if kind == "list":
            return float("".join(answer.split()) == "".join(item.answer.split()))
        right = same_answer(answer, item.answer, item.question)
        return max(right, mathvista_rounding(answer, item.answer, kind, field_text(item, "precision")))


def mathvista_rounding(answer: str, gold: str, answer_type: str, precision: str = "") -> float:
    """1.0 where answer and gold are the same after the official cutting off or rounding, else 0.0.

    Args:
        answer_type: `integer` or `float`; others are not rounded.
        precision: digits behind the point, such as `1` or `1.0`; empty for those of the gold, as is the `nan` that
            pandas makes of an empty cell.
    """
    number, gold_number = parse_number(answer), parse_number(gold)
    if number is None or gold_number is None or answer_type not in ("integer", "float"):
        return 0.0
    if number.unit and gold_number.unit and number.unit != gold_number.unit:
        return 0.0
    if answer_type == "integer":
        return float(int(number.value) == int(gold_number.value))
    digits = int(float(precision)) if _PRECISION.fullmatch(precision) else len(gold.partition(".")[2])
    return float(round(number.value, digits) == round(gold_number.value, digits))


BENCHMARKS = (
    MathVista(
        "mathvista", kit_names=("MathVista_MINI", "MathVista"), splits=("testmini", "test"), parts=("task", "skills")
    ),
)
