# SPDX-License-Identifier: Apache-2.0
import pytest

from open_r1_vision.rewards.tags import extract_caption, extract_last_section, extract_section


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<info>a red circle</info>", "a red circle"),
        ("<info>\n- a circle\n- a square\n</info><think></think>", "- a circle\n- a square"),  # missed by the authors
        ("<info>first</info> <info>second</info>", "first"),
        ("<info> \n</info>", None),
        ("<info>never closed", None),
        ("closed only</info>", None),
        ("</info> before <info>", None),
        ("<INFO>a</INFO>", None),
        ("", None),
    ],
)
def test_caption_is_first_complete_info_section(text, expected):
    assert extract_caption(text) == expected


def test_extract_section_takes_any_tag():
    assert extract_section("<think>2 + 2</think>", "think") == "2 + 2"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<answer>4</answer>", "4"),
        ("<answer>\n4\n</answer> trailing words", "4"),
        ("I write <answer> tags. <answer>4</answer>", "4"),
        ("<answer>3</answer> no, <answer>4</answer>", "4"),
        ("<answer>3 <answer>4</answer></answer>", None),
        ("<answer>3</answer> no, <answer>4", None),
        ("<answer>3</answer> <answer></answer>", None),
        ("<answer>3</answer></answer>", None),
        ("</answer>4<answer>", None),
        ("<answer>4", None),
        ("4", None),
    ],
)
def test_last_section_is_the_one_the_text_ends_on(text, expected):
    assert extract_last_section(text, "answer") == expected
