# SPDX-License-Identifier: Apache-2.0
"""Lessons in sections: what they teach is what PeBR-R1's rewards pay for."""

import pytest

from open_r1_vision.prompts import load_prompt
from open_r1_vision.rewards import accuracy_reward, key_words_reward, sections_format_reward
from open_r1_vision.rewards.headers import extract_description
from open_r1_vision.starter import digits, sections


@pytest.fixture(scope="module")
def lessons():
    return list(sections.rows("train", 200))


def text_of(lesson):
    return lesson["completion"][0]["content"][0]["text"]


def test_a_page_is_written_in_sections():
    steps = ["4", "+ 3 = 7"]
    assert sections.write_sections("4 ; 3", "What is the sum of the digits?", steps, "7") == (
        "### Image Description: 4 ; 3\n"
        "### Rationales: sum of the digits\n"
        "### Step 1: 4 + 3 = 7\n"
        "### The final answer is: 7"
    )


def test_rewards_pay_in_full_for_what_is_taught():
    rows = digits.rows("warm_up", 50)
    texts = [
        sections.write_sections(row["caption"], row["problem"], row["reasoning_steps"], row["solution"])
        for row in rows
    ]
    full = [1.0] * 50
    assert sections_format_reward(texts) == full
    assert key_words_reward(texts, rows["key_words"]) == full
    assert accuracy_reward(texts, rows["solution"], rows["problem_type"], answer_form="sections") == full


def test_lessons_show_or_type_a_page_and_describe_it(lessons):
    typed = [lesson for lesson in lessons if not lesson["images"]]
    assert len(typed) == 60  # 0.3 of 200
    lengths = {True: [], False: []}
    for lesson in lessons:
        system, user = lesson["prompt"]
        assert system["content"][0]["text"] == load_prompt("starter_sections")
        assert sections_format_reward([text_of(lesson)]) == [1.0]
        description = extract_description(text_of(lesson))
        lengths[bool(lesson["images"])].append(len(description.replace(";", "").split()))
        if not lesson["images"]:
            assert user["content"][0]["text"] == f" {description}\n"
    assert (min(lengths[True]), max(lengths[True])) == (2, 5)
    assert max(lengths[False]) == 8


def test_lessons_of_a_split_are_its_own():
    first, again, test = (sections.rows(split, 20)["completion"] for split in ("train", "train", "test"))
    assert first == again != test
    with pytest.raises(ValueError, match="Unknown split 'dev' of the lessons in sections: choose train or test"):
        sections.rows("dev")
