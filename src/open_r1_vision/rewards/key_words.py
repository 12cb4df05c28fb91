# SPDX-License-Identifier: Apache-2.0
"""Which share of a row's key words a completion names.

PeBR-R1 (arXiv 2509.13031): r_key = k / K, where k of the K key words occur. In [0, 1], weight 0.4 in the perception
stage. None for a row without key words.

| option | default, the paper's figure | authors' code |
|---|---|---|
| `where` | `description`: in what the completion says of its image | `response`: anywhere in it |
| `whole_words` | true: `3` is not named by `13`, nor `cat` by `category` | false: as a lower-cased part of the text |

The authors' choice can be earned by a list of words at the end of the reasoning. Whole words are those of
`rewards/facts.py`: case folded, not across a tag, and not a part of a term (`AB = 3/4` does not name `3`); another
form of a word is another word. Where there are no key words, the authors' code gives 0.
"""

from collections.abc import Sequence
from typing import Any

from open_r1_vision.rewards.answers import Completion, completion_text
from open_r1_vision.rewards.facts import rule_verdicts
from open_r1_vision.rewards.headers import check_description_form, extract_description

PLACES = ("description", "response")


def key_words_reward(
    completions: Sequence[Completion],
    key_words: Sequence[Sequence[str] | None],
    *,
    where: str = "description",
    whole_words: bool = True,
    description_form: str = "sections",
    **columns: Any,
) -> list[float | None]:
    """Reward completions by the share of their row's key words that they name.

    Args:
        completions: strings or TRL's message lists, one for each row.
        key_words: the key words of each row; None or empty where there are none. One may have several words. Those
            that differ by case alone count once.
        where: `description` or `response`, see the module.
        whole_words: whether a part of a word does not count, see the module.
        description_form: where the description stands, see `headers.extract_description`.
        columns: further columns of the rows; `id` is used in messages.

    Returns:
        A share in [0, 1] for each completion, 0.0 where the description is missing; None for a row without key words.

    Raises:
        ValueError: an unknown option, or key words that are not a list of strings.
    """
    if where not in PLACES:
        raise ValueError(f"where is {where!r}: set it to {' or '.join(PLACES)}.")
    check_description_form(description_form)
    ids = columns.get("id") or range(len(completions))
    rewards: list[float | None] = []
    for completion, listed, row_id in zip(completions, key_words, ids, strict=True):
        wanted = clean_key_words(listed, row_id)
        if not wanted:
            rewards.append(None)
            continue
        text = completion_text(completion)
        searched = text if where == "response" else extract_description(text, description_form) or ""
        if whole_words:
            named = sum(rule_verdicts(searched, wanted, "words"))
        else:
            named = sum(word.lower() in searched.lower() for word in wanted)
        rewards.append(named / len(wanted))
    return rewards


def clean_key_words(key_words: Sequence[str] | None, row_id: Any) -> list[str]:
    """The key words, stripped, without empty ones and those that another differs from by case alone.

    Raises:
        ValueError: they are not a list of strings.
    """
    if isinstance(key_words, str) or not all(isinstance(word, str) for word in key_words or ()):
        raise ValueError(
            f"The key words of row {row_id!r} are {key_words!r:.100}, which can't be looked for: give a list of "
            "strings, or None."
        )
    kept = {word.strip().casefold(): word.strip() for word in reversed(key_words or ())}
    return [word for word in reversed(kept.values()) if word]
