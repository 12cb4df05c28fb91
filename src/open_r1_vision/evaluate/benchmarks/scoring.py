# SPDX-License-Identifier: Apache-2.0
"""How right an answer is: the rule of the rewards, all or nothing."""

from open_r1_vision.rewards.answers import infer_problem_type, score_answer


def same_answer(answer: str | None, gold: str, question: str = "", problem_type: str | None = None) -> float:
    """1.0 where an answer equals the gold answer by the rewards' rule, else 0.0.

    Args:
        answer: None scores 0.
        gold: the gold answer.
        question: for "what percentage".
        problem_type: see `rewards.answers`; by default what the gold suggests, words being compared as they are, not
            by their distance.
    """
    kind = problem_type or infer_problem_type(gold)
    return float(score_answer(answer, gold, "number" if kind == "text" else kind, problem=question) >= 1)
