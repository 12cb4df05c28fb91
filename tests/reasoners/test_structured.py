# SPDX-License-Identifier: Apache-2.0
"""JSON in replies, and the schema they have to fit."""

import pytest

from open_r1_vision.reasoners.structured import check_schema, parse_json, schema_reader


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1}', {"a": 1}),
        (" [1, 0]\n", [1, 0]),
        ('```json\n{"a": 1}\n```', {"a": 1}),
        ("Here:\n```\n[1]\n```\nand so on", [1]),
        ('```\n{"a": 1}\n```\nNo:\n```\n{"a": 2}\n```', {"a": 2}),
        ('Sure! {"a": {"b": [2]}} Anything else?', {"a": {"b": [2]}}),
        ('<think>{"a": 0}</think>{"a": 1}', {"a": 1}),
        ('{"a": 0} is it</think>\n{"a": 1}', {"a": 1}),
        ('"text"', "text"),
    ],
)
def test_json_is_found(text, value):
    assert parse_json(text) == value


@pytest.mark.parametrize(
    "text",
    ["", "yes", '{"a": 1', '{"a": NaN}', "[Infinity]", "{'a': 1}", "[" * 100_000, "] [", "<think>[1]", "9" * 10_000],
)
def test_no_json(text):
    with pytest.raises(ValueError, match="JSON"):
        parse_json(text if text != "<think>[1]" else "<think>yes")


VERDICTS = {
    "type": "object",
    "properties": {
        "verdicts": {"type": "array", "items": {"type": "integer", "enum": [0, 1]}, "minItems": 2, "maxItems": 2},
        "score": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
    },
    "required": ["verdicts"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    "value", [{"verdicts": [0, 1]}, {"verdicts": [1, 1], "score": 0.5}, {"verdicts": [1, 1], "score": None}]
)
def test_values_that_fit(value):
    check_schema(value, VERDICTS)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([0, 1], "not of type object"),
        ({}, "lacks verdicts"),
        ({"verdicts": "01"}, r"the reply.verdicts is '01', not of type array"),
        ({"verdicts": [0]}, "has 1 items"),
        ({"verdicts": [0, 1, 1]}, "has 3 items"),
        ({"verdicts": [0, 2]}, r"verdicts\[1\] is 2, not one of"),
        ({"verdicts": [0, True]}, "True, not of type integer"),
        ({"verdicts": [0, 0.5]}, "0.5, not of type integer"),
        ({"verdicts": [0, 1], "score": 1.5}, "out of range"),
        ({"verdicts": [0, 1], "score": float("inf")}, "out of range"),
        ({"verdicts": [0, 1], "why": "so"}, "has 'why', which the schema does not"),
    ],
)
def test_values_that_do_not_fit(value, message):
    with pytest.raises(ValueError, match=message):
        check_schema(value, VERDICTS)


def test_infinity_in_disguise_is_no_score():
    with pytest.raises(ValueError, match="out of range"):
        schema_reader({"type": "number"})("1e999")
