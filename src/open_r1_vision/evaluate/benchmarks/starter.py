# SPDX-License-Identifier: Apache-2.0
"""The starter's held-out pages, drawn on the spot: `starter_digits_accuracy`, `starter_figures_accuracy`.

There is no data file. In place of a path the number of pages may be given; 512 is the default, the pages of
`eval/starter.py`. The benchmark's prompt is that of the starter's recipes.
"""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from open_r1_vision.evaluate.benchmarks.aggregate import accuracy, collect_scores
from open_r1_vision.evaluate.benchmarks.rows import Rows, items_from_rows
from open_r1_vision.evaluate.items import Item, Metric, Record
from open_r1_vision.prompts import load_prompt

COUNT = 512


@dataclass(frozen=True)
class Starter(Rows):
    """A task of the starter, on pages of its split `test`."""

    needs_file: bool = False

    def read(self, path: str | Path | None = None) -> list[Item]:
        if path is not None and not str(path).isdigit():
            raise ValueError(
                f"{self.name} draws its pages and reads no file, but {str(path)!r} was given: leave the path out, or "
                "give the number of pages."
            )
        task = importlib.import_module(f"open_r1_vision.starter.{self.name.removeprefix('starter_')}")
        return items_from_rows(task.rows("test", COUNT if path is None else int(str(path))), self.name)

    def messages(
        self, item: Item, style: str, *, system_prompt: str | None = None, user_prompt: str | None = None
    ) -> list[dict]:
        if style == "benchmark" and system_prompt is None:
            system_prompt = load_prompt("starter")
        return super().messages(item, style, system_prompt=system_prompt, user_prompt=user_prompt)

    def metrics(self, items: Sequence[Item], records: Sequence[Record]) -> list[Metric]:
        return accuracy(f"{self.name}_accuracy", items, collect_scores(self.name, items, records))


BENCHMARKS = (Starter("starter_digits"), Starter("starter_figures"))
