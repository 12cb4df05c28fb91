# SPDX-License-Identifier: Apache-2.0
"""Warm-up lessons: what they ask for is what the rewards and the reader accept."""

import pytest

from open_r1_vision.prompts import load_prompt
from open_r1_vision.reasoners.captions import parse_reply
from open_r1_vision.rewards import accuracy_reward, format_reward
from open_r1_vision.rewards.tags import extract_caption
from open_r1_vision.starter import warm_up


@pytest.fixture(scope="module")
def lessons():
    return list(warm_up.rows("train", 400))


def split_lessons(lessons):
    pages = [lesson for lesson in lessons if lesson["images"]]
    return pages, [lesson for lesson in lessons if not lesson["images"]]


def test_two_lessons_in_five_are_reading(lessons):
    pages, readings = split_lessons(lessons)
    assert (len(pages), len(readings)) == (240, 160)


def test_page_lessons_earn_full_marks(lessons):
    pages, _ = split_lessons(lessons)
    completions = [lesson["completion"] for lesson in pages]
    assert format_reward(completions) == [1.0] * 240
    texts = [completion[0]["content"][0]["text"] for completion in completions]
    golds = [text.split("<answer> ")[1].removesuffix("</answer>") for text in texts]
    kinds = ["choice" if gold in "ABC" else "number" for gold in golds]
    problems = [lesson["prompt"][1]["content"][1]["text"] for lesson in pages]
    assert accuracy_reward(completions, golds, kinds, problem=problems) == [1.0] * 240
    assert all(extract_caption(text) for text in texts)


def test_page_lessons_show_the_page_with_the_policy_prompt(lessons):
    for lesson in split_lessons(lessons)[0]:
        system, user = lesson["prompt"]
        assert system["content"][0]["text"] == load_prompt("starter")
        assert [part["type"] for part in user["content"]] == ["image", "text"]


def test_reading_lessons_teach_both_replies(lessons):
    _, readings = split_lessons(lessons)
    replies = [parse_reply(lesson["completion"][0]["content"][0]["text"]) for lesson in readings]
    rejected = [reply for reply in replies if not reply.is_description]
    assert 30 <= len(rejected) <= 70
    assert all(reply.answer for reply in replies if reply.is_description)
    for lesson, reply in zip(readings, replies, strict=True):
        system, user = lesson["prompt"]
        assert system["content"][0]["text"] == load_prompt("starter_reader")
        problem, caption = user["content"][0]["text"].removesuffix("</info>").split("\n<info> ")
        assert problem
        if reply.is_description and "sum" in problem:
            assert sum(int(word) for word in caption.replace(";", "").split()) == int(reply.answer)


def test_unknown_splits_are_refused():
    with pytest.raises(ValueError, match="'dev'.*train or test"):
        warm_up.rows("dev", 8)
