# SPDX-License-Identifier: Apache-2.0
r"""Visual facts, and whether a text states them: the judge by rule, which needs no model.

A fact is a short statement about the image, such as `AB = 3` or `the circle is red`. Texts are compared word by word,
case folded: a word is a run of letters and digits with the points, commas, hyphens and apostrophes inside it (`3.5`,
`1,234`, `left-hand`), each other character is one for itself, and each Chinese character too. Not compared are blanks,
`$` and other marks of LaTeX's mathematics and spacing, bold, list marks, and punctuation at a fact's ends.

| match | a text states a fact when |
|---|---|
| `words` | the fact's words occur in it in a row, not across a tag, and not as a part of a term: `AB = 3/4` is not 3 |
| `statement` | they do, between two of its separators: tags, newlines, `; , . ! ? :`, and its ends |

A rule sees words and not what they mean: "no red circle" states `red circle` by `words`, and a text that lists
everything states everything. `statement` suits facts that the policy is taught to write as such; for prose ask a
judge, see `reasoners/facts.py`. Every function runs in time linear in the text.
"""

import re
from collections.abc import Sequence

MATCHES = ("words", "statement")

_TAG = re.compile(r"</?[a-z][\w-]*\s*>")
_LIST_MARK = re.compile(r"^[ \t]*[-*+•][ \t]+", re.MULTILINE)
_UNSEEN = re.compile(r"\\[,;:! ()\[\]]|\\(?:q?quad|left|right)(?![a-z])|\\?\$|\*\*|`")
_CHINESE = re.compile(r"([\u3040-\u30ff\u3400-\u9fff])")
_WORD = re.compile(r"\\[a-z]+|(?<!\w)\.\d\w*|\w+(?:(?<=\d)\.\d\w*|(?<=\d),\d{3}(?!\d)|[-'’]\w+)*|\S")
#: One character for each tag and each newline of a text.
_TAG_MARK, _LINE_MARK = "\ue000", "\ue001"
_SEPARATORS = frozenset(";,.!?:；，。！？：、") | {_TAG_MARK, _LINE_MARK}
_AT_ENDS = _SEPARATORS | frozenset("\"'“”‘’")
#: Next to a number or a name, these make it a part of another term.
_JOINTS = frozenset(("/", "^", "×", "·", "√", "\\cdot", "\\times", "\\frac", "\\sqrt", "\\pi"))


def clean_facts(facts: Sequence[str] | None) -> list[str]:
    """The facts, stripped, without empty ones and without those that have the same words as an earlier one.

    Raises:
        ValueError: they are not a list of strings.
    """
    if isinstance(facts, str) or not all(isinstance(fact, str) for fact in facts or ()):
        raise ValueError(
            f"The visual facts of a row are {facts!r:.100}, which can't be counted: give a list of strings, one for "
            "each fact, or None."
        )
    kept: dict[str, str] = {}
    for fact in facts or ():
        words = _fact_words(fact)
        if words:
            kept.setdefault(" ".join(words), fact.strip())
    return list(kept.values())


def is_in_question(fact: str, problem: str) -> bool:
    """Whether the question states the fact already, by `words`, so that stating it again shows nothing."""
    return states(problem, fact, "words")


def facts_to_state(facts: Sequence[str] | None, problem: str | None) -> list[str]:
    """The clean facts that do not stand in the question; all of them without a question.

    Raises:
        ValueError: as `clean_facts`.
    """
    cleaned = clean_facts(facts)
    known = rule_verdicts(problem or "", cleaned, "words")
    return [fact for fact, is_known in zip(cleaned, known, strict=True) if not is_known]


def states(text: str, fact: str, match: str) -> bool:
    """Whether the text states the fact.

    Args:
        text: a completion, or a part of one.
        fact: one fact; an empty one is never stated.
        match: `words` or `statement`, see the module.

    Raises:
        ValueError: an unknown match.
    """
    return rule_verdicts(text, [fact], match) == [1]


def rule_verdicts(text: str, facts: Sequence[str], match: str) -> list[int]:
    """1 for each fact that the text states, 0 for each other.

    Raises:
        ValueError: an unknown match.
    """
    check_match(match)
    row = f" {' '.join(_words(text, keep_lines=match == 'statement'))} "
    return [int(_stands_in(row, _fact_words(fact), match)) for fact in facts]


def check_match(match: str) -> None:
    """Refuse a match that is none of `MATCHES`.

    Raises:
        ValueError: it is none.
    """
    if match not in MATCHES:
        raise ValueError(f"match is {match!r}, which is no rule for facts: set it to {' or '.join(MATCHES)}.")


def _words(text: str, keep_lines: bool = False) -> list[str]:
    text = text.casefold().replace(_TAG_MARK, " ").replace(_LINE_MARK, " ")
    text = _TAG.sub(f" {_TAG_MARK} ", _LIST_MARK.sub("", text))
    if keep_lines:
        text = text.replace("\n", f" {_LINE_MARK} ")
    return _WORD.findall(_CHINESE.sub(r" \1 ", _UNSEEN.sub(" ", text)))


def _fact_words(fact: str) -> list[str]:
    words = _words(fact)
    while words and words[-1] in _AT_ENDS:
        words.pop()
    start = next((index for index, word in enumerate(words) if word not in _AT_ENDS), 0)
    return words[start:]


def _stands_in(row: str, words: list[str], match: str) -> bool:
    """Whether the words stand in a row of words, each with a blank on either side, with the right neighbours."""
    wanted = f" {' '.join(words)} "
    place = row.find(wanted) if words else -1
    while place >= 0:
        end = place + len(wanted) - 1
        before = row[row.rfind(" ", 0, place) + 1 : place]
        after = row[end + 1 : row.find(" ", end + 1)]
        if match == "words" and not _JOINTS.intersection((before, after)):
            return True
        if match == "statement" and all(not word or word in _SEPARATORS for word in (before, after)):
            return True
        place = row.find(wanted, place + 1)
    return False
