# SPDX-License-Identifier: Apache-2.0
"""Which share of the facts that a question turns on a response states.

Perception-R1 (arXiv 2506.07218): r_v = sum_j o_j / m, where o_j is 1 if the response states fact j of m, else 0. In
[0, 1], added with weight 0.7. None for a row without facts, or whose facts all stand in the question. A judge decides
(`fact_verdicts`); without one the rule of `facts.py` does, which can't see that a response contradicts itself: of
"AB = 3. No, AB = 5" it has `AB = 3` stated.

Four defects of the authors' code are not shared. They divide by the verdicts that could be read, so that a judge that
gives one of six makes 1; here m is the number of facts. They take the verdict NaN for 1 and 0.6 for 0.6; here only
the integer 1 counts. They skip the later verdicts after one that is missing, and count those that nobody asked for.
They pay for facts that the question states.
"""

from collections.abc import Sequence
from typing import Any

from open_r1_vision.rewards.answers import Completion, completion_text
from open_r1_vision.rewards.facts import check_match, clean_facts, facts_to_state, rule_verdicts
from open_r1_vision.rewards.tags import extract_section


def visual_facts_reward(
    completions: Sequence[Completion],
    visual_facts: Sequence[Sequence[str] | None],
    problem: Sequence[str | None] | None = None,
    fact_verdicts: Sequence[Sequence[int] | None] | None = None,
    response_start: Sequence[str] | None = None,
    *,
    leave_out_question: bool = True,
    match: str = "words",
    section: str | None = None,
    **columns: Any,
) -> list[float | None]:
    """Reward completions by the share of their row's facts that they state.

    Args:
        completions: strings or TRL's message lists, one for each row.
        visual_facts: the facts of each row; None or empty where there are none.
        problem: the questions, for `leave_out_question`; None for none.
        fact_verdicts: what a judge said of each completion, 0 or 1 for each fact of `facts.clean_facts`, or for each
            that `leave_out_question` leaves, in order. Missing ones count 0, further ones nothing, and so does
            whatever is not the integer 1. None where the judge failed: such a completion gets 0 here, and the
            trainer that knows of the failure replaces it, see `reasoners/failures.py`. By default the rule judges.
        response_start: the text that each response was given to start with, see HintGRPOTrainer. What it states is
            not the model's doing, and does not count.
        leave_out_question: whether facts that stand in the question are left out.
        match: how the rule judges, `words` or `statement`, see `facts.py`.
        section: the tag that a fact has to stand in to count, such as `info`; None for the whole response. It is for
            the rule: a judge is shown what its trainer gives it.
        columns: further columns of the rows; not used.

    Returns:
        A share in [0, 1] for each completion; None where no facts are left, or the judge failed.

    Raises:
        ValueError: an unknown match, facts that are not a list of strings, or columns of unequal length.
    """
    check_match(match)
    count = len(completions)
    problems = problem if problem is not None and leave_out_question else [None] * count
    starts = response_start if response_start is not None else [""] * count
    judged = fact_verdicts if fact_verdicts is not None else [None] * count
    rewards: list[float | None] = []
    for completion, facts, question, start, verdicts in zip(
        completions, visual_facts, problems, starts, judged, strict=True
    ):
        given = clean_facts(facts)
        wanted = facts_to_state(given, question)
        if not wanted:
            rewards.append(None)
            continue
        if fact_verdicts is None:
            text = completion_text(completion)
            verdicts = rule_verdicts(_own_section(text, start, section) if section else text, wanted, match)
        elif isinstance(verdicts, (list, tuple)) and len(verdicts) == len(given):
            verdicts = [verdict for verdict, fact in zip(verdicts, given, strict=True) if fact in wanted]
        failed = fact_verdicts is not None and verdicts is None
        rewards.append(None if failed else _count_stated(verdicts, len(wanted)) / len(wanted))
    return rewards


def _count_stated(verdicts: Any, count: int) -> int:
    if not isinstance(verdicts, (list, tuple)):
        return 0
    # True == 1.0 == 1, but only the integer is a verdict
    return sum(type(verdict) is int and verdict == 1 for verdict in verdicts[:count])


def _own_section(text: str, start: str, section: str) -> str:
    """What the model itself wrote in the first section of the tag; the text's start may have opened or ended it."""
    _, opening, given = start.partition(f"<{section}>")
    if f"</{section}>" in given:
        return ""
    return extract_section(opening + text, section) or ""
