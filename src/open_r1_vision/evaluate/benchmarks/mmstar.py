# SPDX-License-Identifier: Apache-2.0
"""MMStar (Chen et al., arXiv 2403.20330): 1,500 items with options A to D, 250 in each of six categories.

`mmstar_micro` over all items is what VLMEvalKit reports; `mmstar_macro`, the unweighted mean over the finer axes of
`l2-category`, is the `average` of lmms-eval.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from open_r1_vision.evaluate.benchmarks.aggregate import accuracy_by, collect_scores
from open_r1_vision.evaluate.benchmarks.base import TableBenchmark, field_text, parsed_options
from open_r1_vision.evaluate.items import Item, Metric, Record
from open_r1_vision.evaluate.sources import Row


@dataclass(frozen=True)
class MMStar(TableBenchmark):
    """In VLMEvalKit's table options have columns, in the data set they stand in the question."""

    def build(self, row: Row) -> Item:
        item = super().build(row)
        return item if item.options else replace(item, options=parsed_options(item.question, item.answer or ""))

    def metrics(self, items: Sequence[Item], records: Sequence[Record]) -> list[Metric]:
        metrics = super().metrics(items, records)
        axes = accuracy_by("axis", items, collect_scores(self.name, items, records), _axis)
        macro = [Metric("mmstar_macro", fmean(axis.value for axis in axes), len(axes))] if axes else []
        return [*metrics[:1], *macro, *metrics[1:]]


def _axis(item: Item) -> list[str]:
    axis = field_text(item, "l2-category") or field_text(item, "l2_category")
    return [f"{field_text(item, 'category')} {axis}"] if axis else []


BENCHMARKS = (MMStar("mmstar", kit_names=("MMStar",), splits=("val",), choices_only=True, parts=("category",)),)
