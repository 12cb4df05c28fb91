# SPDX-License-Identifier: Apache-2.0
"""Which facts a row has, and which of them a text states by rule."""

import time

import pytest

from open_r1_vision.rewards.facts import clean_facts, facts_to_state, is_in_question, rule_verdicts, states


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (None, []),
        ([], []),
        (["", "  ", "\n", ".", "$$"], []),
        ([" AB = 3 ", "ab =  3", "AB = 4", "AB\n= 3"], ["AB = 3", "AB = 4"]),
        (("b", "a", "B"), ["b", "a"]),
        (["$AB = 3$.", "AB=3", "AB = 3.5"], ["$AB = 3$.", "AB = 3.5"]),
    ],
)
def test_facts_are_cleaned_in_order(facts, expected):
    assert clean_facts(facts) == expected


@pytest.mark.parametrize("facts", ["AB = 3", [3], [None], ["a", ["b"]]])
def test_facts_are_a_list_of_strings(facts):
    with pytest.raises(ValueError, match="give a list of strings"):
        clean_facts(facts)


@pytest.mark.parametrize(
    ("fact", "problem", "expected"),
    [
        ("AB = 3", "In the triangle AB = 3. Find BC.", True),
        ("AB = 3", "In the triangle $AB=3$. Find BC.", True),
        ("$AB = 3$.", "If ab  =\n3, find BC.", True),
        (r"$AB\,=\,3$", r"Given \(AB = 3\), find BC.", True),
        ("AB = 3", "In the triangle AB = 35. Find BC.", False),
        ("AB = 3", "In the triangle AB = 3.5. Find BC.", False),
        ("AB = 3", "In the triangle CAB = 3. Find BC.", False),
        ("AB = 3", "In the triangle AB = 3/4. Find BC.", False),
        ("AB = 3", "<image>AB is not given.", False),
        ("the red circle", "What is left of the red circle?", True),
        ("the red circle", "What is red? The circle?", False),
        ("", "What is red?", False),
        ("AB = 3", "", False),
    ],
)
def test_a_fact_in_the_question(fact, problem, expected):
    assert is_in_question(fact, problem) is expected


def test_facts_of_the_question_need_not_be_stated():
    facts = ["AB = 3", " angle C is right ", "AB = 3", "BC = 4"]
    assert facts_to_state(facts, "If AB=3 and angle C is right, find BC.") == ["BC = 4"]
    assert facts_to_state(facts, None) == ["AB = 3", "angle C is right", "BC = 4"]
    assert facts_to_state(None, "Find BC.") == []


@pytest.mark.parametrize(
    ("text", "fact", "words", "statement"),
    [
        # the whole, a statement, a part of a statement
        ("red circle", "red circle", 1, 1),
        ("2 dots ; red circle ; 3 lines", "red circle", 1, 1),
        ("<info>red circle</info>", "Red  Circle.", 1, 1),
        ("I see a red circle here", "red circle", 1, 0),
        ("a\nred circle\nb", "red circle", 1, 1),
        ("colours: red circle!", "red circle", 1, 1),
        ("- red circle\n* blue square", "blue square", 1, 1),
        ("There it is, **AB = 3**.", "$AB = 3$", 1, 1),
        # words in a row, and whole ones
        ("red\ncircle", "red circle", 1, 0),
        ("red; circle", "red circle", 0, 0),
        ("red</info> <think>circle", "red circle", 0, 0),
        ("red circles", "red circle", 0, 0),
        ("infrared circle", "red circle", 0, 0),
        ("circle red", "red circle", 0, 0),
        ("red-brown circle", "brown circle", 0, 0),
        ("<info> nothing </info>", "info", 0, 0),
        # numbers
        ("x is 3.5, y is 4", "x is 3.5", 1, 1),
        ("x is 3.5, y is 4", "x is 3", 0, 0),
        ("x is 3.5, y is 4", "5", 0, 0),
        ("x is .5", "x is 5", 0, 0),
        ("x is 3. y is 4", "x is 3", 1, 1),
        ("it has 1,234 dots", "it has 1", 0, 0),
        ("it has 1,234 dots", "it has 1,234 dots", 1, 1),
        ("x = -3", "x = 3", 0, 0),
        (r"AB = 3\sqrt{2}", "AB = 3", 0, 0),
        ("AB = 3^2", "AB = 3", 0, 0),
        ("AB = 3√2", "AB = 3", 0, 0),
        (r"AB = \frac{1}{2}.", r"$AB=\frac{1}{2}$", 1, 1),
        # a separator within a fact belongs to it
        ("red circle , blue square ; dot", "red circle , blue square", 1, 1),
        ("red circle ; blue square ; dot", "red circle , blue square", 0, 0),
        ("the point (3,4); dot", "the point (3, 4)", 1, 1),
        # other scripts
        ("图中三角形是红色。边长为5", "三角形是红色", 1, 0),
        ("三角形是红色。边长为5", "三角形是红色", 1, 1),
        # nothing
        ("", "red circle", 0, 0),
        ("red circle", "", 0, 0),
        ("red circle . .", ".", 0, 0),
    ],
)
def test_the_rule(text, fact, words, statement):
    assert states(text, fact, "words") is bool(words)
    assert states(text, fact, "statement") is bool(statement)


def test_verdicts_are_in_the_order_of_the_facts():
    text = "<info>AB = 3; BC = 4</info> <think>so AC = 5</think>"
    assert rule_verdicts(text, ["AC = 5", "AB = 4", "BC = 4"], "words") == [1, 0, 1]
    assert rule_verdicts(text, ["AC = 5", "AB = 4", "BC = 4"], "statement") == [0, 0, 1]
    assert rule_verdicts(text, [], "words") == []


def test_a_later_occurrence_counts_where_the_first_is_a_part():
    assert rule_verdicts("AB = 3/4 or AB = 3", ["AB = 3"], "words") == [1]
    assert rule_verdicts("so AB = 3 now; AB = 3; x", ["AB = 3"], "statement") == [1]


def test_an_unknown_match_is_refused():
    with pytest.raises(ValueError, match="match is 'exact', which is no rule for facts: set it to words or statement"):
        states("a", "a", "exact")


@pytest.mark.parametrize(
    "text",
    [
        "a " * 25_000,
        "a/" * 25_000,
        "<" * 50_000,
        "<a" * 25_000,
        " " * 50_000,
        "\n" * 50_000,
        "- " * 25_000,
        "3." * 25_000,
        "a-" * 25_000,
        "1,234" * 10_000,
        "a" * 50_000,
        "\\" * 50_000,
        "三" * 50_000,
    ],
)
def test_long_texts_take_no_time(text):
    start = time.process_time()
    for match in ("words", "statement"):
        assert rule_verdicts(text, ["b", "a a a b", "a/ a/ b", "a a a a"], match)[:3] == [0, 0, 0]
    assert time.process_time() - start < 1
