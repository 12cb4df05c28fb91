# SPDX-License-Identifier: Apache-2.0
"""Whether a completion keeps to the sections that the prompt asks for.

Visionary-R1 (arXiv 2505.14677), section 3: r_format = 1 if the whole completion is
`<info>…</info> <think>…</think> <answer>…</answer>`, else 0. Never None.

The authors' pattern wants exactly one whitespace character after `</info>`, any number before `<answer>`, and lets
empty sections and repeated tags pass. Here any whitespace, or none, may stand between the sections and around them,
every tag occurs once and no section is empty.
"""

from collections.abc import Sequence
from typing import Any

from open_r1_vision.rewards.answers import Completion, completion_text
from open_r1_vision.rewards.tags import is_sequence_of_sections


def format_reward(
    completions: Sequence[Completion],
    response_start: Sequence[str] | None = None,
    *,
    sections: Sequence[str] = ("info", "think", "answer"),
    **columns: Any,
) -> list[float | None]:
    """Reward completions that consist of the given sections and nothing else.

    Args:
        completions: strings or TRL's message lists, one for each row.
        response_start: the text that each response was given to start with, see HintGRPOTrainer, which counts as its
            own; None for none.
        sections: the tags in order; `("think", "answer")` is the format of R1.
        columns: further columns of the rows; not used.

    Returns:
        1.0 or 0.0 for each completion.
    """
    tags = tuple(sections)
    texts = [completion_text(completion) for completion in completions]
    if response_start is not None:
        texts = [start + text for start, text in zip(response_start, texts, strict=True)]
    return [float(is_sequence_of_sections(text, tags)) for text in texts]
