# SPDX-License-Identifier: Apache-2.0
import pytest

from open_r1_vision.rewards.text_scores import anls, mean_rouge


@pytest.mark.parametrize(
    ("answer", "gold", "expected"),
    [
        ("Paris", "paris", 1),
        ("Paris.", "Paris", 1),
        ("New  York", "new york", 1),
        ("sitting", "kitten", 4 / 7),  # 3 edits of 7
        ("abx", "abc", 2 / 3),
        ("abxy", "abcd", 0),  # a distance of 0.5 is already too far
        ("dog", "cat", 0),
        ("", "cat", 0),
        ("", "", 0),
    ],
)
def test_anls(answer, gold, expected):
    assert anls(answer, gold) == pytest.approx(expected)


def test_anls_without_threshold_is_the_authors_rule():
    assert anls("abxy", "abcd", threshold=2) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("answer", "gold", "expected"),
    [
        # 5 of 6 words, 3 of 5 pairs, a common subsequence of 5 of 6.
        ("the cat lay on the mat", "the cat sat on the mat", (5 / 6 + 3 / 5 + 5 / 6) / 3),
        # Precision 2/3, recall 2/2; pairs 1/2, 1/1; the same subsequence.
        ("two red cats", "red cats", (4 / 5 + 2 / 3 + 4 / 5) / 3),
        ("runs quickly", "running quickly", 1),  # both are stemmed to "run"
        ("Paris", "paris.", 1),  # has no pair of words, yet is the gold
        ("dog", "cat", 0),
    ],
)
def test_mean_rouge(answer, gold, expected):
    assert mean_rouge(answer, gold) == pytest.approx(expected)


def test_rouge_sees_no_chinese():
    assert mean_rouge("海里", "海里") == 0
