# SPDX-License-Identifier: Apache-2.0
"""What is read from a reply, beside what VLMEvalKit's `can_infer` reads from it."""

import time

import pytest
from hostile_texts import HOSTILE

from open_r1_vision.evaluate import benchmarks
from open_r1_vision.evaluate.benchmarks.extraction import find_answer, find_option, infer_option
from open_r1_vision.evaluate.items import Item

FRACTIONS = {"A": "3/11", "B": "8/11", "C": "4/11", "D": "5/11"}
WORDS = {"A": "cat", "B": "dog", "C": "black bird", "D": "None"}
LONG = "B " + "because it follows from the figure " * 3


# reply, options, the kit's verdict (letter or None), ours, our rule
CAN_INFER = [
    ("B", FRACTIONS, "B", "B", "whole"),
    ("B.", FRACTIONS, "B", "B", "whole"),
    ("(B) 8/11", FRACTIONS, "B", "B", "whole"),
    (r"\boxed{B}", FRACTIONS, "B", "B", "boxed"),
    ("**B**", FRACTIONS, "B", "B", "whole"),
    ("### The final answer is: B", FRACTIONS, "B", "B", "sections"),
    ("<answer> B </answer>", FRACTIONS, "B", "B", "tags"),
    # not matched by the kit, which does not split at tags
    ("<answer>B</answer>", FRACTIONS, None, "B", "tags"),
    # neither: two letters, or a letter far from the end
    ("I think A. No, B.", FRACTIONS, None, None, "none"),
    ("Either B or C", FRACTIONS, None, None, "none"),
    (LONG, FRACTIONS, None, None, "none"),
    # "A" is an article here; an older fork of the kit says A
    ("Let A be the area of the sector, and the result will be seen to be 8/11", FRACTIONS, None, None, "none"),
    # the kit's pattern for "answer is X" knows neither case nor the end of a word
    ("the answer is different", WORDS, "D", None, "none"),
    ("the answer is circle", WORDS, "C", None, "none"),
    ("answer is a triangle", WORDS, "A", None, "none"),
    # option texts
    ("It shows a dog", WORDS, "B", "B", "option_text"),
    ("a black bird.", WORDS, "C", "C", "option_text"),
    # "12" contains "1" and "12" for the kit; ours compares whole words
    ("12", {"A": "1", "B": "12"}, None, "B", "whole"),
    # a denial names what is not the answer
    ("not the dog", WORDS, "B", None, "none"),
]


@pytest.mark.parametrize(("reply", "options", "kit", "ours", "rule"), CAN_INFER)
def test_interoperation_with_can_infer(reply, options, kit, ours, rule):
    assert find_option(reply, options) == (ours, rule)
    if kit is not None and ours is not None:
        assert kit == ours  # where both read an option it is the same one


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("<think>x</think><answer> 12 cm</answer>", ("12 cm", "tags")),
        (r"<answer> the final answer is \boxed{12}</answer>", ("12", "tags")),
        ("### Step 1: x\n### The final answer is: 12\n", ("12", "sections")),
        (r"So it is \boxed{11}, no, \boxed{12}.", ("12", "boxed")),
        ("First this.\n**Answer:** 12\n", ("12", "answer_line")),
        ("Final answer:\n\n12", ("12", "answer_line")),
        ("答案：12", ("12", "answer_line")),
        ("Answer: the answer is 12.", ("12", "answer_line")),
        ("We add 5 and 7.\nSo the answer is 12.5 cm. ", ("12.5 cm", "answer_phrase")),
        ("我们相加。所以答案是12。", ("12", "answer_phrase")),
        ("12", ("12", "whole")),
        ("$12$", ("12", "whole")),
        ("<think>It is 11.</think>\n12", ("12", "whole")),
        ("None", ("None", "whole")),
        # forms that the reply leaves open, drafts, and texts that give no answer
        ("<answer>12", (None, "none")),
        ("<answer>12</answer> or <answer>13", (None, "none")),
        (r"12, so \boxed{12", (None, "none")),
        ("<think>The answer is 12.", (None, "none")),
        (r"<think>\boxed{12}</think>", (None, "none")),
        ("### The final answer is:", (None, "none")),
        ("One line.\nAnother line.", (None, "none")),
        ("", (None, "none")),
        ("  \n ", (None, "none")),
        ("x" * 201, (None, "none")),
    ],
)
def test_free_answers(reply, expected):
    assert find_answer(reply) == expected


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("<answer>dog</answer>", ("B", "tags")),
        ("<answer>The right one is B</answer>", ("B", "tags+option_letter")),
        ("<answer>horse</answer>", ("horse", "tags")),  # it commits itself, and is wrong
        ("<answer>C. dog</answer>", ("C. dog", "tags")),  # a letter with another's text names none, for rewards too
        ("C. dog", ("C. dog", "whole")),
        ("<answer>C. bird</answer>", ("C", "tags+option_letter")),
        (r"\boxed{\text{(B)}}", ("B", "boxed")),
        (r"\boxed{B, C}", ("B, C", "boxed")),
        ("<answer>B", (None, "none")),
        ("It stands on two legs.\nAnswer: C", ("C", "answer_line")),
        ("It stands on two legs.\nAnswer: C. black bird", ("C", "answer_line")),
        ("Two legs and feathers.\nThe correct answer is C. black bird.", ("C", "answer_phrase")),
        ("Two legs and feathers, which rules out the others.\n\nTherefore: B", ("B", "option_letter")),
        ("None", ("D", "whole")),
        ("d", ("D", "whole")),
        ("E", (None, "none")),
        ("", (None, "none")),
    ],
)
def test_options(reply, expected):
    assert find_option(reply, WORDS) == expected


def test_a_letter_counts_among_the_last_five_words():
    assert infer_option("It is B as all of us know", WORDS) == (None, "none")
    assert infer_option("It is B as all of us", WORDS) == ("B", "option_letter")
    assert infer_option("A", WORDS) == ("A", "option_letter")
    assert infer_option("A is right", WORDS) == ("A", "option_letter")
    assert infer_option("A cat", {"A": "x", "B": "y"}) == (None, "none")
    assert infer_option("A or B", WORDS) == (None, "none")


def test_an_options_text_counts_in_a_short_reply():
    # the options have 3 + 3 + 10 + 4 characters
    assert infer_option("dog".rjust(40, "-"), WORDS) == ("B", "option_text")
    assert infer_option("dog".rjust(41, "-"), WORDS) == (None, "none")


@pytest.mark.parametrize(
    "piece", ["answer is ", "<answer>", r"\boxed{", "A ", "\n", "Answer:\n", " " * 50 + "B", "*", "not a ", "答案是"]
)
def test_long_replies_take_no_time(piece):
    start = time.process_time()
    find_option(piece * (200_000 // len(piece)), WORDS)
    assert time.process_time() - start < 3


@pytest.mark.parametrize("name", ["mmstar", "wemath", "dynamath", "logicvista", "mathvista", "rows"])
def test_hostile_replies_neither_crash_nor_score(name):
    benchmark = benchmarks.find(name)
    options = {} if name in ("mathvista", "rows", "logicvista") else {"A": "57 cm", "B": "12 cm", "C": "2 m"}
    fields = {"answer_type": "float" if name == "dynamath" else "integer", "problem_type": "number"}
    item = Item(
        "1", "How long?", answer="C" if options or name == "logicvista" else "57", options=options, fields=fields
    )
    hostile = [*HOSTILE.values(), "{" * 20_000, '{"short answer": ' * 5_000, "<Answer>" * 9_000, "A, " * 20_000]
    start = time.process_time()
    for text in hostile:
        answer, rule = benchmark.extract(item, text)
        assert (answer is None) == (rule == "none")
        assert benchmark.score(item, answer) == 0
    assert time.process_time() - start < 10
