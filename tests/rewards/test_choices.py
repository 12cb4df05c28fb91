# SPDX-License-Identifier: Apache-2.0
import pytest

from open_r1_vision.rewards.choices import parse_options, same_choice, split_options

ANIMALS = {"A": "dog", "B": "cat", "C": "a cow"}


@pytest.mark.parametrize(
    ("problem", "expected"),
    [
        ("Which?\nA. dog\nB. cat\nC. a cow", ANIMALS),
        ("Which?\n(A) dog\n(B) cat\n(C) a cow\nAnswer with the letter.", ANIMALS),
        ("Which? A) dog B) cat C) a cow", ANIMALS),
        ("Which? A: dog, B: cat, C: a cow", ANIMALS),
        ("find AB.\nA. 140°\nB. 150°", {"A": "140°", "B": "150°"}),
        ("It holds vitamin A. Which animal? A. dog B. cat C. a cow", ANIMALS),
        ("Rays A. and B. meet. Where?\nA. left\nB. right", {"A": "left", "B": "right"}),
        ("What is in A. and in C. here?", {}),
        ("Which?\nA. dog", {}),
        ("", {}),
    ],
)
def test_options(problem, expected):
    assert parse_options(problem) == expected


@pytest.mark.parametrize(
    ("problem", "before", "behind"),
    [
        ("Which?\nA. dog\nB. cat\n\nAnswer with the letter.", "Which?\n", "\nAnswer with the letter."),
        ("find AB.\nA. 140°\nB. 150°", "find AB.\n", ""),
        ("Which? A) dog B) cat\nPlease.", "Which? ", "Please."),
        ("Which?\nA.\n dog\nB.\n cat\nNow.", "Which?\n", "Now."),
        ("Which?", "Which?", ""),
    ],
)
def test_what_stands_around_the_options(problem, before, behind):
    assert split_options(problem) == (before, parse_options(problem), behind)


@pytest.mark.parametrize("gold", ["B", "(B)", "B. cat", "cat"])
@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (answer, True)
        for answer in ("B", "b", "(B)", "B.", "B)", "(B).", "B. cat", "B) cat", "(B) Cat", "B: cat.", "Cat")
    ]
    + [
        (answer, False) for answer in ("A", "E", "A or B", "A, B", "AB", "B. dog", "dog", "dog or cat", "B cat", "cow")
    ],
)
def test_with_options(answer, gold, expected):
    assert same_choice(answer, gold, ANIMALS) is expected


@pytest.mark.parametrize(
    ("answer", "gold", "expected"),
    [
        ("B. cat", "B", True),
        ("B. cat", "cat", True),
        ("cat", "B. cat", True),
        ("B", "B. cat", True),
        ("B. dog", "B. cat", False),
        ("cat", "B", False),
        ("B", "cat", False),
        ("(A) or (B)", "A", False),
        ("A. B. C.", "A", False),
    ],
)
def test_without_options(answer, gold, expected):
    assert same_choice(answer, gold, {}) is expected


def test_texts_are_also_compared_as_numbers_if_one_option_alone_matches():
    assert same_choice("140", "A", {"A": "140°", "B": "150°"})
    assert not same_choice("7", "A", {"A": "7 cm", "B": "7 m"})


def test_single_letter_is_a_letter_even_if_it_is_an_option_text():
    assert same_choice("B", "B", {"A": "B", "B": "C"})
    assert not same_choice("B", "A", {"A": "B", "B": "C"})


def test_gold_outside_the_options_equals_nothing():
    assert not same_choice("E", "E", ANIMALS)
    assert not same_choice("horse", "horse", ANIMALS)
