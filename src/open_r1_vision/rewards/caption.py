# SPDX-License-Identifier: Apache-2.0
r"""Whether a completion's caption suffices to answer the question.

Visionary-R1 (arXiv 2505.14677), section 3: r_caption = score(reader(caption, question), gold), by the same rule as the
accuracy reward; in [0, 1], added with weight 0.1. 0 for a missing caption and for one that the reader rejects because
it already reasons or answers. None for a row without a gold answer. RACRO (arXiv 2506.04559) trains with this reward
alone, read by a frozen text model; where that answers k times, the reward is the mean of the k scores.

Where nothing else is rewarded a policy may find that a solution serves the reader better than a description. Two
penalties, off by default, stand against it. RAPID, RACRO's second version: r = score - 0.1 if the score is above 0 and
the text contains no description. Ours, in the same way: where the text gives the answer away, see
:func:`announces_answer`.
"""

import re
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from open_r1_vision.rewards.answers import score_answers

#: A number, mathematics, or the letter of an option.
_VALUE = r"[\s\"'*$(]*(?:[-+−]?\.?\d|\\[a-z(]|[a-z]\w?\s*=|(?-i:[A-H])\b(?!\s+\w))"
_IS = r"[\s*]*(?:\b(?:is|are|equals?|(?:must|should|would|will|has to) be)\b|=|:)(?:\s+(?:therefore|thus|then|hence))?"
_OF = r"(?:\s+(?:to|of|for)\s+[^.\n]{1,80}?)?"
#: What an answer that is merely to be seen is: written, circled, left out.
_SEEN = (
    r"(?:[\s*]*(?:_|\.\.|…)|\W*$|['\"’”]|\s+(?:(?:not|also|already|\w{1,20}ly)\s+){0,3}(?:shown|written|given|drawn|seen"
    r"|hidden|known|unknown|blank|empty|missing|(?:in)?visible|(?:il)?legible|in|on|at|below|above|under|next|beside"
    r"|upside|\w{3,20}ed)\b)"
)
_ANNOUNCED = re.compile(
    r"\\(?:boxed|fbox)\s*\{|<answer>"
    rf"|\b(?:answer|(?:correct|right)\s+(?:option|choice))\b{_OF}{_IS}(?!{_SEEN})"
    rf"|\b(?:solution|result)\b{_OF}{_IS}{_VALUE}"
    r"|\bis\s+the\s+(?:correct|right|final)\s+(?:answer|option|choice)\b"
    r"|\b(?:option|choice)\s+\(?[A-H]\)?\s+is\s+(?:correct|right)\b"
    r"|(?:\b(?:therefore|thus|hence|consequently)\b|∴)[^.\n]{0,200}?(?:=|\b(?:is|are|equals?|be)\b)"
    # not: so small that it is, and so on, the lamp is off, so the room is dark
    r"|(?:^|[.;,:!?)\n]\s*|\b(?:and|then)\s+)so\b(?!\s+(?:that|far|much|many|on)\b)(?:[^.\n]|\.\d){0,200}?"
    rf"(?:=|\b(?:is|are|equals?|be)\b(?:\s+(?:only|just|about|exactly|equal|to)){{0,3}}(?=\s)){_VALUE}",
    re.IGNORECASE,
)


def caption_reward(
    caption_answer: Sequence[str | None | Sequence[str | None]],
    solution: Sequence[str | None],
    problem_type: Sequence[str | None],
    caption: Sequence[str | None] | None = None,
    has_description: Sequence[bool | None] | None = None,
    *,
    no_description_penalty: float = 0.0,
    given_away_penalty: float = 0.0,
    **columns: Any,
) -> list[float | None]:
    """Score what a reader answers from the captions alone.

    Args:
        caption_answer: the reader's answer for each completion, without tags, or a list of its k answers; None when
            there is no caption or it is not a description.
        solution: gold answers, plain or in answer tags.
        problem_type: as for `accuracy_reward`.
        caption: the captions; needed for `given_away_penalty`.
        has_description: whether each caption describes at all, from a trainer's `description_judge`; None where it
            failed. Needed for `no_description_penalty`.
        no_description_penalty: taken off a score above 0 where the caption does not describe; RAPID's is 0.1.
        given_away_penalty: taken off a score above 0 where the caption announces an answer.
        columns: further columns of the rows; `problem` holds the options of a multiple-choice question.

    Returns:
        A score in [0, 1] for each completion, less the penalties, but not below 0; None where the solution is None.

    Raises:
        ValueError: an unknown problem type, columns of unequal length, or a penalty whose column is not there.
    """
    _check_penalty("no_description_penalty", no_description_penalty, has_description, "set description_judge")
    _check_penalty("given_away_penalty", given_away_penalty, caption, "use CaptionGRPOTrainer")
    problems = columns.get("problem") or [None] * len(caption_answer)
    rewards: list[float | None] = []
    for index, (answers, *row) in enumerate(zip(caption_answer, solution, problem_type, problems, strict=True)):
        answers = [answers] if answers is None or isinstance(answers, str) else list(answers)
        scores = [
            score for score in score_answers(answers, *([value] * len(answers) for value in row)) if score is not None
        ]
        reward = fmean(scores) if scores else None
        if reward and has_description and has_description[index] is False:
            reward -= no_description_penalty
        if reward and caption and caption[index] and announces_answer(str(caption[index])):
            reward -= given_away_penalty
        rewards.append(None if reward is None else max(reward, 0.0))
    return rewards


def announces_answer(caption: str) -> bool:
    r"""Whether a text gives an answer, or draws a conclusion, as a description does not.

    It does where it holds a box or an answer tag, "the answer is …", "result: 12", "option B is correct",
    "therefore/thus/hence … is …" or "so … is 12". A rule for English. A number or an answer that merely is to be seen
    in the image ("the answer is written in blue ink") does not count.
    """
    return _ANNOUNCED.search(caption) is not None


def _check_penalty(name: str, penalty: float, column: Any, advice: str) -> None:
    if penalty < 0:
        raise ValueError(f"{name} is {penalty}, but it is taken off the reward: set it to 0 or above.")
    if penalty and column is None:
        raise ValueError(f"{name} is {penalty}, but nothing says where it applies: {advice}, or set {name} to 0.")
