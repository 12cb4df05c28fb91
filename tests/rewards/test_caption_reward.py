# SPDX-License-Identifier: Apache-2.0
import time

import pytest

from open_r1_vision.rewards import caption_reward
from open_r1_vision.rewards.caption import announces_answer


def test_scores_what_the_reader_answers_and_nothing_for_a_missing_caption():
    rewards = caption_reward(
        caption_answer=["7", "8", None, "", "cat", "7"],
        solution=["7", "7", "7", "", "<answer>B</answer>", None],
        problem_type=["number", "number", "number", "number", "choice", "number"],
        problem=["", "", "", "", "A. dog B. cat", ""],
        completions=["<answer>7</answer>"] * 6,
        prompts=[""] * 6,
    )
    assert rewards == [1, 0, 0, 0, 1, None]


def test_graded_by_the_rule_of_the_accuracy_reward():
    assert caption_reward(["sitting"], ["kitten"], ["OCR"]) == [pytest.approx(4 / 7)]
    assert caption_reward(["Paris."], ["paris"], ["numerical"]) == [1]  # 0 by the authors' rule


# ---- penalties


def test_of_several_answers_the_mean_counts():
    columns = {"solution": ["7", "7", "7", None], "problem_type": ["number"] * 4}
    assert caption_reward([["7", "8"], ["7", None, "7", "7"], [None, None], ["7", "7"]], **columns) == [
        0.5,
        0.75,
        0,
        None,
    ]
    # a list and a plain answer may stand in one batch
    assert caption_reward([["7", "7"], "7", None, "8"], **columns) == [1, 1, 0, None]


def test_penalties():
    """Only off a score above 0, each once, never below 0."""
    rewards = caption_reward(
        caption_answer=["7", "7", "7", "7", "8", ["7", "8"], "7", None, "7"],
        solution=["7"] * 8 + [None],
        problem_type=["number"] * 9,
        caption=["dots", "dots", "so x = 7", "The answer is 7.", "so x = 7", "so x = 7", None, None, "so x = 7"],
        has_description=[True, False, True, False, False, False, None, False, False],
        no_description_penalty=0.25,
        given_away_penalty=0.5,
    )
    assert rewards == [1, 0.75, 0.5, 0.25, 0, 0, 1, 0, None]


def test_a_penalty_is_off_by_default():
    columns = {"solution": ["7"], "problem_type": ["number"], "caption": ["The answer is 7."]}
    assert caption_reward(["7"], **columns, has_description=[False]) == [1]
    assert caption_reward(["7"], **columns, given_away_penalty=2) == [0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"no_description_penalty": 0.1}, "nothing says where it applies: set description_judge"),
        ({"given_away_penalty": 0.1}, "nothing says where it applies: use CaptionGRPOTrainer"),
        ({"given_away_penalty": -0.1}, "given_away_penalty is -0.1, but it is taken off the reward: set it to 0 or"),
    ],
)
def test_penalties_that_cannot_be(settings, message):
    with pytest.raises(ValueError, match=message):
        caption_reward(["7"], ["7"], ["number"], **settings)


@pytest.mark.parametrize(
    "caption",
    [
        "The result of the survey is shown in a table with two columns.",
        "A worksheet; the answer to question 3 is written in blue ink.",
        "The student's answer is circled in red.",
        "Below the picture stands 'Answer:' with a blank line after it.",
        "Answer: ______",
        "A beaker with a solution of sodium chloride is on the table.",
        "The solution is blue and the precipitate is white.",
        "The circle is so small that it is barely visible.",
        "The bars are labelled 2010, 2011 and so on; the last one is the tallest.",
        "The curtains are drawn, so the room is dark.",
        "It is a poster of the film 'So Far Away'; the title is white.",
        "The triangle ABC is drawn so that AB is at the bottom.",
        "There are seven red apples and 3 green pears.",
        "The equation y = 2x + 1 stands beside the line.",
        "The search results are listed below a box that is empty.",
        "The page shows the question 'What is the answer?' above four options A, B, C and D.",
        "Four options are given: A is a circle, B is a square. No option is marked as the answer.",
        "The angle at B is a right angle and AC = 5.",
        "A bar chart: 2019 has 40, 2020 has 55.",
        "The correct options are not visible.",
        "The solutions are in three flasks: A is clear, B is cloudy.",
        "The scale is so fine that 1 mm is one division.",
        "The answers are printed upside down.",
        "The result is displayed on the screen of the calculator.",
        "",
    ],
)
def test_a_description_announces_nothing(caption):
    assert not announces_answer(caption)


@pytest.mark.parametrize(
    "caption",
    [
        "There are 3 cats. The answer is 3.",
        "The answer to the question is 12 cm.",
        "The answer: B",
        "Answer: 42",
        "Final answer = 7",
        "the correct answer is (C)",
        "The correct option is B.",
        r"AB = 3, BC = 4, \boxed{5}",
        "<answer>5</answer>",
        "The sides are 3 and 4; therefore the hypotenuse is 5.",
        "Thus x = 7.",
        "Hence the area equals 12.",
        "There are 5 apples and 2 are eaten, so the number left is 3.",
        "so x = 5",
        "So the sum is 10",
        "The result is 12.",
        "The solution is x = 4.",
        "Solution: x = 4",
        "The result of the calculation is 17.",
        "B is the correct answer.",
        "Option C is correct.",
        "The answer must be seven.",
        "**Answer:** 12",
        "the answer is therefore green",
        "Consequently, the missing angle is 40 degrees.",
        "The answer would be A.",
        "3 5 ; 2 so the answer is 10",
        "So there are 5 apples in total.",
        r"The answer is $\frac{1}{2}$.",
        "the final result: 5",
    ],
)
def test_an_answer_is_announced(caption):
    assert announces_answer(caption)
    assert announces_answer(f"A page with the digits 3 5 ; 2.\n{caption}")


@pytest.mark.parametrize(
    "piece",
    ["so ", ", so is ", "answer to ", "answer is really ", "answer * ", "thus ", "result of the ", "[", "only "],
)
def test_hostile_captions_cost_little(piece):
    start = time.perf_counter()
    announces_answer("the answer is " + piece * 4_000)
    announces_answer(piece * 4_000)
    assert time.perf_counter() - start < 2
