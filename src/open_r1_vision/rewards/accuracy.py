# SPDX-License-Identifier: Apache-2.0
"""Whether a completion's answer equals the gold answer.

Visionary-R1 (arXiv 2505.14677), section 3: r_accuracy = score(answer, gold), where the answer is the content of the
`<answer>` tag and `score` depends on the row's problem type. In [0, 1]: 0 or 1 for `number`, `choice` and `math`,
graded for `text` and `free_form`. None for a row without a gold answer. Text outside the tag never counts. RACRO
(arXiv 2506.04559) asks for the answer in a box instead of a tag: `answer_form: boxed`; PeBR-R1 (arXiv 2509.13031)
after a header: `answer_form: sections`.
"""

from collections.abc import Sequence
from typing import Any

from open_r1_vision.rewards.answers import Completion, completion_text, extract_answer, score_answers


def accuracy_reward(
    completions: Sequence[Completion],
    solution: Sequence[str | None],
    problem_type: Sequence[str | None],
    *,
    answer_form: str = "tags",
    **columns: Any,
) -> list[float | None]:
    """Score the answers of completions against their gold answers.

    Args:
        completions: strings or TRL's message lists, one for each row.
        solution: gold answers, plain or in answer tags.
        problem_type: one of `answers.PROBLEM_TYPES` for each row, or None to infer it from the gold answer.
        answer_form: `tags` for `<answer>…</answer>`, `boxed` for the last `\\boxed{…}`, `sections` for
            `### The final answer is: …`.
        columns: further columns of the rows; `problem` holds the options of a multiple-choice question.

    Returns:
        A score in [0, 1] for each completion; None where the solution is None.

    Raises:
        ValueError: an unknown problem type, or columns of unequal length.
    """
    answers = [extract_answer(completion_text(completion), answer_form) for completion in completions]
    return score_answers(answers, solution, problem_type, columns.get("problem"))
