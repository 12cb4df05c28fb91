# SPDX-License-Identifier: Apache-2.0
"""Whether a completion's caption suffices to answer the question.

Visionary-R1 (arXiv 2505.14677), section 3: r_caption = score(reader(caption, question), gold), by the same rule as the
accuracy reward; in [0, 1], added with weight 0.1. 0 for a missing caption and for one that the reader rejects because
it already reasons or answers. None for a row without a gold answer.
"""

from collections.abc import Sequence
from typing import Any

from open_r1_vision.rewards.answers import score_answers


def caption_reward(
    caption_answer: Sequence[str | None],
    solution: Sequence[str | None],
    problem_type: Sequence[str | None],
    **columns: Any,
) -> list[float | None]:
    """Score what a reader answers from the captions alone.

    Args:
        caption_answer: the reader's answer for each completion, without tags; None when there is no caption or it is
            not a description.
        solution: gold answers, plain or in answer tags.
        problem_type: as for `accuracy_reward`.
        columns: further columns of the rows; `problem` holds the options of a multiple-choice question.

    Returns:
        A score in [0, 1] for each completion; None where the solution is None.

    Raises:
        ValueError: an unknown problem type, or columns of unequal length.
    """
    return score_answers(caption_answer, solution, problem_type, columns.get("problem"))
