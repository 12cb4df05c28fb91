# SPDX-License-Identifier: Apache-2.0
import pytest

from open_r1_vision.rewards import format_reward

INFO, THINK, ANSWER = "<info>i</info>", "<think>t</think>", "<answer>a</answer>"


@pytest.mark.parametrize(
    "completion",
    [
        f"{INFO} {THINK} {ANSWER}",
        f"{INFO}{THINK}{ANSWER}",
        f"\n{INFO}\n\n{THINK}\t{ANSWER}\n",
        f"<info>- a\n- b\n</info>  {THINK} {ANSWER}",
        f"<info>a < b, <b>bold</b></info> {THINK} {ANSWER}",
        [{"role": "assistant", "content": f"{INFO} {THINK} {ANSWER}"}],
    ],
)
def test_right_format(completion):
    assert format_reward([completion]) == [1]


@pytest.mark.parametrize(
    "completion",
    [
        "",
        "a",
        f"{THINK} {ANSWER}",
        f"{INFO} {ANSWER} {THINK}",
        f"{INFO} {THINK}",
        f"{INFO} {THINK} <answer>a",
        f"{INFO} so {THINK} {ANSWER}",
        f"so {INFO} {THINK} {ANSWER}",
        f"{INFO} {THINK} {ANSWER} so",
        f"{INFO} {INFO} {THINK} {ANSWER}",
        f"{INFO} {THINK} {ANSWER} {ANSWER}",
        f"{INFO} <think><answer>a</answer></think> {ANSWER}",
        f"<info>{THINK} {ANSWER}</info>",
        f"<info></info> {THINK} {ANSWER}",
        f"{INFO} {THINK} <answer> \n</answer>",
        f"{INFO.upper()} {THINK} {ANSWER}",
        f"</info>i<info> {THINK} {ANSWER}",
        "<info>" * 10_000,
    ],
)
def test_wrong_format(completion):
    assert format_reward([completion]) == [0]


def test_sections_can_be_chosen():
    completions = [f"{THINK} {ANSWER}", f"{INFO} {THINK} {ANSWER}"]
    assert format_reward(completions, sections=["think", "answer"], id=["a", "b"]) == [1, 0]
