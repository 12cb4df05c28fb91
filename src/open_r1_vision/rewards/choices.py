# SPDX-License-Identifier: Apache-2.0
"""When two texts name the same option of a multiple-choice question.

An option is named by its letter (`B`, `(B)`, `B.`), by letter and text (`B. cat`, `(B) cat`), or by its text, if
exactly one option of the problem has that text. A letter with the text of another option names none, nor do two
letters. A single letter is always read as a letter, also where an option's text is a single letter.

Without options in the problem, letters are compared with letters and texts with texts: `B. cat` equals `B` and `cat`.
"""

import re

from open_r1_vision.rewards.numbers import numbers_equal, parse_number
from open_r1_vision.rewards.text_scores import plain_text

_LETTER = re.compile(r"\(?([A-Za-z])[).:]{0,2}")
_LETTER_AND_TEXT = re.compile(r"(?:\(([A-Za-z])\)|([A-Za-z])[).:])\s*(.+)", re.DOTALL)
_SECOND_LETTER = re.compile(r"(?:^|\s)\(?[A-Z](?:[).:,]|$)")
_MARKER = r"(?:\(([A-Z])\)|([A-Z])[).:])[ \t]*"
#: Options on lines of their own are the surer sign, since a letter and a full stop may end a sentence.
_MARKERS = (re.compile(rf"^[ \t]*{_MARKER}", re.MULTILINE), re.compile(rf"(?<!\S){_MARKER}"))


def parse_options(problem: str) -> dict[str, str]:
    """The options in the text of a multiple-choice question.

    Options are marked `A.`, `A)`, `A:` or `(A)`, from A on without gaps, on lines of their own or in a row; of several
    lists the last one counts.

    Returns:
        Text by letter, or an empty dictionary when there are not at least two options.
    """
    return split_options(problem)[1]


def split_options(problem: str) -> tuple[str, dict[str, str], str]:
    """What stands before the options of a multiple-choice question, the options, and what stands behind them.

    The last option ends with its line. Without options (see :func:`parse_options`) all stands before.
    """
    for pattern in _MARKERS:
        runs: list[list[re.Match[str]]] = [[]]
        for marker in pattern.finditer(problem):
            letter = marker[1] or marker[2]
            if letter == "A":
                runs.append([marker])
            elif runs[-1] and ord(letter) == ord("A") + len(runs[-1]):
                runs[-1].append(marker)
        lists = [run for run in runs if len(run) > 1]
        if lists:
            run = lists[-1]
            ends = [*(marker.start() for marker in run[1:]), len(problem)]
            texts = [problem[marker.end() : end].strip() for marker, end in zip(run, ends, strict=True)]
            texts[-1], _, behind = texts[-1].partition("\n")
            options = {marker[1] or marker[2]: text.rstrip(" ,;") for marker, text in zip(run, texts, strict=True)}
            return problem[: run[0].start()], options, behind
    return problem, {}, ""


def is_letter(text: str) -> bool:
    """Whether the text is one letter, bare or marked as an option."""
    return _LETTER.fullmatch(text.strip()) is not None


def same_choice(answer: str, gold: str, options: dict[str, str]) -> bool:
    """Whether answer and gold name the same option.

    Args:
        options: text by letter, from `parse_options`; may be empty.
    """
    letter, text = _read_choice(answer, options)
    gold_letter, gold_text = _read_choice(gold, options)
    if letter and gold_letter:
        return letter == gold_letter and (not text or not gold_text or _same_text(text, gold_text))
    return not options and bool(text and gold_text) and _same_text(text, gold_text)


def _read_choice(answer: str, options: dict[str, str]) -> tuple[str, str]:
    """Letter and text of the option that is named; what is not known is empty."""
    answer = answer.strip()
    match = _LETTER.fullmatch(answer)
    if match:
        letter = match[1].upper()
        return (letter, options.get(letter, "")) if not options or letter in options else ("", "")
    letters = [letter for letter, text in options.items() if _same_text(answer, text)]
    if len(letters) == 1:
        return letters[0], options[letters[0]]
    match = _LETTER_AND_TEXT.fullmatch(answer)
    if match is None:
        return "", answer
    letter, text = (match[1] or match[2]).upper(), match[3]
    if options:
        return (letter, text) if letter in options and _same_text(text, options[letter]) else ("", "")
    return ("", "") if _SECOND_LETTER.search(text) else (letter, text)


def _same_text(first: str, second: str) -> bool:
    if plain_text(first) == plain_text(second):
        return True
    numbers = parse_number(first), parse_number(second)
    return numbers[0] is not None and numbers[1] is not None and numbers_equal(numbers[0], numbers[1])
