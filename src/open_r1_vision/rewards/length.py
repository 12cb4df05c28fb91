# SPDX-License-Identifier: Apache-2.0
"""Whether a completion stays within a number of tokens.

PeBR-R1 (arXiv 2509.13031): r_length = 1 if L <= 512, else 512 / L, with L the tokens of the completion, its end
included. In (0, 1], weight 0.1 in the perception stage. Never None.

A hint that a completion was given (HintGRPOTrainer) is not among its tokens.
"""

from collections.abc import Sequence
from typing import Any


def length_reward(completion_ids: Sequence[Sequence[int]], *, limit: int = 512, **columns: Any) -> list[float | None]:
    """Reward completions of up to `limit` tokens, and longer ones the less the longer they are.

    Args:
        completion_ids: the tokens of each completion, which TRL passes to every reward.
        limit: the most tokens that still earn 1.
        columns: further columns of the rows; not used.

    Returns:
        A number in (0, 1] for each completion.

    Raises:
        ValueError: a limit below 1.
    """
    if limit < 1:
        raise ValueError(f"limit is {limit}, which no completion could keep to: set it to 1 token or more.")
    return [limit / max(len(ids), limit) for ids in completion_ids]
