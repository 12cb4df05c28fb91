# SPDX-License-Identifier: Apache-2.0
"""MMBench (Liu et al., arXiv 2307.06281): each question is asked again with its options rotated.

`mmbench_circular` is the share of questions that are right in every rotation that the data have; a question of which
one was not asked is left out. `mmbench_vanilla` is the share of first rotations that are right. A row's question is
`g_index`, or its index modulo 1,000,000, as VLMEvalKit numbers rotations. A table without rotations gives
`mmbench_vanilla` alone: write one with `vlmutil circular`. TEST splits have no gold answers and no metrics.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from open_r1_vision.evaluate.benchmarks.aggregate import (
    accuracy,
    accuracy_by,
    all_right,
    collect_scores,
    groups_of,
    slug,
    whole_groups,
)
from open_r1_vision.evaluate.benchmarks.base import TableBenchmark, field_text, kinds_by
from open_r1_vision.evaluate.items import Item, Metric, Record, shared_source
from open_r1_vision.evaluate.sources import Row

logger = logging.getLogger(__name__)

ROTATION_STEP = 1_000_000


@dataclass(frozen=True)
class MMBench(TableBenchmark):
    """Rotations of a question are one cluster."""

    def build(self, row: Row) -> Item:
        item = super().build(row)
        if not item.index.isdigit():
            raise ValueError(
                f"{row.place}: the index of MMBench must be a whole number, that of a rotation {ROTATION_STEP} more "
                "than that of the one before. Give MMBench's own data."
            )
        return replace(item, cluster=_question(item))

    def metrics(self, items: Sequence[Item], records: Sequence[Record]) -> list[Metric]:
        scores = collect_scores(self.name, items, records)
        groups = groups_of(items, scores, _question)
        first = [replace(group[0], cluster=shared_source(group[0].cluster)) for group in groups.values()]
        vanilla = accuracy("mmbench_vanilla", first, scores)
        if all(item.group_size == 1 for item in first):
            if groups:
                logger.warning("This MMBench table has no rotated rows, so there is no mmbench_circular.")
            return vanilla + accuracy_by("mmbench_vanilla_category", first, scores, kinds_by("category"))
        whole = whole_groups("mmbench_circular", groups, lambda item: item.group_size)
        metrics = all_right("mmbench_circular", whole, scores) + vanilla
        for name in sorted({field_text(item, "category") for item in first} - {""}):
            part = {key: group for key, group in whole.items() if field_text(group[0], "category") == name}
            metrics += all_right(f"mmbench_circular_category_{slug(name)}", part, scores)
        return metrics


def _question(item: Item) -> str:
    return f"question {field_text(item, 'g_index') or int(item.index) % ROTATION_STEP}"


_KIT_NAMES = ("DEV_EN", "DEV_EN_V11", "DEV_CN", "DEV_CN_V11", "TEST_EN", "TEST_EN_V11", "TEST_CN", "TEST_CN_V11")
BENCHMARKS = (
    MMBench(
        "mmbench", kit_names=tuple(f"MMBench_{name}" for name in _KIT_NAMES), splits=("dev", "test"), choices_only=True
    ),
)
