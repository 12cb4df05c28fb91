# SPDX-License-Identifier: Apache-2.0
"""Scores for texts: ANLS for short ones, ROUGE for sentences.

ANLS (Biten et al., arXiv 1905.13648): 1 - NL if NL < 0.5, else 0, with NL = Levenshtein distance / length of the
longer text. Visionary-R1's code has no threshold, so that a wrong word still earns a part.
"""

import functools

from rapidfuzz.distance import Levenshtein


def plain_text(text: str) -> str:
    """The text as it is compared: case folded, single spaces, no full stop at its end."""
    return " ".join(text.casefold().split()).rstrip(".").rstrip()


def anls(answer: str, gold: str, threshold: float = 0.5) -> float:
    """Average normalised Levenshtein similarity of one pair, on `plain_text`.

    Returns:
        A similarity in (1 - threshold, 1], or 0.0 when it is lower or a text is empty.
    """
    answer, gold = plain_text(answer), plain_text(gold)
    distance = Levenshtein.normalized_distance(answer, gold)
    return 1 - distance if answer and gold and distance < threshold else 0.0


def mean_rouge(answer: str, gold: str) -> float:
    """Mean F1 of ROUGE-1, ROUGE-2 and ROUGE-L with Porter's stemmer; 1.0 if the texts are the same.

    Without the exception a gold of one word, which has no bigram, would earn 2/3 against itself. ROUGE reads Latin
    letters and digits only.

    Returns:
        A score in [0, 1].
    """
    scores = _rouge_scorer().score(gold, answer)
    if plain_text(answer) == plain_text(gold):
        return float(scores["rouge1"].fmeasure > 0)
    return sum(score.fmeasure for score in scores.values()) / len(scores)


@functools.cache
def _rouge_scorer():
    from rouge_score.rouge_scorer import RougeScorer  # a second to import, and few data sets need it

    return RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
