# SPDX-License-Identifier: Apache-2.0
"""MathVerse testmini (Zhang et al., arXiv 2403.14624): 788 problems in up to six versions, one metric for each.

`mathverse_vision_only`, `mathverse_text_lite` and so on are the mean over a version; with several in the data,
`mathverse_all_versions` comes first, with the versions of a problem as one cluster. `mathverse` asks with `question`,
`mathverse_cot` with `query_cot`. Gold letters are read with the options in `question_for_eval`. Ours: the rewards'
rule where the official code has a judge extract and compare.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from open_r1_vision.evaluate.benchmarks.aggregate import accuracy, accuracy_by, collect_scores
from open_r1_vision.evaluate.benchmarks.base import TableBenchmark, field_text, kinds_by, parsed_options
from open_r1_vision.evaluate.items import Item, Metric, Record
from open_r1_vision.evaluate.sources import Row


@dataclass(frozen=True)
class MathVerse(TableBenchmark):
    """Options are part of the question's text, in Vision Only of the image alone."""

    cot: bool = False

    def grouped(self, items: list[Item]) -> list[Item]:
        if len({field_text(item, "problem_version") for item in items}) < 2:
            return items
        return [
            replace(item, cluster=f"problem {field_text(item, 'problem_index')}")
            if field_text(item, "problem_index")
            else item
            for item in items
        ]

    def build(self, row: Row) -> Item:
        item = super().build(row)
        if not field_text(item, "problem_version"):
            raise ValueError(
                f"{row.place}: 'problem_version' is empty or missing, but MathVerse is reported by version. Give "
                "MathVerse's own data."
            )
        full = row.text("question_for_eval") or item.question
        return replace(item, options=parsed_options(full, item.answer or ""))

    def question(self, row: Row) -> str:
        # Vision Only has its question in the image alone
        return row.text("question", "query_wo", "query_cot") or super().question(row)

    def has_option_columns(self, item: Item) -> bool:
        return False

    def prompt(self, item: Item) -> str:
        if not self.cot:
            return item.question
        query = field_text(item, "query_cot")
        if not query:
            raise ValueError(
                f"{self.name}, item {item.index}: 'query_cot' is empty or missing. Use data that has it, or mathverse."
            )
        return query

    def metrics(self, items: Sequence[Item], records: Sequence[Record]) -> list[Metric]:
        scores = collect_scores(self.name, items, records)
        versions = accuracy_by("mathverse", items, scores, kinds_by("problem_version"))
        together = accuracy("mathverse_all_versions", items, scores) if len(versions) > 1 else []
        metrics = together + versions
        for name in ("subject", "subfield"):
            metrics += accuracy_by(f"mathverse_{name}", items, scores, kinds_by(name))
        return metrics


_VERSIONS = ("", "_Vision_Only", "_Vision_Dominant", "_Vision_Intensive", "_Text_Lite", "_Text_Dominant")
BENCHMARKS = (
    MathVerse("mathverse", kit_names=tuple(f"MathVerse_MINI{version}" for version in _VERSIONS), splits=("testmini",)),
    MathVerse("mathverse_cot", kit_names=("MathVerse_MINI_Vision_Only_cot",), splits=("testmini",), cot=True),
)
