# SPDX-License-Identifier: Apache-2.0
"""What a reader is asked, and how its reply is read."""

import pytest

from open_r1_vision.reasoners.captions import parse_reply, reader_messages
from open_r1_vision.reasoners.policy import policy_reader


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("8", "8"),
        (" Paris. ", "Paris"),
        ("3.5", "3.5"),
        ("<think> 3 + 5 = 8</think> <answer> 8</answer>", "8"),
        ("<think> 3 + 5", None),
        ("<answer></answer>", None),
        ("<answer> 8", None),
        ("", None),
        (".", None),
    ],
)
def test_answers(reply, answer):
    reading = parse_reply(reply)
    assert reading.answer == answer
    assert reading.is_description
    assert reading.reply == reply


@pytest.mark.parametrize(
    "reply",
    ["Not a description", "not a description.", " NOT A DESCRIPTION\n", "Hacking Sample", "hacking sample."]
    + ["Not a description: it says <answer>8</answer>"],
)
def test_verdicts_leave_no_answer(reply):
    reading = parse_reply(reply)
    assert not reading.is_description
    assert reading.answer is None


def test_the_reader_sees_text_alone():
    system, user = reader_messages("two cats", "How many?", "Answer.")
    assert system == {"role": "system", "content": [{"type": "text", "text": "Answer."}]}
    assert user == {"role": "user", "content": [{"type": "text", "text": "How many?\n<info> two cats</info>"}]}


def test_a_missing_caption_is_asked_for_step_but_never_answered():
    asked = []

    def generate(chats, max_new_tokens):
        asked.append((len(chats), max_new_tokens))
        return [f"{index}" for index in range(len(chats))]

    readings = policy_reader(generate, "Answer.", 7).read(["a", None, "b"], ["?", "?", "?"])
    assert asked == [(3, 7)]
    assert [reading.answer for reading in readings] == ["0", None, "2"]
    assert readings[1].reply == ""
