# SPDX-License-Identifier: Apache-2.0
r"""The answer that a reply gives, and the name of the rule that found it.

The forms that rewards know come first, and the rewards' own rule reads them (`rewards/answers.py`). A reply that uses
one of them is read by that one alone: an answer tag that is left open is no answer, whatever else the reply says.

| rule | what it takes |
|---|---|
| `tags` | `<answer>…</answer>` |
| `sections` | the line after `### The final answer is:` |
| `boxed` | the last `\boxed{…}` |
| `answer_line` | the rest of the last line that starts with `Answer:` |
| `answer_phrase` | in the last line, what follows "answer is", up to the end of the sentence |
| `whole` | the whole reply, where it is one line of at most 200 characters |

Where an item has options, the option is named in what the rule took, or the reply shows it in one of two more ways:
`option_letter`, `option_text`, see :func:`infer_option`. Where nothing fits there is no answer, rule `none`:
nothing is ever guessed. Text before `</think>` is a draft, and a reply that ends within its thinking has no answer.
"""

import re
from collections.abc import Mapping

from open_r1_vision.rewards.answers import extract_answer, unwrap
from open_r1_vision.rewards.choices import same_choice
from open_r1_vision.rewards.headers import split_sections

NO_RULE = "none"
#: Forms in which a reply commits itself, so that no other is looked for.
FORMS = ("tags", "sections", "boxed")
MAX_WHOLE_CHARS = 200

_TAG = re.compile(r"</?answer>")
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_LINE = re.compile(
    r"^[ \t>*_#<]*(?:the[ ]+)?(?:(?:final|correct|short)[ ]+)?(?:answer|答案)[ \t>*_]*[:：][ \t*_<]*(?P<rest>.*)$",
    re.IGNORECASE | re.MULTILINE,
)
_PHRASE = re.compile(
    r"\b(?:answer|(?:correct|right|best) (?:option|choice)) (?:is|=)[ ]?:?(?P<rest>.+?)(?=[.!?](?:\s|$)|$)"
    r"|答案[是为][:：]?(?P<chinese>[^。]+)",
    re.IGNORECASE,
)
_SEPARATORS = re.compile(r"[.()\[\],:;!*#{}]")
_AFTER_ARTICLE = re.compile(r"(?!is$)[a-z]+(?:['’-][a-z]+)*")
_MARKED = re.compile(r"\(?(?P<letter>[A-Z])[).:]+\s*(?P<text>.+)", re.DOTALL)
_NEGATION = re.compile(r"\b(?:not|no|neither|nor|never|except|cannot|un(?:able|clear|sure))\b|n['’]t\b", re.IGNORECASE)


def find_answer(text: str) -> tuple[str | None, str]:
    """The answer that a reply gives to a question without options.

    Returns:
        The answer, None when there is none, and the rule.
    """
    form = _form(text)
    if form:
        answer = extract_answer(text, form)
        return answer, form if answer else NO_RULE
    rest = _after_thinking(text)
    lines = list(_LINE.finditer(rest))
    if lines:
        line = _plain(lines[-1]["rest"]) or _plain(_first_line(rest[lines[-1].end() :]))
        if line:
            return _after_phrase(line) or line, "answer_line"
    answer = _after_phrase(_last_line(rest))
    if answer:
        return answer, "answer_phrase"
    whole = _plain(rest)
    return (whole, "whole") if whole and "\n" not in whole and len(whole) <= MAX_WHOLE_CHARS else (None, NO_RULE)


def find_option(text: str, options: Mapping[str, str]) -> tuple[str | None, str]:
    """The option that a reply chooses.

    Returns:
        Its letter; where the reply commits itself to something that is no option, that; None when there is nothing.
        And the rule, or two joined by `+` where the option was found within what the first took.
    """
    answer, rule = find_answer(text)
    if answer is not None:
        letter = named_option(answer, options)
        if letter:
            return letter, rule
        letter, second = (None, NO_RULE) if _contradicts_itself(answer, options) else infer_option(answer, options)
        if letter:
            return letter, second if rule == "whole" else f"{rule}+{second}"
    if rule in FORMS or _form(text) or (answer is not None and _contradicts_itself(answer, options)):
        return answer, rule
    letter, second = infer_option(_after_thinking(text), options)
    if letter:
        return letter, second
    return (answer, rule) if rule == "answer_line" else (None, NO_RULE)


def named_option(answer: str, options: Mapping[str, str]) -> str | None:
    """The letter of the option that an answer names, by letter, text or both, by the rule of the rewards."""
    letters = [letter for letter in options if same_choice(answer, letter, dict(options))]
    return letters[0] if len(letters) == 1 else None


def infer_option(text: str, options: Mapping[str, str]) -> tuple[str | None, str]:
    """The only option that a text mentions.

    `option_letter`: one option's letter stands alone among the words, no other one's does, and it is among the last
    five; an "A" that may be an article is not taken. `option_text`: the text is no longer than twice all options,
    contains the text of exactly one of them as whole words, and denies nothing.

    Returns:
        The letter, None when the text mentions none or several, and the rule.
    """
    words = _SEPARATORS.sub(" ", text).split()
    mentioned = [letter for letter in options if letter in words]
    if len(mentioned) == 1:
        place = len(words) - 1 - words[::-1].index(mentioned[0])
        # behind "A" a word in lower case makes it an article, which may still have been meant as the letter
        is_article = mentioned[0] == "A" and _AFTER_ARTICLE.fullmatch("".join(words[place + 1 : place + 2]))
        if place >= len(words) - 5 and not is_article:
            return mentioned[0], "option_letter"
    if mentioned or len(text) > 2 * sum(map(len, options.values())) or _NEGATION.search(text):
        return None, NO_RULE
    contained = [letter for letter, option in options.items() if _contains(text, option)]
    return (contained[0], "option_text") if len(contained) == 1 else (None, NO_RULE)


def _contradicts_itself(answer: str, options: Mapping[str, str]) -> bool:
    """Whether an answer is one option's letter with the text of another, which names none."""
    marked = _MARKED.match(answer)
    return marked is not None and named_option(marked["text"], options) not in (None, marked["letter"])


def _contains(text: str, option: str) -> bool:
    option = " ".join(option.split()).rstrip(".")
    pattern = rf"(?<!\w){re.escape(option)}(?!\w)"
    return bool(option) and re.search(pattern, " ".join(text.split()), re.IGNORECASE) is not None


def _form(text: str) -> str | None:
    """The form in which a reply gives its answer, if it uses one that the rewards know."""
    if _TAG.search(text):
        return "tags"
    if any(section.name == "answer" for section in split_sections(text)[1]):
        return "sections"
    return "boxed" if _BOX.search(_after_thinking(text)) else None


def _after_thinking(text: str) -> str:
    """What stands behind the thinking; nothing where the thinking does not end."""
    rest = text.rpartition("</think>")[2]
    return "" if "<think>" in rest else rest.strip()


def _after_phrase(line: str) -> str:
    """What follows the last "answer is" of a line, up to the end of the sentence; empty where nothing does."""
    phrases = list(_PHRASE.finditer(line))
    return _plain(phrases[-1]["rest"] or phrases[-1]["chinese"]) if phrases else ""


def _plain(text: str) -> str:
    text = unwrap(text.strip().strip("*_<>").strip())
    return text[:-1].rstrip() if text.endswith(".") and not text.endswith("..") else text


def _first_line(text: str) -> str:
    return next((line for line in text.split("\n") if line.strip()), "")


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.split("\n")) if line.strip()), "")
