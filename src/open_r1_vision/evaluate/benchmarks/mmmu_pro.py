# SPDX-License-Identifier: Apache-2.0
"""MMMU-Pro (Yue et al., arXiv 2409.02813): ten options (`mmmu_pro_10c`), or all in the image (`_vision`).

`_cot` asks to reason and to end with a line `Answer: ` and the letter, without it for the letter alone; the wording is
ours. The paper's overall figure is the mean of both settings: run both and take it from their first metrics.
"""

from dataclasses import dataclass, replace

from open_r1_vision.evaluate.benchmarks.base import TableBenchmark, option_lines
from open_r1_vision.evaluate.items import Item
from open_r1_vision.evaluate.sources import Row

_DIRECT = "Reply with the letter of the right option alone."
_COT = "Think step by step. End with a line of the form 'Answer: X', where X is the letter of the right option."
_LETTERS = dict.fromkeys("ABCDEFGHIJ", "")
_IN_IMAGE = "The image holds a question and its options. Answer it."


@dataclass(frozen=True)
class MMMUPro(TableBenchmark):
    """Two settings, each asked directly or for reasoning."""

    vision: bool = False
    cot: bool = False

    def question(self, row: Row) -> str:
        return row.text("question") or _IN_IMAGE if self.vision else super().question(row)

    def build(self, row: Row) -> Item:
        item = super().build(row)
        if self.vision and not item.options and item.answer in _LETTERS:
            return replace(item, options=_LETTERS)  # their texts are in the image
        return item

    def prompt(self, item: Item) -> str:
        return f"{self.problem(item)}\n{_COT if self.cot else _DIRECT}"

    def problem(self, item: Item) -> str:
        return _IN_IMAGE if self.vision else f"{item.question}\n{option_lines(item)}"


def _benchmark(setting: str, kit_name: str, cot: bool) -> MMMUPro:
    return MMMUPro(
        f"mmmu_pro_{setting}{'_cot' if cot else ''}",
        family=f"mmmu_pro_{setting}",
        kit_names=(f"{kit_name}{'_COT' if cot else ''}",),
        choices_only=True,
        parts=("subject", "category"),
        vision=setting == "vision",
        cot=cot,
    )


BENCHMARKS = tuple(
    _benchmark(setting, kit_name, cot)
    for setting, kit_name in (("10c", "MMMU_Pro_10c"), ("vision", "MMMU_Pro_V"))
    for cot in (False, True)
)
