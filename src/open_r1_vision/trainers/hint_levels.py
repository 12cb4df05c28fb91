# SPDX-License-Identifier: Apache-2.0
"""How much of the reference reasoning each hint level gives, and which level of a group is trained.

Hint-GRPO (arXiv 2503.23905): of M levels, level m gives the first floor(L * m / M) of L steps. The group of
completions that is trained is the one with the fewest steps that holds a correct completion; where no level holds one
it is the first that was sampled, without signal as it is.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Rung:
    """A hint level of one row.

    Attributes:
        level: m, in 0..M-1.
        num_steps: steps of the reference reasoning that it gives.
    """

    level: int
    num_steps: int


def ladder(num_steps: int, num_levels: int, max_share: float | None = None) -> list[Rung]:
    """The distinct levels of a row, the least hint first.

    Levels that would give as many steps as the one before are left out, so a row without steps has level 0 alone.

    Args:
        num_steps: L, the steps of the reference reasoning.
        num_levels: M, at least 1.
        max_share: share of the steps that the last level gives, in (0, 1]; (M - 1) / M if None, the paper's.
    """
    rungs = [Rung(0, 0)]
    for level in range(1, num_levels):
        if max_share is None:
            given = num_steps * level // num_levels
        else:
            # without the small addition 10 * 0.7 * 1 / 1 would be 6
            given = math.floor(num_steps * max_share * level / (num_levels - 1) + 1e-9)
        if given > rungs[-1].num_steps:
            rungs.append(Rung(level, given))
    return rungs


def is_solved(scores: Sequence[float | None], threshold: float) -> bool:
    """Whether a group needs no more hints: one score exceeds the threshold, or none of them could be judged."""
    judged = [score for score in scores if score is not None]
    return not judged or max(judged) > threshold


def has_signal(scores: Sequence[float | None]) -> bool:
    """Whether a group's scores differ, without which its advantages are all 0."""
    return len({score for score in scores if score is not None}) > 1


def choose(solved: Sequence[bool]) -> int:
    """Which of the sampled rungs is trained, given for each whether its group is solved."""
    return next((index for index, value in enumerate(solved) if value), 0)
