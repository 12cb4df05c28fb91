# SPDX-License-Identifier: Apache-2.0
"""The share of a row's facts that a response states, by the rule and by a judge's verdicts."""

import inspect
import math
import subprocess
import sys
from fractions import Fraction

import pytest

from open_r1_vision.rewards.visual_facts import visual_facts_reward

FACTS = ["AB = 3", "BC = 4", "angle B is right", "D is on AC"]


def test_share_of_the_facts():
    completions = [
        "AB = 3 and BC = 4.",
        "Since AB=3, BC=4 and angle B is right, D is on AC.",
        "AC = 5",
        "",
        [{"role": "assistant", "content": [{"type": "text", "text": "D is on AC."}]}],
    ]
    assert visual_facts_reward(completions, [FACTS] * 5, prompts=[""] * 5) == [0.5, 1.0, 0.0, 0.0, 0.25]


def test_a_row_without_facts_is_not_scored():
    assert visual_facts_reward(["AB = 3"] * 4, [None, [], ["", " "], ["AB = 3"]]) == [None, None, None, 1.0]


def test_facts_of_the_question_are_not_paid_for():
    problem = ["If AB = 3 and BC = 4, find AC.", None, "If AB = 3, BC = 4, angle B is right and D is on AC, find AC."]
    echo = "AB = 3 and BC = 4"
    rewards = visual_facts_reward([echo] * 3, [FACTS] * 3, problem)
    assert rewards == [0.0, 0.5, None]  # the authors' code gives 0.5, 0.5, 0.5
    assert visual_facts_reward([echo] * 3, [FACTS] * 3, problem, leave_out_question=False) == [0.5, 0.5, 0.5]


def test_a_fact_that_stands_twice_counts_once():
    assert visual_facts_reward(["AB = 3"], [["AB = 3", "ab = 3 ", "BC = 4"]]) == [0.5]


def test_the_judge_decides_where_there_is_one():
    verdicts = [[1, 0, 1, 1], [0, 0, 0, 0], (1, 1, 1, 1), None]
    completions = ["nothing", " ".join(FACTS), "nothing", " ".join(FACTS)]
    rewards = visual_facts_reward(completions, [FACTS] * 4, fact_verdicts=verdicts)
    assert rewards == [0.75, 0.0, 1.0, None]  # a failure is for the trainer to replace


def test_verdicts_belong_to_all_facts_or_to_those_that_are_left():
    problem = ["angle B is right?"] * 5
    verdicts = [[1, 0, 0], [0, 0, 1, 0], [1, 1, 0, 1], [0, 0, 0, 1], [0, 0, 0, 1, 1]]
    rewards = visual_facts_reward(["x"] * 5, [FACTS] * 5, problem, verdicts)
    assert rewards == pytest.approx([1 / 3, 0, 1, 1 / 3, 0])
    rewards = visual_facts_reward(["x"] * 5, [FACTS] * 5, problem, verdicts, leave_out_question=False)
    assert rewards == [0.25, 0.25, 0.75, 0.25, 0.25]


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([1], Fraction(1, 4)),  # 1.0 in the authors' code
        ([], 0),
        ([1, 1, 1, 1, 1, 1], 1),
        ([0, 0, 0, 0, 1, 1], 0),
        ([math.nan] * 4, 0),  # 1.0 in the authors' code
        ([0.6] * 4, 0),
        ([1.0, 1, 0, 0], Fraction(1, 4)),
        ([True] * 4, 0),
        (["1"] * 4, 0),
        ([None, 1, None, 0], Fraction(1, 4)),
        ([2, -1, 10**30, 1], Fraction(1, 4)),
        ([math.inf, 1, 1, 1], Fraction(3, 4)),
        ([[1], {"stated": 1}, "1", 1], Fraction(1, 4)),
        ("1111", 0),
        ({0: 1, 1: 1, 2: 1, 3: 1}, 0),
        (math.nan, 0),
        (1, 0),
    ],
)
def test_no_odd_verdict_raises_the_score(verdicts, expected):
    assert visual_facts_reward(["x"], [FACTS], fact_verdicts=[verdicts]) == [float(expected)]


def test_without_facts_there_is_no_score_whatever_a_judge_says():
    assert visual_facts_reward(["x", "x"], [[], None], fact_verdicts=[[1], None]) == [None, None]


def test_statements_only():
    texts = ["there is no red dot", "2 lines ; red dot"]
    assert visual_facts_reward(texts, [["red dot"]] * 2) == [1.0, 1.0]
    assert visual_facts_reward(texts, [["red dot"]] * 2, match="statement") == [0.0, 1.0]


def test_a_section_only():
    texts = ["<info>AB = 3</info> BC = 4", "AB = 3", "<info>AB = 3", "<info>x</info> <info>AB = 3</info>"]
    assert visual_facts_reward(texts, [["AB = 3", "BC = 4"]] * 4, section="info") == [0.5, 0.0, 0.0, 0.0]


def test_what_a_hint_states_does_not_count():
    starts = ["", "<info> AB = 3 ;", "<info> AB = 3 ; BC = 4</info> <think>"]
    texts = ["<info> AB = 3 ; BC = 4</info>", " BC = 4</info>", " so AC = 5</think>"]
    facts = [["AB = 3", "BC = 4"]] * 3
    assert visual_facts_reward(texts, facts, response_start=starts) == [1.0, 0.5, 0.0]
    assert visual_facts_reward(texts, facts, response_start=starts, section="info") == [1.0, 0.5, 0.0]
    late = ["<info> AB = 3</info> <info>BC = 4</info>"]
    assert visual_facts_reward(late, facts[:1], response_start=starts[2:], section="info") == [0.0]


def test_an_unknown_match_is_refused_before_anything_is_judged():
    with pytest.raises(ValueError, match="match is 'exact'.*set it to words or statement"):
        visual_facts_reward([], [], match="exact")


def test_columns_have_one_length():
    with pytest.raises(ValueError, match="zip"):
        visual_facts_reward(["x", "x"], [FACTS])
    with pytest.raises(ValueError, match="zip"):
        visual_facts_reward(["x"], [FACTS], fact_verdicts=[[1], [1]])


def test_facts_that_are_one_string_are_refused():
    with pytest.raises(ValueError, match="give a list of strings, one for each fact"):
        visual_facts_reward(["x"], ["AB = 3"])


def test_only_the_facts_are_required():
    parameters = inspect.signature(visual_facts_reward).parameters.values()
    required = [p.name for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    assert required == ["completions", "visual_facts"]


def test_needs_neither_torch_nor_trl():
    modules = "import open_r1_vision.rewards.visual_facts, open_r1_vision.rewards.repetition, sys"
    code = f"{modules}; sys.exit(bool({{'torch', 'trl', 'transformers'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
