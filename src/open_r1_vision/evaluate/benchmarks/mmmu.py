# SPDX-License-Identifier: Apache-2.0
"""MMMU (Yue et al., arXiv 2311.16502): `mmmu_validation` is the accuracy on its 900 validation items.

`mmmu_dev` is that on the 150 others of the same table. Images stand where the text says `<image 1>`. Open questions
are compared by the rewards' rule, each of several gold answers counting; VLMEvalKit makes them a choice between the
gold and "Other Answers".
"""

import ast
from collections.abc import Sequence
from dataclasses import dataclass

from open_r1_vision.evaluate.benchmarks.aggregate import accuracy, accuracy_by, collect_scores
from open_r1_vision.evaluate.benchmarks.base import TableBenchmark, field_text, kinds_by
from open_r1_vision.evaluate.benchmarks.scoring import same_answer
from open_r1_vision.evaluate.items import Item, Metric, Record


@dataclass(frozen=True)
class MMMU(TableBenchmark):
    """Choices and open questions in one table."""

    def score(self, item: Item, answer: str | None) -> float | None:
        if item.options or item.answer is None:
            return super().score(item, answer)
        return max(same_answer(answer, gold, item.question) for gold in gold_answers(item.answer))

    def metrics(self, items: Sequence[Item], records: Sequence[Record]) -> list[Metric]:
        scores = collect_scores(self.name, items, records)
        metrics = []
        for split in sorted({_split(item) for item in items}, key=lambda name: (name != "validation", name)):
            part = [item for item in items if _split(item) == split]
            metrics += accuracy(f"mmmu_{split}", part, scores)
            if split == "validation":
                metrics += accuracy_by("mmmu_validation_category", part, scores, kinds_by("category"))
        return metrics


def gold_answers(text: str) -> list[str]:
    """The gold answers of an open question: one text, or a Python list of them."""
    if text.startswith("["):
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            return [text]  # an interval such as [0, 1)
        if isinstance(value, list) and value and all(isinstance(one, str) for one in value):
            return value
    return [text]


def _split(item: Item) -> str:
    return field_text(item, "split") or "validation"


BENCHMARKS = (MMMU("mmmu", kit_names=("MMMU_DEV_VAL",), splits=("validation",)),)
