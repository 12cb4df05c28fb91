# SPDX-License-Identifier: Apache-2.0
import time

import pytest

from open_r1_vision.rewards.boxes import extract_boxed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\boxed{4}", "4"),
        (r"so \boxed{ 4 } cm", "4"),
        (r"\fbox{B}", "B"),
        (r"\boxed {4}", "4"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{a \} b}", r"a \} b"),
        ("\\boxed{two\nlines}", "two\nlines"),
        (r"\\boxed{4}", "4"),
        (r"first \boxed{3}, no: \boxed{4}", "4"),
        (r"\boxed{\boxed{4} cm}", r"\boxed{4} cm"),
        (r"\boxed{\boxed{4} cm} and \fbox{5}", "5"),
        # no complete box, or nothing in it
        (r"\boxed{3} or \boxed{4", None),
        (r"\boxed{3} or \boxed{\frac{1}{2}", None),
        (r"\boxed{\boxed{4} cm", None),
        (r"\boxed{4\}", None),
        (r"\boxed{3} \boxed{ }", None),
        (r"\boxed{}", None),
        ("boxed{4}", None),
        (r"\boxed 4", None),
        (r"\Boxed{4}", None),
        ("4", None),
        ("", None),
        # what stands in the thinking is a draft
        (r"<think>\boxed{3}</think>\boxed{4}", "4"),
        (r"\boxed{3}</think>\boxed{4}", "4"),
        (r"<think>\boxed{3}</think> four", None),
        (r"<think>\boxed{3}", None),
        (r"\boxed{3}<think>\boxed{4", None),
        (r"<think>a</think>\boxed{3}<think>\boxed{4}</think>\boxed{5}", "5"),
        (r"<think>a</think>\boxed{3}<think>wait", None),
        (r"<think>\boxed{3</think>\boxed{4}", "4"),
    ],
)
def test_extract_boxed(text, expected):
    assert extract_boxed(text) == expected


@pytest.mark.parametrize(
    "piece", ["\\boxed{", "\\boxed{}", "{", "\\", "\\boxed{a", "</think>", "<think>", "\\fbox {x}"]
)
def test_hostile_texts_cost_little(piece):
    start = time.perf_counter()
    extract_boxed(piece * 50_000)
    extract_boxed("\\boxed{" + piece * 50_000 + "}")
    assert time.perf_counter() - start < 3
