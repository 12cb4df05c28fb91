# SPDX-License-Identifier: Apache-2.0
import pytest

from open_r1_vision.rewards import caption_reward


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
