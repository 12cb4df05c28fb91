# SPDX-License-Identifier: Apache-2.0
"""What an answer is, and how far it equals the gold answer: the one rule of all rewards, readers and evaluations.

| problem type | score of an answer | range |
|---|---|---|
| `number` | equal as numbers, see `numbers`; if the gold is no number, the same text | 0 or 1 |
| `choice` | the same option, named by its letter or its text, see `choices` | 0 or 1 |
| `text` | ANLS; equal as numbers if the gold is a bare number (the rule of Visionary-R1's authors) | 0, or (0.5, 1] |
| `free_form` | mean F1 of ROUGE-1, ROUGE-2 and ROUGE-L | [0, 1] |
| `math` | equal as mathematical expressions, see `math_answers` | 0 or 1 |

An empty answer earns nothing, an empty gold can't be met.
"""

import re
from collections.abc import Mapping, Sequence

from open_r1_vision.rewards.boxes import extract_boxed
from open_r1_vision.rewards.choices import is_letter, parse_options, same_choice
from open_r1_vision.rewards.headers import extract_final_answer
from open_r1_vision.rewards.math_answers import looks_like_math, same_expression
from open_r1_vision.rewards.numbers import asks_for_percentage, numbers_equal, parse_number
from open_r1_vision.rewards.tags import extract_last_section
from open_r1_vision.rewards.text_scores import anls, mean_rouge, plain_text

#: A string, or TRL's message list with `role` and `content`.
Completion = str | Sequence[Mapping]

PROBLEM_TYPES = ("number", "choice", "text", "free_form", "math")
#: Where a completion gives its answer: `<answer>...</answer>`, `\\boxed{...}` or `### The final answer is: ...`.
ANSWER_FORMS = ("tags", "boxed", "sections")
#: The problem types of Visionary-R1's published format. Its default branch is `number`: floats, else equal text.
PUBLISHED_TYPES = {"OCR": "text", "free-form": "free_form", "numerical": "number"}
#: Longer answers are runaway generations: they score 0 unless they are the gold itself.
MAX_ANSWER_CHARS = 8_000
#: Text that is compared as a number, as the authors do. 02139, 6/12 and 12 % are text: a code, a date, a label.
_PLAIN_NUMBER = re.compile(r"-?(?:0|[1-9]\d{0,14})(?:\.\d+)?", re.ASCII)


def completion_text(completion: Completion) -> str:
    """The text that the model wrote.

    Args:
        completion: a string, or a list of messages whose `content` is a string or a list of parts; parts other than
            `{"type": "text"}` and messages of other roles than the assistant's are left out.

    Raises:
        TypeError: neither of these.
    """
    if isinstance(completion, str):
        return completion
    texts: list[str] = []
    for message in completion:
        if not isinstance(message, Mapping):
            raise TypeError(f"A completion has to be a string or a list of messages, but got {completion!r:.200}.")
        content = message.get("content") or ""
        if message.get("role", "assistant") != "assistant":
            continue
        if isinstance(content, str):
            texts.append(content)
        else:
            texts.extend(part["text"] for part in content if part.get("type") == "text")
    return "\n".join(texts)


def extract_answer(text: str, form: str = "tags") -> str | None:
    r"""The answer that a text gives, without a `\boxed{}`, `\text{}`, `$` or `**` around the whole of it.

    Args:
        text: a completion.
        form: one of `ANSWER_FORMS`. `tags`: the content of the answer tag; it is the section that the text ends on,
            see `tags.extract_last_section`: of several answers the last one counts, and nested or unclosed ones are
            none. A box within it names the answer. `boxed`: the last `\boxed{}`, see `boxes.extract_boxed`.
            `sections`: the line after the last `### The final answer is:`, see `headers.extract_final_answer`; a box
            within it names the answer.

    Returns:
        The answer; None when there is none or it is empty.

    Raises:
        ValueError: an unknown form.
    """
    check_answer_form(form)
    if form == "boxed":
        return unwrap(extract_boxed(text) or "") or None
    section = extract_final_answer(text) if form == "sections" else extract_last_section(text, "answer")
    return unwrap(extract_boxed(section) or section) or None if section else None


def check_answer_form(form: str) -> None:
    """Refuse a form that is none of `ANSWER_FORMS`.

    Raises:
        ValueError: it is none.
    """
    if form not in ANSWER_FORMS:
        raise ValueError(f"answer_form is {form!r}: set it to one of {', '.join(ANSWER_FORMS)}.")


def score_answer(answer: str | None, gold: str, problem_type: str | None, *, problem: str | None = None) -> float:
    """Score one answer against the gold answer.

    Args:
        answer: the bare answer without tags; None scores 0.
        gold: the gold answer, plain or in answer tags; an empty one scores 0.
        problem_type: one of `PROBLEM_TYPES` or `PUBLISHED_TYPES`, or None to infer it, see `infer_problem_type`.
        problem: the question, for the options of a multiple-choice question and for "what percentage".

    Returns:
        A score in [0, 1].

    Raises:
        ValueError: an unknown problem type.
    """
    kind = PUBLISHED_TYPES.get(problem_type, problem_type) if problem_type is not None else None
    if kind is not None and kind not in PROBLEM_TYPES:
        raise ValueError(
            f"The problem type {problem_type!r} is not known. Set the column `problem_type` to one of "
            f"{', '.join([*PROBLEM_TYPES, *PUBLISHED_TYPES])}, or to None to infer it from the gold answer."
        )
    answer = unwrap(answer or "")
    gold = plain_gold(gold)
    if not plain_text(answer) or not plain_text(gold):
        return 0.0
    if len(answer) > MAX_ANSWER_CHARS:
        return float(answer == gold)
    return _score(answer, gold, kind or infer_problem_type(gold, problem), problem)


def score_answers(
    answers: Sequence[str | None],
    golds: Sequence[str | None],
    problem_types: Sequence[str | None],
    problems: Sequence[str | None] | None = None,
) -> list[float | None]:
    """`score_answer` for each row of a batch; None where the gold is None.

    Raises:
        ValueError: an unknown problem type, or columns of unequal length.
    """
    rows = zip(answers, golds, problem_types, problems or [None] * len(answers), strict=True)
    return [
        None if gold is None else score_answer(answer, gold, kind, problem=problem)
        for answer, gold, kind, problem in rows
    ]


def plain_gold(solution: str) -> str:
    """The bare gold answer of a solution column, which some data sets put in answer tags; may be empty."""
    return extract_answer(solution) or "" if "<answer>" in solution else unwrap(solution)


def gold_is_consistent(gold: str, problem_type: str | None, problem: str | None = None) -> bool:
    """Whether the gold answer earns full marks against itself.

    It does not when it is empty, when it is a choice that the problem does not offer, or when it has no words that
    ROUGE sees and is compared by ROUGE.
    """
    return score_answer(plain_gold(gold), gold, problem_type, problem=problem) == 1


def infer_problem_type(gold: str, problem: str | None = None) -> str:
    """The problem type that a gold answer suggests.

    In this order: `choice` for a single letter or the text of an option of the problem, `number` for a number,
    `math` for a text with mathematical signs, else `text`.
    """
    options = parse_options(problem or "")
    if is_letter(gold) or (options and same_choice(gold, gold, options)):
        return "choice"
    if parse_number(gold) is not None:
        return "number"
    return "math" if looks_like_math(gold) else "text"


def unwrap(text: str) -> str:
    r"""Strip whitespace and what encloses the whole text: `$…$`, `\(…\)`, `\boxed{…}`, `\text{…}`, `**…**`."""
    text = text.strip()
    for _ in range(4):  # `$\boxed{\text{cat}}$` has three; a bound keeps hostile nests linear
        inner = _unwrap_once(text)
        if inner is None:
            break
        text = inner.strip()
    return text


def _unwrap_once(text: str) -> str | None:
    for opening, closing in (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**")):
        inner = text[len(opening) : -len(closing)]
        if len(text) >= len(opening + closing) and text == opening + inner + closing and closing not in inner:
            return inner
    for opening in (r"\boxed{", r"\fbox{", r"\text{", r"\mathrm{", r"\textbf{"):
        if text.startswith(opening) and text.endswith("}"):
            inner = text[len(opening) : -1]
            return inner if _is_balanced(inner) else None
    return None


def _is_balanced(text: str) -> bool:
    depth = 0
    for character in text:
        depth += (character == "{") - (character == "}")
        if depth < 0:
            return False
    return depth == 0


def _score(answer: str, gold: str, kind: str, problem: str | None) -> float:
    if kind == "choice":
        return float(same_choice(answer, gold, parse_options(problem or "")))
    if kind == "math":
        return float(same_expression(answer, gold))
    if kind == "free_form":
        return mean_rouge(answer, gold)
    gold_number = parse_number(gold) if kind == "number" or _PLAIN_NUMBER.fullmatch(gold.strip()) else None
    if gold_number is not None:
        number = parse_number(answer)
        percentage = asks_for_percentage(problem or "")
        return float(number is not None and numbers_equal(number, gold_number, percentage=percentage))
    return float(plain_text(answer) == plain_text(gold)) if kind == "number" else anls(answer, gold)
