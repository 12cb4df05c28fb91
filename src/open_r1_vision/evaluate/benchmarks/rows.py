# SPDX-License-Identifier: Apache-2.0
"""Any data set in the row schema (`data/rows.py`): `rows_mean` is the mean score by its own `problem_type`.

The score is the reward's: 0 or 1, graded for `text` and `free_form`. Everything that `dataset` in a recipe may be can
be read, with `::` and a split behind it; `test` is the default.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from open_r1_vision.evaluate.benchmarks.aggregate import accuracy, accuracy_by, collect_scores
from open_r1_vision.evaluate.benchmarks.base import TableBenchmark, cluster_by_source, kinds_by, refuse_equal_indices
from open_r1_vision.evaluate.items import Item, Metric, Record
from open_r1_vision.evaluate.sources import SPLIT_MARK
from open_r1_vision.evaluate.stored_images import from_value
from open_r1_vision.rewards.answers import score_answer


@dataclass(frozen=True)
class Rows(TableBenchmark):
    """Rows as training has them; the question holds the options where there are any."""

    def read(self, path: str | Path | None) -> list[Item]:
        from open_r1_vision.data.loading import load_rows

        name, _, split = str(self.source(path)).partition(SPLIT_MARK)
        return items_from_rows(load_rows(name, split or "test"), name)

    def has_option_columns(self, item: Item) -> bool:
        return False

    def score(self, item: Item, answer: str | None) -> float | None:
        if item.answer is None:
            return None
        return score_answer(answer, item.answer, item.fields["problem_type"], problem=item.question)

    def metrics(self, items: Sequence[Item], records: Sequence[Record]) -> list[Metric]:
        scores = collect_scores(self.name, items, records)
        prefix = self.family or self.name
        parts = accuracy_by(f"{prefix}_mean_source", items, scores, kinds_by("source"))
        return accuracy(f"{prefix}_mean", items, scores) + (parts if len(parts) > 1 else [])


def items_from_rows(dataset: Any, name: str) -> list[Item]:
    """The items of a data set in the row schema; its images stay encoded until they are needed.

    Raises:
        ValueError: two rows have one id, or something is no image.
    """
    from datasets import Image, List

    items = []
    for number, row in enumerate(dataset.cast_column("images", List(Image(decode=False)))):
        place = f"{name!r}, row {number + 1} (id {row['id']})"
        items.append(
            Item(
                index=row["id"],
                question=row["problem"],
                images=tuple(from_value(image, Path("."), place) for image in row["images"]),
                answer=row["solution"] or None,
                fields={key: value for key, value in row.items() if key != "images"},
            )
        )
    refuse_equal_indices(items, name)
    return cluster_by_source(items)


BENCHMARKS = (Rows("rows"),)
