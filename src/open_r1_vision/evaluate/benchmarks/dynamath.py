# SPDX-License-Identifier: Apache-2.0
"""DynaMath (Zou et al., arXiv 2411.00836): 501 questions in ten variants each.

`dynamath_average` is the share of right answers over all rows, with the variants of a question as one cluster;
`dynamath_worst` that of questions that are right in every variant, which papers mostly print; questions of which a
variant was not asked are left out. A reply is JSON with
`short answer` (rule `json`), else read as every other. Official rules on top of the rewards' own: numbers may differ
by 0.001, and `2π` is 6.283 (`dynamath_tolerance`); of texts it is enough to give a part of the gold
(`dynamath_part_of_gold`; ours: in whole words). The words of the prompt are ours.
"""

import json
import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from open_r1_vision.evaluate.benchmarks.aggregate import (
    accuracy,
    accuracy_by,
    all_right,
    collect_scores,
    groups_of,
    whole_groups,
)
from open_r1_vision.evaluate.benchmarks.base import TableBenchmark, field_text, kinds_by, parsed_options
from open_r1_vision.evaluate.benchmarks.extraction import find_answer, find_option
from open_r1_vision.evaluate.benchmarks.scoring import same_answer
from open_r1_vision.evaluate.items import Item, Metric, Record
from open_r1_vision.evaluate.sources import Row
from open_r1_vision.rewards.numbers import parse_number

logger = logging.getLogger(__name__)

TOLERANCE = 0.001
#: Letters of options, of which a question's text may name no text.
_LETTERS = dict.fromkeys("ABCDE", "")
_TYPES = {
    "multiple choice": "Put the letter of the right option into 'short answer', such as 'A'.",
    "float": "Put a number with three digits behind the point into 'short answer'.",
    "text": "Numbers in 'short answer' have three digits behind the point.",
}
_FORM = (
    "\n## How to answer\nReply with one JSON object that has two keys: 'solution' for the steps to the answer, "
    "and 'short answer' for the answer alone. {rule}\n"
    '{{"solution": "[the steps]", "short answer": "[the answer]"}}'
)
_SHORT = re.compile(r'"short answer"\s*:\s*(?:"(?P<text>(?:[^"\\]|\\.)*)"|(?P<number>[-+\d.eE]+))')


@dataclass(frozen=True)
class DynaMath(TableBenchmark):
    """Variants of a question are one cluster."""

    with_form: bool = True

    def build(self, row: Row) -> Item:
        kind = row.text("answer_type")
        if kind not in _TYPES or not row.text("qid"):
            raise ValueError(
                f"{row.place}: 'answer_type' is {kind!r} and 'qid' is {row.text('qid')!r}. DynaMath needs the "
                f"question's qid, and one of the types {', '.join(_TYPES)}. Give DynaMath's own data."
            )
        item = super().build(row)
        item = replace(item, cluster=_question(item), options={})
        if kind != "multiple choice" or item.answer is None:
            return item
        options = parsed_options(item.question, item.answer)
        return replace(item, options=options or (_LETTERS if item.answer in _LETTERS else {}))

    def has_option_columns(self, item: Item) -> bool:
        return False

    def prompt(self, item: Item) -> str:
        if not self.with_form:
            return item.question
        return f"## Question\n{item.question}" + _FORM.format(rule=_TYPES[field_text(item, "answer_type")])

    def extract(self, item: Item, text: str) -> tuple[str | None, str]:
        short = short_answer(text)
        if short is None:
            return super().extract(item, text)
        found = find_option(short, item.options) if item.options else find_answer(short)
        return found[0] or short, "json"

    def score(self, item: Item, answer: str | None) -> float | None:
        kind = field_text(item, "answer_type")
        if item.answer is None or answer is None or item.options:
            return super().score(item, answer)
        right = same_answer(answer, item.answer, item.question)
        if kind == "float":
            return max(right, dynamath_tolerance(answer, item.answer))
        return max(right, dynamath_part_of_gold(answer, item.answer)) if kind == "text" else right

    def metrics(self, items: Sequence[Item], records: Sequence[Record]) -> list[Metric]:
        scores = collect_scores(self.name, items, records)
        groups = groups_of(items, scores, _question)
        metrics = accuracy("dynamath_average", items, scores)
        variants = max((item.group_size for item in items), default=1)
        if variants > 1:
            whole = whole_groups("dynamath_worst", groups, lambda _: variants)
            metrics += all_right("dynamath_worst", whole, scores)
        elif groups:
            logger.warning("These DynaMath data have one variant of each question, so there is no dynamath_worst.")
        for name in ("subject", "knowledge_level"):
            metrics += accuracy_by(f"dynamath_average_{name}", items, scores, kinds_by(name))
        return metrics


def _question(item: Item) -> str:
    return f"question {field_text(item, 'qid')}"


def short_answer(text: str) -> str | None:
    """The `short answer` of a reply in JSON, also where the JSON is broken; None where there is none."""
    start, end = text.find("{"), text.rfind("}")
    if 0 <= start < end:
        try:
            reply = json.loads(text[start : end + 1], strict=False)
        except (json.JSONDecodeError, RecursionError):
            reply = None
        if isinstance(reply, dict) and isinstance(reply.get("short answer"), (str, int, float)):
            return str(reply["short answer"]).strip() or None
    found = list(_SHORT.finditer(text))  # LaTeX in JSON is seldom escaped
    return ((found[-1]["text"] or found[-1]["number"] or "").strip() or None) if found else None


def dynamath_tolerance(answer: str, gold: str) -> float:
    """1.0 where two numbers, which may be multiples of π, differ by at most 0.001, else 0.0."""
    number, gold_number = _as_float(answer), _as_float(gold)
    if number is None or gold_number is None:
        return 0.0
    return float(abs(number - gold_number) <= TOLERANCE + 1e-9)  # 1.001 - 1 is more than 0.001 in binary


def dynamath_part_of_gold(answer: str, gold: str) -> float:
    """1.0 where the answer's words stand in the gold, in this order and without gaps, else 0.0."""
    words, gold_words = (re.findall(r"\w+", text.casefold()) for text in (answer, gold))
    return float(bool(words) and f" {' '.join(words)} " in f" {' '.join(gold_words)} ")


def _as_float(text: str) -> float | None:
    plain = text.replace("\\pi", "π").strip().strip("$")
    factor, pi, rest = plain.partition("π")
    number = parse_number(factor or "1") if pi and not rest.strip() else parse_number(plain)
    return None if number is None else float(number.value) * (math.pi if pi else 1)


BENCHMARKS = (
    DynaMath("dynamath", kit_names=("DynaMath",)),
    DynaMath("dynamath_noprompt", kit_names=("DynaMath_noprompt",), with_form=False),
)
