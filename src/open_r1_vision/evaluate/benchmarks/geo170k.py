# SPDX-License-Identifier: Apache-2.0
"""Geo170K-754, GeoQA's test set as R1-V and Hint-GRPO have it (arXiv 2503.23905): `geo170k_754_accuracy`.

The file is `geoqa_test_prompts.jsonl`, its images lie where its paths lead, see `data/geoqa.py`. Golds are numbers and
constants with units, compared by the rewards' rule; math-verify alone, which Hint-GRPO uses on the whole text,
misreads 60 of them and can't read 17.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from open_r1_vision.evaluate.benchmarks.aggregate import accuracy, collect_scores
from open_r1_vision.evaluate.benchmarks.rows import Rows, items_from_rows
from open_r1_vision.evaluate.items import Item, Metric, Record


@dataclass(frozen=True)
class Geo170K(Rows):
    """Rows that the reader of GeoQA's layout makes."""

    def read(self, path: str | Path | None) -> list[Item]:
        from open_r1_vision.data import geoqa

        return items_from_rows(geoqa.rows(path=str(self.source(path))), str(path))

    def metrics(self, items: Sequence[Item], records: Sequence[Record]) -> list[Metric]:
        return accuracy("geo170k_754_accuracy", items, collect_scores(self.name, items, records))


BENCHMARKS = (Geo170K("geo170k_754"),)
