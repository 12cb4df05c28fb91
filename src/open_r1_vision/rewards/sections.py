# SPDX-License-Identifier: Apache-2.0
"""Whether a completion keeps to the `###` headers that the prompt asks for.

PeBR-R1 (arXiv 2509.13031): r_format = 1 if the completion has the sections image description, rationales, steps and
final answer, else 0. Weight 0.1 in both stages. Never None.

The authors' code only wants the four headers to occur, in any order, with nothing in them; `check_order: false` is
that rule. By default they stand in order, each once and none empty, see `headers.has_sections_in_order`.
"""

from collections.abc import Sequence
from typing import Any

from open_r1_vision.rewards.answers import Completion, completion_text
from open_r1_vision.rewards.headers import has_headers_somewhere, has_sections_in_order


def sections_format_reward(
    completions: Sequence[Completion],
    response_start: Sequence[str] | None = None,
    *,
    check_order: bool = True,
    **columns: Any,
) -> list[float | None]:
    """Reward completions that consist of the headed sections.

    Args:
        completions: strings or TRL's message lists, one for each row.
        response_start: the text that each response was given to start with, see HintGRPOTrainer, which counts as its
            own; None for none.
        check_order: whether the sections have to be complete and in order; false for the authors' rule.
        columns: further columns of the rows; not used.

    Returns:
        1.0 or 0.0 for each completion.
    """
    texts = [completion_text(completion) for completion in completions]
    if response_start is not None:
        texts = [start + text for start, text in zip(response_start, texts, strict=True)]
    rule = has_sections_in_order if check_order else has_headers_somewhere
    return [float(rule(text)) for text in texts]
