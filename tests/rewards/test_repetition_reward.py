# SPDX-License-Identifier: Apache-2.0
"""Repeated n-grams of words and of tokens, against values worked out by hand."""

import math

import pytest

from open_r1_vision.rewards.repetition import repetition_reward, token_repetition_reward

HUNDRED = [f"w{index}" for index in range(100)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0.0),
        ("a " * 19, 0.0),  # no n-gram
        ("a " * 20, 0.0),  # one
        ("a " * 21, -1.0),  # two, both the same
        ("A a " * 10 + "a", -1.0),  # lower case
        (" ".join(HUNDRED), 0.0),
        # 200 words, 181 n-grams, as many different ones as places to start in a hundred
        (" ".join(HUNDRED * 2), -2 * 81 / 181),
        # written without a blank in between, 199 words and 180 n-grams, 81 - 2 of them twice
        (" ".join(HUNDRED) * 2, -2 * 79 / 180),
        # 300 words, 281 n-grams, 30 different ones
        (" ".join(HUNDRED[:30] * 10), -2 * 251 / 281),
        ("a " * 10_000, -2 * (1 - 1 / 9_981)),
    ],
)
def test_words(text, expected):
    assert repetition_reward([text]) == [pytest.approx(expected, abs=1e-12)]


def test_the_values_of_the_authors_code():
    texts = [" ".join(HUNDRED) * 2, " ".join(HUNDRED[:30] * 10)]
    assert [round(value, 2) for value in repetition_reward(texts)] == [-0.88, -1.79]


def test_no_penalty_is_a_plain_zero():
    rewards = repetition_reward(["a b c", "a " * 20, [{"role": "assistant", "content": "a"}]], id=["x", "y", "z"])
    assert [math.copysign(1, value) for value in rewards] == [1.0, 1.0, 1.0]


def test_settings():
    # a b, b a, a b, b c: 3 of 4 differ
    assert repetition_reward(["a b a b c"], ngram_size=2, max_penalty=-1.0) == [-0.25]
    assert repetition_reward(["a a a"], ngram_size=1, max_penalty=0) == [0.0]


def test_tokens_by_trls_own_reward():
    ids = [[1] * 21, list(range(100)) * 2, list(range(30)) * 10, [1] * 20, [], list(range(50))]
    expected = [-1.0, -2 * 81 / 181, -2 * 251 / 281, 0.0, 0.0, 0.0]
    assert token_repetition_reward(ids, completions=["x"] * 6) == pytest.approx(expected)
    assert token_repetition_reward([[1, 2, 1, 2, 3]], ngram_size=2, max_penalty=-1.0) == [-0.25]


@pytest.mark.parametrize("reward", [repetition_reward, token_repetition_reward])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ngram_size": 0}, "ngram_size is 0, .* set it to 1 or more"),
        ({"max_penalty": 0.5}, "max_penalty is 0.5, which would reward repetition: set it to 0 or less"),
        ({"max_penalty": math.nan}, "set it to 0 or less"),
    ],
)
def test_settings_that_can_not_work(reward, settings, message):
    with pytest.raises(ValueError, match=message):
        reward([], **settings)
