# SPDX-License-Identifier: Apache-2.0
"""EMMA (Hao et al., arXiv 2501.05444): options or short answers in four subjects, images in the text; `emma_micro`.

`emma` asks for the answer alone, `emma_cot` for reasoning first; the wording is ours. Ours: open answers are compared
by the rewards' rule where VLMEvalKit asks a judge for yes or no.
"""

from dataclasses import dataclass

from open_r1_vision.evaluate.benchmarks.base import TableBenchmark, field_text, option_lines
from open_r1_vision.evaluate.items import Item
from open_r1_vision.evaluate.sources import Row

_CHOOSE = "Give the letter of the right option."
_SHORT = "Answer with a single word or a short phrase."
_DIRECT = "Reply with the final answer alone, without any reasoning."
_COT = "Solve the problem step by step."


@dataclass(frozen=True)
class EMMA(TableBenchmark):
    """`type` says whether an item has options; a context may come before the question."""

    cot: bool = False

    def build(self, row: Row) -> Item:
        item = super().build(row)
        if _is_choice(item) and len(item.options) < 2:
            raise ValueError(
                f"{row.place}: 'type' is {field_text(item, 'type')!r}, but there are {len(item.options)} options. "
                "Give options in the columns A, B, C and so on."
            )
        return item

    def prompt(self, item: Item) -> str:
        return f"{self.problem(item)}\n\n{_CHOOSE if item.options else _SHORT} {_COT if self.cot else _DIRECT}"

    def problem(self, item: Item) -> str:
        options = option_lines(item, ":") if item.options else ""
        return "\n\n".join(part for part in (field_text(item, "context"), item.question, options) if part)


def _is_choice(item: Item) -> bool:
    return field_text(item, "type").lower() in ("mcq", "multiple choice", "multiple-choice")


_PARTS = ("subject", "category")
BENCHMARKS = (
    EMMA("emma", kit_names=("EMMA",), parts=_PARTS),
    EMMA("emma_cot", family="emma", kit_names=("EMMA_COT",), parts=_PARTS, cot=True),
)
