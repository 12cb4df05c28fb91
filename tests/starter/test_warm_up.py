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
    """Lessons with a page, with a typed page, and for the reader."""
    pages = [lesson for lesson in lessons if lesson["images"]]
    texts = [lesson for lesson in lessons if not lesson["images"]]
    reader = load_prompt("starter_reader")
    is_reading = [lesson["prompt"][0]["content"][0]["text"] == reader for lesson in texts]
    return (
        pages,
        [lesson for lesson, reading in zip(texts, is_reading, strict=True) if not reading],
        [lesson for lesson, reading in zip(texts, is_reading, strict=True) if reading],
    )


def test_shares(lessons):
    assert [len(part) for part in split_lessons(lessons)] == [200, 80, 120]


@pytest.mark.parametrize(("part", "count"), [(0, 200), (1, 80)])
def test_lessons_about_pages_earn_full_marks(lessons, part, count):
    pages = split_lessons(lessons)[part]
    completions = [lesson["completion"] for lesson in pages]
    assert format_reward(completions) == [1.0] * count
    texts = [completion[0]["content"][0]["text"] for completion in completions]
    golds = [text.split("<answer> ")[1].removesuffix("</answer>") for text in texts]
    kinds = ["choice" if gold in "ABC" else "number" for gold in golds]
    problems = [lesson["prompt"][1]["content"][1]["text"] for lesson in pages]
    assert accuracy_reward(completions, golds, kinds, problem=problems) == [1.0] * count
    assert all(extract_caption(text) for text in texts)


def test_page_lessons_show_the_page_with_the_policy_prompt(lessons):
    for lesson in split_lessons(lessons)[0]:
        system, user = lesson["prompt"]
        assert system["content"][0]["text"] == load_prompt("starter")
        assert [part["type"] for part in user["content"]] == ["image", "text"]


def test_typed_pages_hold_the_caption_and_go_beyond_the_pages_that_are_shown(lessons):
    pages, typed, _ = split_lessons(lessons)
    longest = {}
    for name, part in (("page", pages), ("typed", typed)):
        captions = [extract_caption(lesson["completion"][0]["content"][0]["text"]) for lesson in part]
        longest[name] = max(caption.count(" ") - caption.count(";") for caption in captions if caption[0].isdigit())
        if name == "typed":
            for lesson, caption in zip(part, captions, strict=True):
                system, user = lesson["prompt"]
                assert system["content"][0]["text"] == load_prompt("starter")
                assert user["content"][0]["text"] == f" {caption}\n"
    assert longest["page"] < 5 <= longest["typed"]


def test_reading_lessons_teach_both_replies(lessons):
    _, _, readings = split_lessons(lessons)
    replies = [parse_reply(lesson["completion"][0]["content"][0]["text"]) for lesson in readings]
    rejected = [reply for reply in replies if not reply.is_description]
    assert 20 <= len(rejected) <= 55
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
