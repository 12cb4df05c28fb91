# SPDX-License-Identifier: Apache-2.0
"""How much of a completion repeats itself.

Perception-R1 (arXiv 2506.07218): r_p = (1 - unique / all) * p, where unique and all count the word n-grams of the
whole response, with n = 20 and p = -2. In (p, 0], added with weight 1; 0 for a response of fewer than n words. Never
None.

`repetition_reward` takes words, as the authors do: lower case, parted by blanks. Text in a language without blanks is
one word, and is never found to repeat itself: `token_repetition_reward` takes the tokens.
"""

from collections.abc import Sequence
from typing import Any

from open_r1_vision.rewards.answers import Completion, completion_text


def repetition_reward(
    completions: Sequence[Completion], *, ngram_size: int = 20, max_penalty: float = -2.0, **columns: Any
) -> list[float | None]:
    """Punish completions by the share of their word n-grams that occurred before.

    Args:
        completions: strings or TRL's message lists, one for each row.
        ngram_size: words of an n-gram; shorter completions get 0.
        max_penalty: what a completion that says one thing for ever comes close to; 0 or less.
        columns: further columns of the rows; not used.

    Returns:
        A penalty in (max_penalty, 0] for each completion.

    Raises:
        ValueError: n-grams of less than one word, or a penalty above 0.
    """
    _check(ngram_size, max_penalty)
    words = [completion_text(completion).lower().split() for completion in completions]
    return [_repeated_share(row, ngram_size) * max_penalty or 0.0 for row in words]


def token_repetition_reward(
    completion_ids: Sequence[Sequence[int]], *, ngram_size: int = 20, max_penalty: float = -2.0, **columns: Any
) -> list[float | None]:
    """The same for n-grams of tokens, by TRL's own `get_repetition_penalty_reward`.

    Args:
        completion_ids: the tokens of each completion, which TRL passes to every reward.
        ngram_size: tokens of an n-gram; a word is one to two of them.
        max_penalty: as for `repetition_reward`.
        columns: further columns of the rows; not used.

    Returns:
        A penalty in (max_penalty, 0] for each completion.

    Raises:
        ValueError: as for `repetition_reward`.
    """
    from trl.rewards import get_repetition_penalty_reward  # rewards import without TRL

    _check(ngram_size, max_penalty)
    return get_repetition_penalty_reward(ngram_size=ngram_size, max_penalty=max_penalty)(completion_ids)


def _repeated_share(words: Sequence[str], size: int) -> float:
    ngrams = [tuple(words[start : start + size]) for start in range(len(words) - size + 1)]
    return 1 - len(set(ngrams)) / len(ngrams) if ngrams else 0.0


def _check(ngram_size: int, max_penalty: float) -> None:
    if ngram_size < 1:
        raise ValueError(f"ngram_size is {ngram_size}, but an n-gram has at least one word: set it to 1 or more.")
    if not max_penalty <= 0:
        raise ValueError(f"max_penalty is {max_penalty}, which would reward repetition: set it to 0 or less.")
