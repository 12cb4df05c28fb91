# SPDX-License-Identifier: Apache-2.0
import time

import pytest

from open_r1_vision.rewards.answers import (
    PROBLEM_TYPES,
    completion_text,
    extract_answer,
    gold_is_consistent,
    infer_problem_type,
    score_answer,
    score_answers,
    unwrap,
)

OPTIONS = "Which animal?\nA. dog\nB. cat"


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("text", "text"),
        ([{"role": "assistant", "content": "text"}], "text"),
        ([{"role": "assistant", "content": [{"type": "text", "text": "text"}, {"type": "image"}]}], "text"),
        (
            [
                {"role": "assistant", "content": "a"},
                {"role": "tool", "content": "b"},
                {"role": "assistant", "content": "c"},
            ],
            "a\nc",
        ),
        ([{"role": "assistant", "content": None}], ""),
        ([], ""),
    ],
)
def test_completion_text(completion, expected):
    assert completion_text(completion) == expected


def test_completion_of_another_kind():
    with pytest.raises(TypeError, match=r"has to be a string or a list of messages, but got \['a'\]"):
        completion_text(["a"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$\\boxed{4}$", "4"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\text{cat}}", "cat"),
        (r"\boxed{1}\boxed{2}", r"\boxed{1}\boxed{2}"),
        (r"so \boxed{4}", r"so \boxed{4}"),
        (r"\(4\)", "4"),
        ("**4**", "4"),
        ("$5", "$5"),
        ("$5$ or $6$", "$5$ or $6$"),
        (r"\boxed{}", ""),
        ("$$", ""),
        ("$", "$"),
    ],
)
def test_unwrap(text, expected):
    assert unwrap(text) == expected


def test_extract_answer():
    assert extract_answer(r"<think>3</think> <answer> \boxed{4} </answer>") == "4"
    assert extract_answer(r"<answer>\boxed{ }</answer>") is None
    assert extract_answer("4") is None


@pytest.mark.parametrize(
    ("text", "tags", "boxed"),
    [
        (r"<answer>3</answer> \boxed{4}", "3", "4"),
        (r"<answer>so \boxed{4} cm</answer>", "4", "4"),
        (r"<answer>3 or \boxed{4}</answer> \boxed{5}", "4", "5"),
        (r"\boxed{\text{cat}}", None, "cat"),
        (r"\boxed{**4**}", None, "4"),
        (r"<think>\boxed{3}</think> <answer>4</answer>", "4", None),
        (r"<answer>\boxed{4</answer>", r"\boxed{4", None),
        (r"<answer>\boxed{}</answer>", None, None),
    ],
)
def test_answers_in_tags_and_in_boxes(text, tags, boxed):
    assert (extract_answer(text), extract_answer(text, "boxed")) == (tags, boxed)


def test_an_unknown_answer_form():
    with pytest.raises(ValueError, match="answer_form is 'box': set it to one of tags, boxed, sections"):
        extract_answer("4", "box")


@pytest.mark.parametrize(
    ("answer", "gold", "problem_type", "expected"),
    [
        ("7 cm", "7", "number", 1),
        ("3", "5-3", "number", 0),
        ("5-3", "5", "number", 0),  # 1 by the authors' rule, which takes the first number
        ("1e3", "1000", "number", 1),  # 0 by the authors' rule
        ("1e3", "1", "number", 0),  # 1 by the authors' rule
        ("3/4", "3", "number", 0),  # 1 by the authors' rule
        ("7 or 8", "7", "number", 0),
        ("1234", "1,234", "number", 1),  # 0 by the authors' rule
        ("12%", "0.12", "number", 1),
        ("inf", "1e999", "number", 0),
        ("nan", "nan", "number", 1),  # a text
        ("Yes", "yes", "number", 1),
        ("yes and no", "yes", "number", 0),
        ("sitting", "kitten", "text", 4 / 7),
        ("2005", "2006", "text", 0),  # numbers, not three of four characters
        ("$1,234.00", "1234", "text", 1),
        ("3", "3 Idiots", "text", 0),  # a title, not three of something
        ("3 Idiot", "3 Idiots", "text", 7 / 8),
        ("the cat lay on the mat", "the cat sat on the mat", "free_form", (5 / 6 + 3 / 5 + 5 / 6) / 3),
        (r"\frac{1}{2}", "0.5", "math", 1),
        ("(B)", "B", "choice", 1),
        ("kitten", "sitting", "OCR", 4 / 7),
        ("Paris", "paris", "free-form", 1),
        ("7.0", "7", "numerical", 1),
        ("Cat", "cat", "numerical", 1),
        ("cats", "cat", "numerical", 0),
        ("7.0", "7", None, 1),
        ("<answer>7</answer>", "7", "number", 0),
        ("7", "<answer> 7 </answer>", "number", 1),
        ("7", r"\boxed{7}", "number", 1),
    ],
)
def test_score(answer, gold, problem_type, expected):
    assert score_answer(answer, gold, problem_type) == pytest.approx(expected)


@pytest.mark.parametrize("problem_type", [*PROBLEM_TYPES, None])
@pytest.mark.parametrize("gold", ["", " ", "7", "<answer></answer>", "<answer>7", "."])
@pytest.mark.parametrize("answer", [None, "", " \n", ".", r"\boxed{}", "$$"])
def test_empty_answers_and_golds_earn_nothing(answer, gold, problem_type):
    """The authors give 1.0 to a missing answer where the gold is missing, too."""
    assert score_answer(answer, gold, problem_type) == 0


def test_problem_gives_options_and_percentages():
    assert score_answer("cat", "B", "choice", problem=OPTIONS) == 1
    assert score_answer("57%", "57", "number", problem="What percentage is blue?") == 1
    assert score_answer("57%", "57", "number", problem="How many are blue?") == 0


def test_unknown_problem_type():
    with pytest.raises(ValueError, match="'multiple' is not known.*number, choice, text, free_form, math, OCR"):
        score_answer(None, "7", "multiple")


@pytest.mark.parametrize(
    ("gold", "problem", "expected"),
    [
        ("7", None, "number"),
        ("12%", None, "number"),
        ("140°", None, "number"),
        ("B", None, "choice"),
        ("(b)", None, "choice"),
        ("cat", OPTIONS, "choice"),
        ("12", "A. 12 B. 13", "choice"),
        ("cat", None, "text"),
        ("A. Lincoln", None, "text"),
        ("2019-05-01", None, "text"),
        ("8√{3}", None, "math"),
        ("65π", None, "math"),
        (r"\frac{1}{2}x", None, "math"),
        ("x = 3", None, "math"),
    ],
)
def test_inferred_problem_type(gold, problem, expected):
    assert infer_problem_type(gold, problem) == expected


@pytest.mark.parametrize("problem_type", ["number", "math", None])
@pytest.mark.parametrize("gold", ["8√{3}", "65π", "2√{2}-2", "140°", "2√{2}海里"])
def test_geoqa_golds_are_told_apart(gold, problem_type):
    assert gold_is_consistent(gold, problem_type)
    assert [score_answer(answer, gold, problem_type) for answer in ("8", "65", "2")] == [0, 0, 0]


#: Golds as they stand in GeoQA's test set, what a model may write for them, and what is wrong.
GEOQA = [
    (
        "8√{3}",
        [r"$8\sqrt{3}$", r"8\sqrt3", "8√3", r"8 \cdot \sqrt{3}", "8*sqrt(3)", "13.8564064606", r"8\sqrt{3} cm"],
        "8√2",
    ),
    ("65π", [r"65\pi", r"65\pi\text{ cm}^2", "65 pi", "204.2035224833"], "65.0"),
    ("π", [r"\pi", "3.14159265359"], "1"),
    ("2√{2}-2", [r"2\sqrt{2}-2", r"2(\sqrt{2}-1)", "2√2 − 2", "0.8284271247"], r"2\sqrt{2}"),
    ("140°", [r"140^\circ", r"$140^{\circ}$", "140", "140 degrees", "140度", "140∘"], "14°"),
    (
        "2√{2}海里",
        [r"2\sqrt{2}", "2√2", r"$2\sqrt{2}$ nautical miles", r"2\sqrt{2}\text{ nautical miles}", "2√2 海里", "√8 nmi"],
        "2√2 km",
    ),
    ("16π平方米", [r"16\pi", r"16\pi \text{ m}^2", "16π square meters", "16π m²"], "16 m²"),
    ("2400πcm^{2}", [r"2400\pi", r"2400\pi \text{ cm}^2", "2400π平方厘米"], "2400"),
    ("4√{3}cm²", [r"4\sqrt{3}", r"4\sqrt{3}\ \mathrm{cm}^2", "4√3 square centimeters"], "4√3 cm"),
    (r"\frac{10√{3}}{3}m", [r"\frac{10\sqrt{3}}{3}", r"\frac{10}{\sqrt{3}} \text{ m}", "10√3/3"], "10"),
    (r"\frac{6}{5}√{10}", [r"\frac{6\sqrt{10}}{5}", r"1.2\sqrt{10}"], r"\frac{6}{5}"),
    ("(√{3}+1)小时", [r"\sqrt{3}+1", r"(1+\sqrt{3}) \text{ hours}"], "√3 hours"),
    (r"\frac{4}{3}米", [r"\frac43", "4/3 m", r"\frac{4}{3} \text{ meters}"], "4 m"),
    ("400cm²", ["400", r"400 \text{ cm}^2", "400平方厘米", "400 square units"], "400 cm"),
    ("5cm^2^", ["5", "5 cm²"], "2"),
    ("6.00米", ["6", "6 m", "6.00"], "600 cm"),
]


@pytest.mark.parametrize("problem_type", ["math", None])
@pytest.mark.parametrize(("gold", "right", "wrong"), GEOQA)
def test_geoqa_golds_equal_what_a_model_writes_for_them(gold, right, wrong, problem_type):
    assert [answer for answer in (gold, *right) if score_answer(answer, gold, problem_type) != 1] == []
    assert score_answer(wrong, gold, problem_type) == 0


@pytest.mark.parametrize(
    ("gold", "problem_type", "problem", "expected"),
    [
        ("7", "number", None, True),
        ("<answer>7</answer>", "number", None, True),
        ("", "number", None, False),
        ("B", "choice", OPTIONS, True),
        ("cat", "choice", OPTIONS, True),
        ("E", "choice", OPTIONS, False),
        ("B. dog", "choice", OPTIONS, False),
        ("Paris", "free_form", None, True),
        ("海里", "free_form", None, False),
    ],
)
def test_gold_is_consistent(gold, problem_type, problem, expected):
    assert gold_is_consistent(gold, problem_type, problem) is expected


def test_score_answers_keeps_rows_apart():
    scores = score_answers(
        ["7", "7", None, "cat"], ["7", None, "7", "B"], ["number"] * 3 + ["choice"], ["", "", "", OPTIONS]
    )
    assert scores == [1, None, 0, 1]
    with pytest.raises(ValueError, match="zip"):
        score_answers(["7"], ["7", "8"], ["number"] * 2)


HOSTILE = {
    "tower": "10^10^10",
    "LaTeX tower": "10^{10^{10}}",
    "Python tower": "9**9**9",
    "factorial": "99999999!",
    "braces": "{" * 100_000,
    "fewer braces": "{" * 900,
    "parentheses": "(" * 900,
    "boxes": r"\boxed{" * 15_000 + "}" * 15_000,
    "fractions": r"\frac{" * 150,
    "null bytes": "\x00" * 1000,
    "digits": "9" * 100_000,
    "fewer digits": "9" * 900,
    "y": "y" * 7_900,
    "words": " ".join(map(str, range(1600))),
    "tags": "<answer>" * 12_500,
    "surrogate": "\ud800",
    "direction": "\u202e7\u202c",
    "slashes": "1/" * 3_000,
    "signs": "-" * 7_000,
    "options": "A. " * 2_000,
    "spaces": " " * 100_000,
}


@pytest.mark.parametrize("problem_type", [*PROBLEM_TYPES, None])
@pytest.mark.parametrize("answer", HOSTILE.values(), ids=HOSTILE)
def test_hostile_answers_cost_little_and_earn_nothing(answer, problem_type):
    score_answer("x+x", "2x", "math")  # the process has started
    for gold in ("B", r"\sqrt{7}") if problem_type != "text" else ("B" * 50,):
        start = time.perf_counter()
        score = score_answer(answer, gold, problem_type, problem=OPTIONS)
        assert time.perf_counter() - start < 2
        assert score < 0.5  # ROUGE finds the 7


def test_hostile_completions_cost_little():
    for text in [*HOSTILE.values(), "<answer>" * 6000 + "</answer>" * 6000, "<answer>" + "{" * 100_000 + "</answer>"]:
        start = time.perf_counter()
        extract_answer(text)
        assert time.perf_counter() - start < 1
