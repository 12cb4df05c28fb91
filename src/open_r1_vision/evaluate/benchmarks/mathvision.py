# SPDX-License-Identifier: Apache-2.0
"""MathVision (Wang et al., arXiv 2402.14804): 3,040 items (`MathVision`) or 304 (`_MINI`); `mathvision_micro`.

Options are named by letter or text. Free answers are right where they equal the gold as expressions by the rewards'
rule; VLMEvalKit evaluates both as Python and as LaTeX to 1e-6, and asks a judge to extract first.
"""

from dataclasses import dataclass

from open_r1_vision.evaluate.benchmarks.base import TableBenchmark, option_lines
from open_r1_vision.evaluate.items import Item


@dataclass(frozen=True)
class MathVision(TableBenchmark):
    """Choices stand in a list; VLMEvalKit asks with the question alone, the data set's choices come behind it."""

    def prompt(self, item: Item) -> str:
        if not item.options or _offers(item):
            return item.question
        return f"{item.question}\n{option_lines(item)}"

    def problem(self, item: Item) -> str:
        return self.prompt(item)


def _offers(item: Item) -> bool:
    """Whether the question names its choices already."""
    return "choices:" in item.question.lower() or all(f"({letter})" in item.question for letter in item.options)


BENCHMARKS = (
    MathVision(
        "mathvision",
        kit_names=("MathVision", "MathVision_MINI"),
        splits=("test", "testmini"),
        parts=("category", "subject", "level"),
    ),
)
