# SPDX-License-Identifier: Apache-2.0
"""Key words of a description by rule: its names, numbers and labels, without any model of the language.

- A number, with its unit where it has one: `13 cm`, `40°`, `3.5`.
- A label: capitals with digits and primes, such as `ABC`, `B1`, `A'`; `A` and `I` within a sentence only.
- Any other word of three letters and more that is no stop word. Stop words are those of English grammar, and verbs
  and nouns that descriptions have whatever they show ("image", "depicts", "located"). What is left are nouns, colours
  and the like. Hyphens and apostrophes join words.

A rule for English: of texts in other scripts only numbers and labels are key words. Time is linear in the text.
"""

import re

from open_r1_vision.rewards.facts import rule_verdicts

_UNITS = (
    r"°[CF]?|%|‰|[$€£¥]|degrees?|percent|(?:square|cubic)\s(?:centi|milli|kilo)?met(?:er|re)s?|units?"
    r"|(?:mm|cm|dm|km|m)(?:\^?[23²³])?|(?:centi|milli|kilo)?met(?:er|re)s?|inch(?:es)?|feet|ft|miles?"
    r"|(?:m|k)?g|kilograms?|grams?|lbs?|pounds?|(?:m)?l|lit(?:er|re)s?|seconds?|minutes?|hours?|days?|years?"
    r"|dollars?|cents?|(?:k|M)?Hz|(?:m|k)?[VWAΩJN]|px|pixels?"
)
_TOKEN = re.compile(
    rf"(?P<number>(?<![\w.])[-−]?[$€£¥]?\d+(?:[.,]\d+)*(?:\s?(?:{_UNITS})(?!\w))?)"
    r"|(?P<label>(?<![A-Za-zÀ-ɏ\d_])[A-Z]{1,5}\d{0,3}['’′]{0,2}(?![A-Za-zÀ-ɏ\d_]))"
    r"|(?P<word>(?<![A-Za-zÀ-ɏ\d_])[A-Za-zÀ-ɏ]+(?:[-'’][A-Za-zÀ-ɏ]+)*)"
)
_SENTENCE_END = re.compile(r"(?:^|[.!?:;\n]\s*)$")
_GRAMMAR = """
    about above across after again against all along also although among and another any anything are around away back
    because been before behind being below beneath beside besides between beyond both but can cannot could did does
    doing done down during each either else ever every everything few for from further had has have having here hers
    him his how however into its itself just least less like many may maybe might more most much must near nearby
    neither never next nobody none nor not nothing now off once one's only onto other others otherwise our out outside
    over own per perhaps quite rather same several shall she should since some someone something somewhat still such
    than that the their them themselves then there these they this those though through throughout thus together too
    toward towards under underneath until upon very was well were what when where whereas whether which while who whom
    whose why will with within without would yet you your
"""
#: What descriptions say whatever they show.
_EMPTY = """
    additionally aligned appear appearing appears arranged based called clearly consist consisting consists contain
    contained containing contains corresponding depict depicted depicting depicts describe described describes
    description detail details different display displayed displaying displays drawn each feature features figure
    figures following form formed forming forms given gives image images include included includes including
    indicate indicated indicates indicating information known label labeled labelled labels lie lies likely located
    look looking looks lying made make makes mark marked marking marks meet meets named observe observed overall
    part parts picture pictured pictures place placed positioned present presented presents provide provided
    provides question referred related represent represented representing represents respectively scene see seen
    shape shapes show showed showing shown shows situated specific specifically there's used using various view
    viewed viewer visible visual visually
"""
_STOP_WORDS = frozenset((_GRAMMAR + _EMPTY).split())


def find_key_words(description: str, limit: int = 12, max_words: int = 1) -> list[str]:
    """The key words of a description, in the order in which they first occur.

    Each is one that the description itself names, by the rule of `key_words_reward`: a reference that is repeated
    word by word earns the full reward.

    Args:
        description: a text.
        limit: the most that are listed; those that come first stay.
        max_words: how many of them are joined where nothing but a blank is between them: with 2 or more, `red circle`
            is one key word. Where there are more in a row, the last ones stay together.
    """
    runs: list[list[str]] = []
    end = None
    for match in _TOKEN.finditer(description):
        word = _key_word(match, description)
        if word is None:
            continue
        if runs and description[end : match.start()] == " ":
            runs[-1].append(word)
        else:
            runs.append([word])
        end = match.start() + len(word)
    found: dict[str, str] = {}
    for run in runs:
        for start in range(len(run) % max_words, len(run) + 1, max_words):
            phrase = " ".join(run[max(start - max_words, 0) : start])
            if phrase:
                found.setdefault(_form(phrase), phrase)
    return keep_named(list(found.values()), description)[:limit]


def _key_word(match: re.Match[str], description: str) -> str | None:
    """What a token says, None if it is no key word."""
    word = match[0]
    if match["number"]:
        return " ".join(word.split())
    if word.lower() in _STOP_WORDS:
        return None
    if match["label"]:
        # at the start of a sentence they are an article and a pronoun
        before = description[max(0, match.start() - 3) : match.start()]
        return None if word in ("A", "I") and _SENTENCE_END.search(before) else word
    return word if len(word) > 2 else None


def keep_named(key_words: list[str], description: str) -> list[str]:
    """Those that the description names as whole words."""
    verdicts = rule_verdicts(description, key_words, "words")
    return [word for word, is_named in zip(key_words, verdicts, strict=True) if is_named]


def _form(word: str) -> str:
    """What two forms of one word have in common."""
    plain = word.casefold()
    return plain[:-1] if len(plain) > 3 and plain.endswith("s") and not plain.endswith("ss") else plain
