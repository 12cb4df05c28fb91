# SPDX-License-Identifier: Apache-2.0
"""Where a section begins and ends, whatever the tokens are."""

import pytest
import tiny_models

from open_r1_vision.decoding.spans import SpanTracker
from open_r1_vision.starter.model import build_tokenizer


class Pieces:
    """A tokenizer whose tokens are the given pieces of text."""

    def __init__(self, *pieces):
        self.pieces = pieces
        self.num_decoded = 0

    def decode(self, tokens, **options):
        self.num_decoded += len(tokens)
        return "".join(self.pieces[token] for token in tokens)


def follow(pieces, span="info"):
    """For each piece, whether it is inside when it is chosen."""
    tracker = SpanTracker(Pieces(*pieces), span, 1)
    flags = []
    for token in range(len(pieces)):
        flags += tracker.inside
        tracker.append([token])
    return flags


@pytest.mark.parametrize(
    "pieces, inside",
    [
        (["a", "<info>", "3", "4", "</info>", "b"], "001110"),
        (["<", "info", ">", "3", "</", "info", ">", "b"], "00011110"),
        (["<in", "fo> 3", " 4</", "info>\n", "b"], "00110"),  # tokens that are more than a tag, or less
        (["a", "<info> 3 > 2</info> <info", "> 4", "</info", " >", "</info>b", "c"], "0001110"),
        (["<info>", "x > 2", "<info", "</think>", "3"], "01111"),  # other tags and signs change nothing
        (["</info>", "a", "<think>", "b", "</think>"], "00000"),  # never opened
        (["<info>3</info>", "a", "<info>", "4", "</info>", "b"], "000110"),  # opened again
        (["<info>", "<info>", "3", "</info>", "4", "</info>"], "011100"),  # the first closing tag ends a nested one
    ],
)
def test_inside_is_between_the_end_of_one_tag_and_the_end_of_the_other(pieces, inside):
    assert follow(pieces) == [flag == "1" for flag in inside]


def test_other_spans():
    assert follow(["<info>", "3", "</info>", "<think>", "4", "</think>", "5"], "think") == [
        flag == "1" for flag in "0000110"
    ]


def test_rows_are_followed_one_by_one():
    tracker = SpanTracker(Pieces("a", "<info>", "</info>"), "info", 3)
    seen = []
    for tokens in ([1, 0, 0], [0, 1, 0], [2, 0, 0]):
        tracker.append(tokens)
        seen.append(tracker.inside.copy())
    assert seen == [[True, False, False], [True, True, False], [False, True, False]]


def test_text_is_decoded_only_where_a_tag_may_have_ended():
    pieces = Pieces("a", "<info>", "x>", "<|endoftext|>")
    tracker = SpanTracker(pieces, "info", 1)
    for token in [0] * 100 + [1] + [0, 2] * 50 + [3] * 100:
        tracker.append([token])
    assert tracker.inside == [True]
    assert pieces.num_decoded == 4 + 101  # each kind of token once, and the reply up to the tag


def test_the_starters_tokens():
    tokenizer = build_tokenizer()
    tracker = SpanTracker(tokenizer, "info", 1)
    ids = tokenizer("<info> 3 1 ; 4</info> <think>")["input_ids"]
    inside = []
    for token in ids:
        inside += tracker.inside
        tracker.append([token])
    # <info>, 3, 1, ;, 4, </info>, and what follows
    assert inside[:6] == [False, True, True, True, True, True]
    assert not any(inside[6:])


def test_tags_that_are_special_tokens():
    tokenizer = tiny_models.build_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<info>", "</info>"]})
    tracker = SpanTracker(tokenizer, "info", 1)
    inside = []
    for token in tokenizer("a<info>b</info>c")["input_ids"]:
        inside += tracker.inside
        tracker.append([token])
    assert inside == [False, False, True, True, False]
